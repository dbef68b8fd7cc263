"""The upgrade report as values, for every format to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import Version

from vbisect.report.upgrade.advice import Advice, advise
from vbisect.report.upgrade.commits import Commits, commits_between
from vbisect.report.upgrade.speeds import Speed, speeds
from vbisect.report.upgrade.steps import Step, not_looked_up, release_notes, steps_between
from vbisect.run.comparisons import KeptComparison
from vbisect.run.state import RunState


@dataclass(frozen=True)
class Upgrade:
    """The advice, what else comes with it, and the speeds it may be weighed against.

    ``steps`` leads from ``advice.on`` to the recommended release, then beyond it to the newest that
    is known to be good; ``steps_limits`` says what of that way could not be looked up.
    ``commits`` has the commits of each change that GitHub was asked about, the answer first.
    ``notes`` are the addresses of the release notes on the way, by release, oldest first.
    """

    advice: Advice
    steps: tuple[Step, ...]
    steps_limits: str | None
    notes: dict[str, str]
    commits: tuple[Commits, ...]
    speeds: tuple[Speed, ...]


def upgrade_of(
    state: RunState, on: str | None = None, comparisons: Sequence[KeptComparison] = ()
) -> Upgrade:
    """The upgrade report for somebody on release ``on``; ``comparisons`` are those kept of the run.

    Raises ``UsageError`` when ``on`` is no candidate of the run.
    """
    advice = advise(state, on)
    there = advice.recommended if advice.recommended != advice.on else None
    newest = advice.newest or there
    return Upgrade(
        advice=advice,
        steps=steps_between(state, advice.on, there, newest) if there and newest else (),
        steps_limits=not_looked_up(advice.on, newest) if newest else None,
        notes=_notes(state, advice.on, there) if there else {},
        commits=commits_between(state, comparisons),
        speeds=speeds(state),
    )


def _notes(state: RunState, low: str, until: str) -> dict[str, str]:
    """The notes of each release after ``low``; a build between releases has none."""
    return {
        version: release_notes(version)
        for version in state.settings.versions
        if Version(low) < Version(version) <= Version(until)
        and not Version(version).is_devrelease
        and not Version(version).local
    }
