"""The figures of many runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from vbisect.simulate.answer import Status
from vbisect.simulate.simulation import Run


@dataclass(frozen=True)
class Summary:
    """Of ``runs`` runs: how many were wrong or inconclusive, and what they cost (``_s``: seconds).

    A run that is not sure and leaves the truth out of its suspects is wrong, not inconclusive.
    """

    runs: int
    wrong: int
    inconclusive: int
    boots_mean: float
    requests_mean: float
    virtual_s_mean: float
    virtual_s_p95: float


def summarise(runs: Sequence[Run]) -> Summary:
    """The figures of ``runs``, of which there is at least one."""
    times = sorted(run.virtual_s for run in runs)
    unsure = sum(run.answer.status is Status.INCONCLUSIVE and not run.wrong for run in runs)
    return Summary(
        runs=len(runs),
        wrong=sum(run.wrong for run in runs),
        inconclusive=unsure,
        boots_mean=fmean(run.boots for run in runs),
        requests_mean=fmean(run.requests for run in runs),
        virtual_s_mean=fmean(times),
        virtual_s_p95=times[math.ceil(0.95 * len(times)) - 1],
    )
