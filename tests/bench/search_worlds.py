"""The worlds of the search benchmark: many random truths of each, from fixed seeds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from vbisect.search import Change
from vbisect.simulate import DeclaredChange, World

SMALL, LARGE = 51, 1000

Draw = Callable[[random.Random, int], World]
"""Draws one truth; the second argument is the seed of what is drawn in its runs."""


def draw_truths(draw: Draw, number: int, seed: int = 17) -> list[World]:
    """``number`` worlds; the first of them are the same however many there are."""
    return [draw(random.Random(f"{seed}-{each}"), each) for each in range(number)]


def changed(count: int = SMALL, kind: type[World] = World, **keys: Any) -> Draw:
    """One change of either kind, anywhere; ``keys`` are those of the world."""
    return lambda dice, seed: kind(candidates=count, change=_change(dice, count), seed=seed, **keys)


def steady(count: int, jobs: int = 1) -> Draw:
    """Nothing flaky, nothing cached, nothing broken."""
    return changed(count, jobs=jobs)


def flaky(count: int, fail_rate: float, false_fail_rate: float = 0.0) -> Draw:
    """The bug shows in a part of the requests only; what is good may fail now and then."""
    return changed(count, fail_rate=fail_rate, false_fail_rate=false_fail_rate)


def broken_in_a_row(count: int, broken: int) -> Draw:
    """A stretch between the ends that cannot be tested; the change may lie in it."""

    def draw(dice: random.Random, seed: int) -> World:
        first = dice.randrange(1, count - broken)
        return changed(count, untestable=((first, first + broken - 1),))(dice, seed)

    return draw


def quarter_cached(count: int) -> Draw:
    """A random quarter on disk; a boot with one request takes 3 minutes, with its fetch 11."""

    def draw(dice: random.Random, seed: int) -> World:
        return World(
            candidates=count,
            change=_change(dice, count),
            cached=tuple(sorted(dice.sample(range(count), count // 4))),
            fetch_s=480,
            boot_s=178,
            request_s=2,
            seed=seed,
        )

    return draw


def without_change(count: int, false_fail_rate: float) -> Draw:
    """Every candidate fails as often as any other."""
    return lambda _, seed: World(
        candidates=count, change=None, false_fail_rate=false_fail_rate, seed=seed
    )


class CrashingLowEnd(World):
    """A fifth of the boots of the oldest candidate die at their first request."""

    def crashes(self, index: int) -> float:
        return 0.2 if index == 0 else self.crash_rate


def _change(dice: random.Random, count: int) -> DeclaredChange:
    kinds: Sequence[Change] = tuple(Change)
    return DeclaredChange(kind=dice.choice(kinds), at=dice.randrange(1, count))
