"""The upgrade report as values, for every format to show."""

from __future__ import annotations

from dataclasses import dataclass

from vbisect.report.upgrade.advice import Advice, advise
from vbisect.report.upgrade.speeds import Speed, speeds
from vbisect.run.state import RunState


@dataclass(frozen=True)
class Upgrade:
    """The advice, and the speeds it may be weighed against."""

    advice: Advice
    speeds: tuple[Speed, ...]


def upgrade_of(state: RunState, on: str | None = None) -> Upgrade:
    """The upgrade report for somebody on release ``on``.

    Raises ``UsageError`` when ``on`` is no candidate of the run.
    """
    return Upgrade(advice=advise(state, on), speeds=speeds(state))
