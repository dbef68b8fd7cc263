"""The least time that any search can take when nothing flakes, by dynamic programming."""

from __future__ import annotations

from statistics import fmean

import numpy as np

from vbisect.simulate import World


def least_seconds(world: World) -> float:
    """The mean over all places of the change, in seconds, of the best order of trials.

    Both ends are tested first, one trial runs at a time, and a single request is a verdict.
    Between two tested candidates ``i`` and ``j`` any ``k`` can be next; each of the ``j - i``
    places of the change is equally likely.
    """
    trial = world.boot_s + world.request_s
    seconds = np.full(world.candidates, trial + world.fetch_s)
    seconds[list(world.cached)] = trial
    count = world.candidates
    rest = np.zeros((count, count))  # summed over the places between i and j
    for length in range(2, count):
        for i in range(count - length):
            j = i + length
            between = slice(i + 1, j)
            rest[i, j] = (seconds[between] * length + rest[i, between] + rest[between, j]).min()
    return float(seconds[0] + seconds[-1] + rest[0, -1] / (count - 1))


def mean_least_seconds(worlds: list[World]) -> float:
    """The mean over ``worlds``."""
    return fmean(least_seconds(world) for world in worlds)
