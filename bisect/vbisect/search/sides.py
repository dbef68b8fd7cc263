"""Which releases are bad where several changes are looked for and anything was flaky.

A change may be anywhere, so only what a release came to says on which side it is. The releases are
divided where that is likeliest, by how often they failed; then each is held against the two sides
without it.
"""

from __future__ import annotations

import math
from functools import reduce
from itertools import accumulate

from vbisect.search.aim import Aim
from vbisect.search.belief import boots_of
from vbisect.search.models import NO_EVIDENCE, Evidence, evidence_of, log_alone
from vbisect.search.outcome import Outcome
from vbisect.search.seen import Counts, Seen

_CHANGE = 0.1
"""The odds, before anything was seen, of one change more between two tested releases."""


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
