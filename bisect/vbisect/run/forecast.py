"""What a run would take, by rehearsing it for every place where the change may be."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vbisect.builds.in_vain import MOST_IN_VAIN
from vbisect.run.rehearsal import Rehearsal, Stage, rehearse
from vbisect.search import Change, Outcome
from vbisect.search.cuts import Weighing

_DRAWN = 240
"""Rehearsals with dice, spread over the places of the change."""

_SOME = 10
"""Rehearsals by which numbers of servers are compared."""

_BEYOND_DRAWN = 1
"""Boots that a run may take beyond the most of any rehearsal: not all chances can be drawn."""

Truth = Mapping[int, Outcome]


@dataclass(frozen=True)
class Forecast:
    """Boots, bytes and seconds: the most a run takes, and what it takes on average.

    ``vain_most`` and ``vain_mean`` are bytes that come beside those, ahead of trials that then do
    not take place; ``builds_most`` are those to fetch, such ones included.
    """

    boots_most: int
    boots_mean: float
    bytes_most: float
    bytes_mean: float
    vain_most: float
    vain_mean: float
    builds_most: int
    seconds_most: float
    seconds_mean: float


def foresee(stage: Stage, size: Callable[[Sequence[int]], float]) -> Forecast:
    """Rehearse runs on ``stage``; ``size`` gives the bytes to download for some candidates.

    The average is over one change, as likely with each candidate as the search takes it to be. The
    most holds for no change, too, and with ``find_all`` for any number of them, as long as no
    release flakes and none but those of ``stage`` is skipped.
    """
    likely = list(_one_change(stage))
    usual = [(weight, rehearse(stage, truth)) for weight, truth in likely]
    rest = [rehearse(stage, truth) for truth in _other_truths(stage)]
    usual = usual or [(1.0, rehearsal) for rehearsal in rest]
    drawn = _with_dice(stage, [truth for _, truth in likely])
    every = [*(rehearsal for _, rehearsal in usual), *rest, *drawn]
    boots = max(rehearsal.boots for rehearsal in every)
    builds = max(len(rehearsal.booted) for rehearsal in every)
    seconds = max(rehearsal.seconds for rehearsal in every)
    if drawn:
        dearest = max(stage.costs.fetch[index] for index in stage.testable)
        boots += _BEYOND_DRAWN
        builds = min(builds + _BEYOND_DRAWN, len(stage.testable))
        seconds += _BEYOND_DRAWN * (dearest + stage.costs.boot)

    def average(of: Callable[[Rehearsal], float]) -> float:
        whole = sum(weight for weight, _ in usual)
        return sum(weight * of(rehearsal) for weight, rehearsal in usual) / whole

    most_bytes = _most_bytes(stage, every, builds, size)
    most_in_vain = 0.0 if stage.aim.sweep else MOST_IN_VAIN
    return Forecast(
        boots_most=boots,
        boots_mean=average(lambda rehearsal: rehearsal.boots),
        bytes_most=most_bytes,
        vain_most=most_in_vain * most_bytes,
        vain_mean=most_in_vain and average(lambda it: _share_in_vain(it) * size(it.booted)),
        builds_most=int(builds * (1 + most_in_vain)),
        bytes_mean=average(lambda rehearsal: size(rehearsal.booted)),
        seconds_most=seconds,
        seconds_mean=average(lambda rehearsal: rehearsal.seconds),
    )


def _share_in_vain(rehearsal: Rehearsal) -> float:
    """Of what is needed, the share that comes in vain beside it: one build for each trial of which
    it is not known beforehand that it takes place, as the ends and the first between them are."""
    builds = len(rehearsal.booted)
    return min(MOST_IN_VAIN, max(0, builds - 3) / builds) if builds else 0.0


def seconds_on_average(stage: Stage, jobs: int) -> float:
    """What a run on ``stage`` takes with ``jobs`` servers at once, by some places of the change."""
    stage = replace(stage, jobs=jobs)
    likely = list(_one_change(stage)) or [(1.0, truth) for truth in _other_truths(stage)]
    some = likely[:: max(1, len(likely) // _SOME)]
    took = sum(weight * rehearse(stage, truth).seconds for weight, truth in some)
    return took / sum(weight for weight, _ in some)


def _most_bytes(
    stage: Stage, every: Sequence[Rehearsal], builds: int, size: Callable[[Sequence[int]], float]
) -> float:
    """What the largest rehearsal downloads, with the largest builds for those beyond it."""
    most = max(size(rehearsal.booted) for rehearsal in every)
    beyond = builds - max(len(rehearsal.booted) for rehearsal in every)
    largest = max((size([index]) for index in stage.testable), default=0.0)
    return min(most + beyond * largest, size(stage.testable))


def _one_change(stage: Stage) -> Iterator[tuple[float, Truth]]:
    """Every place of one change between two testable candidates, with its weight; either kind."""
    weighing = Weighing(stage.aim.weights)
    for before, after in pairwise(stage.testable):
        for change in Change:
            if stage.aim.find.wants(change):
                yield weighing.between(before + 1, after), _truth(stage, after, change)


def _other_truths(stage: Stage) -> Iterator[Truth]:
    """No change at all, a change of the kind not looked for, and one with every candidate."""
    yield dict.fromkeys(stage.testable, Outcome.PASS)
    yield dict.fromkeys(stage.testable, Outcome.FAIL)
    for change in Change:
        if not stage.aim.find.wants(change) and stage.testable:
            yield _truth(stage, stage.testable[-1], change)
    sides = (Outcome.PASS, Outcome.FAIL)
    yield {index: sides[place % 2] for place, index in enumerate(stage.testable)}


def _truth(stage: Stage, at: int, change: Change) -> Truth:
    before, after = (
        (Outcome.FAIL, Outcome.PASS) if change is Change.FIX else (Outcome.PASS, Outcome.FAIL)
    )
    return {index: before if index < at else after for index in stage.testable}


def _with_dice(stage: Stage, truths: Sequence[Truth]) -> list[Rehearsal]:
    """Rehearsals in which chance has a say, where it can make a difference to what is tested."""
    same_each_time = stage.jobs == 1 and not any(stage.costs.fetch)
    if same_each_time or stage.aim.sweep or not truths:
        return []
    stride = max(1, len(truths) // _DRAWN)
    places = truths[::stride]
    return [
        rehearse(stage, places[number % len(places)], random.Random(number))
        for number in range(_DRAWN)
    ]
