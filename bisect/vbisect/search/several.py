"""Several changes: which releases are bad, how sure each change is, which to boot again.

A change may be anywhere, so only what a release came to says on which side it is. The releases are
divided where that is likeliest, by how often they failed; then each is held against the two sides
without it. Each change is judged on its own, within the stretch that holds no other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import accumulate

from vbisect.search.belief import believe, boots_of
from vbisect.search.boundary import Boundary, conclude
from vbisect.search.cuts import Weighing
from vbisect.search.ends import Ends
from vbisect.search.known import Aim, Counts, Outcome, Seen, flaky
from vbisect.search.models import NO_EVIDENCE, Evidence, evidence_of, log_alone
from vbisect.search.requests import boots_needed

_CHANGE = 0.1
"""The odds, before anything was seen, of one change more between two tested releases."""

_MOST_BOOTS = 4
"""Boots of one release; what these leave open is told as the confidence of its change."""

_ERROR_SHARE = 0.1
"""Part of the error an answer may have that one release may have, once anything was flaky."""


class Sides:
    """The tested releases, divided into bad and good ones."""

    def __init__(self, aim: Aim, seen: Seen) -> None:
        """Divide the releases that passed or failed; what was skipped stays so."""
        boots = {index: boots_of(aim, seen, index) for index in seen.judged}
        self._evidence = {index: evidence_of(kept) for index, kept in boots.items()}
        self._tested = list(boots)
        self._places = {index: place for place, index in enumerate(boots)}
        totals = {index: reduce(Counts.plus, kept, Counts()) for index, kept in boots.items()}
        order = sorted(totals, key=lambda index: _share(totals[index]))
        of_order = [self._evidence[index] for index in order]
        good = list(accumulate(of_order, Evidence.plus, initial=NO_EVIDENCE))
        bad = list(accumulate(reversed(of_order), Evidence.plus, initial=NO_EVIDENCE))[::-1]
        changes = self._changes(order)
        likely = [
            log_alone(None, older.good) + log_alone(newer.bad, None) + number * math.log(_CHANGE)
            for older, newer, number in zip(good, bad, changes, strict=True)
        ]
        cut = max(range(len(likely)), key=likely.__getitem__)
        self.outcomes = dict(seen.outcomes)
        for place, index in enumerate(order):
            outcome = Outcome.PASS if place < cut else Outcome.FAIL
            own = totals[index]
            if not own.fails or not own.passes:  # whatever the others are like
                outcome = Outcome.FAIL if own.fails else Outcome.PASS
            self.outcomes[index] = outcome

    def without(self, index: int) -> tuple[Evidence, Evidence]:
        """What was seen of the bad and of the good releases, a release itself left out."""
        sums = {Outcome.PASS: NO_EVIDENCE, Outcome.FAIL: NO_EVIDENCE}
        for other, own in self._evidence.items():
            if other != index:
                sums[self.outcomes[other]] = sums[self.outcomes[other]].plus(own)
        return sums[Outcome.FAIL], sums[Outcome.PASS]

    def doubt(self, index: int) -> float:
        """The probability that a tested release is on the other side."""
        own = self._evidence[index]
        bad, good = self.without(index)
        if_bad = log_alone(bad.plus(own).bad, None) - log_alone(bad.bad, None)
        if_good = log_alone(None, good.plus(own).good) - log_alone(None, good.good)
        odds = if_bad - if_good
        against = -odds if self.outcomes[index] is Outcome.FAIL else odds
        against += self._more_changes(index) * math.log(_CHANGE)
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, against))))

    def _changes(self, order: list[int]) -> list[int]:
        """How many changes there are if the first none, one, two … of ``order`` are good."""
        good: set[int] = set()
        numbers = [0]
        for index in order:
            beside = self._beside(index)
            numbers.append(numbers[-1] + len(beside) - 2 * sum(other in good for other in beside))
            good.add(index)
        return numbers

    def _more_changes(self, index: int) -> int:
        """How many changes there would be more with a release on the other side."""
        side = self.outcomes[index]
        return sum(1 if self.outcomes[i] is side else -1 for i in self._beside(index))

    def _beside(self, index: int) -> list[int]:
        place = self._places[index]
        return self._tested[max(place - 1, 0) : place] + self._tested[place + 1 : place + 2]

    @property
    def doubts(self) -> dict[int, float]:
        """The doubt about each tested release."""
        return {index: self.doubt(index) for index in self._evidence}


def _share(seen: Counts) -> float:
    """How often a release failed, drawn to the middle by a trifle: the more was seen, the less."""
    return (seen.fails + 0.01) / (seen.total + 0.02)


def confidences(aim: Aim, seen: Seen, boundaries: Sequence[Boundary]) -> list[float]:
    """The probability of each of ``boundaries``, which are in order, given flaky observations."""
    befores = [boundary.last_before for boundary in boundaries[1:]]
    afters = [boundary.first_after for boundary in boundaries[:-1]]
    windows = zip([0, *afters], [*befores, aim.count - 1], strict=True) if boundaries else ()
    return [
        _within(aim, seen, boundary, low, high)
        for boundary, (low, high) in zip(boundaries, windows, strict=True)
    ]


def _within(aim: Aim, seen: Seen, boundary: Boundary, low: int, high: int) -> float:
    """The probability of ``boundary`` if ``low`` to ``high`` holds one change at most."""
    outcomes = {index: outcome for index, outcome in seen.outcomes.items() if low <= index <= high}
    window = replace(seen, outcomes=outcomes)
    ends = Ends(min(window.judged), max(window.judged))
    belief = believe(aim, window, ends, Weighing(None))
    return sum(
        piece.mass
        for piece in belief.pieces
        if piece.change is boundary.change
        and boundary.last_before < piece.first
        and piece.last <= boundary.first_after
    )


def repeat_picks(aim: Aim, seen: Seen, sides: Sides, free: int) -> tuple[int, ...]:
    """Up to ``free`` releases that more boots would make surer of.

    Those are the ones of which it is in doubt on which side they are, and those beside a change.
    ``seen`` has the outcomes that ``sides`` gave them.
    """
    if free < 1:
        return ()
    wanted: dict[int, int] = {}
    left = sum(sides.doubts.values()) - (1 - aim.confidence)
    shaky = flaky(seen)
    for index, doubt in sorted(sides.doubts.items(), key=lambda known: -known[1]):
        if doubt > _ERROR_SHARE * (1 - aim.confidence) if shaky else left > 0:
            wanted[index] = _MOST_BOOTS
            left -= doubt
    boundaries = conclude(seen).boundaries
    needed = boots_needed(aim.confidence)
    for boundary, sure in zip(boundaries, confidences(aim, seen, boundaries), strict=True):
        most = needed if sure >= aim.confidence else max(needed, _MOST_BOOTS)
        for index in (boundary.last_before, boundary.first_after):
            wanted[index] = max(most, wanted.get(index, 0))
    return tuple(
        index
        for index, most in wanted.items()
        if index not in seen.running
        and max(len(boots_of(aim, seen, index)), len(seen.boots.get(index, ()))) < most
    )[:free]
