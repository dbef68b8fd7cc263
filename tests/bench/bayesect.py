"""How many boots git-bayesect takes for the same truths, driven through its own class.

It is told what vbisect is not: that there is a change between the ends.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from git_bayesect import Bisector

from vbisect.simulate import World

MOST_BOOTS = 5000


@dataclass(frozen=True)
class Peer:
    """Its mean boots, and the share of its answers that are wrong."""

    boots_mean: float
    wrong_share: float


def measure_peer(worlds: Sequence[World], confidence: float) -> Peer:
    """Search each world with one request a boot until one place holds ``confidence``."""
    runs = [_search(world, confidence) for world in worlds]
    return Peer(
        sum(boots for boots, _ in runs) / len(runs),
        sum(not right for _, right in runs) / len(runs),
    )


def _search(world: World, confidence: float) -> tuple[int, bool]:
    """Boots, and whether the answer is right.

    Its indices go from the newest candidate to the oldest, and its answer is the oldest one that
    is like the newest: the first one after the change. The very oldest cannot be that.
    """
    assert world.change is not None
    newest = world.candidates - 1
    dice = random.Random(world.seed)
    weights = np.ones(world.candidates)
    weights[newest] = 0
    search = Bisector(weights)
    boots = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it takes the logarithm of the zero weight
        while search.distribution.max() < confidence and boots < MOST_BOOTS:
            index = search.select()
            search.record(index, dice.random() < world.failure_rate(newest - index))
            boots += 1
        found = newest - int(search.distribution.argmax())
    return boots, found == world.change.at
