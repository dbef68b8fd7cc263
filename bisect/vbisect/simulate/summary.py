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
    ``exact_…`` are runs that named one release, with ``stated_mean`` as their mean confidence;
    ``suspects_…`` those that named several, and ``none`` those that saw no change.
    """

    runs: int
    wrong: int
    inconclusive: int
    boots_mean: float
    requests_mean: float
    virtual_s_mean: float
    virtual_s_p95: float
    exact_right: int
    exact_wrong: int
    stated_mean: float | None
    suspects_right: int
    suspects_wrong: int
    none: int
    none_wrong: int


def summarise(runs: Sequence[Run]) -> Summary:
    """The figures of ``runs``, of which there is at least one."""
    times = sorted(run.virtual_s for run in runs)
    unsure = sum(run.answer.status is Status.INCONCLUSIVE and not run.wrong for run in runs)
    exact = [run for run in runs if run.answer.status is Status.FOUND]
    stated = [run.answer.confidence for run in exact if run.answer.confidence is not None]
    several = [
        run for run in runs if run.answer.status is Status.INCONCLUSIVE and run.answer.suspects
    ]
    none = [run for run in runs if run.answer.status is Status.NONE]
    return Summary(
        runs=len(runs),
        wrong=sum(run.wrong for run in runs),
        inconclusive=unsure,
        boots_mean=fmean(run.boots for run in runs),
        requests_mean=fmean(run.requests for run in runs),
        virtual_s_mean=fmean(times),
        virtual_s_p95=times[math.ceil(0.95 * len(times)) - 1],
        exact_right=sum(not run.wrong for run in exact),
        exact_wrong=sum(run.wrong for run in exact),
        stated_mean=fmean(stated) if stated else None,
        suspects_right=sum(not run.wrong for run in several),
        suspects_wrong=sum(run.wrong for run in several),
        none=len(none),
        none_wrong=sum(run.wrong for run in none),
    )
