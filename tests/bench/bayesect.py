"""How many boots git-bayesect takes for the same truths, driven through its own class.

It is told what vbisect is not: that there is a change between the ends. A record of it is one boot
with one request.
"""

from __future__ import annotations

import random
import warnings

import numpy as np
from git_bayesect import Bisector

from vbisect.simulate import World

MOST_BOOTS = 5000


def search_with_peer(world: World) -> tuple[int, bool]:
    """Boots until one place holds the world's confidence, and whether the answer is right.

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
        while search.distribution.max() < world.confidence and boots < MOST_BOOTS:
            index = search.select()
            search.record(index, dice.random() < _failure_chance(world, newest - index))
            boots += 1
        found = newest - int(search.distribution.argmax())
    return boots, found == world.change.at


def _failure_chance(world: World, index: int) -> float:
    """The chance that the first request to a new boot fails."""
    if world.is_bad(index):
        shows, rate = world.sticky, world.failure_rate(index)
    else:
        shows, rate = world.false_sticky, 1.0
    return shows * rate + (1 - shows) * world.false_fail_rate
