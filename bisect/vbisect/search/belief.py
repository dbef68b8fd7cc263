"""Where the change may be: a posterior over every place it can have.

A hypothesis is a kind of change with the candidate it came with, or no change at all. Places
between the same two tested releases cannot be told apart by what was seen, so they form one piece,
and the work grows with the number of tested releases, not with that of candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from vbisect.search.cuts import Weighing
from vbisect.search.ends import Ends
from vbisect.search.known import Aim, Change, Counts, Outcome, Seen
from vbisect.search.models import (
    NO_EVIDENCE,
    Evidence,
    Shares,
    evidence_of,
    likely_points,
    log_alone,
    log_both,
    log_sum,
)
from vbisect.search.requests import STEADY_FAILURES, passes_needed

NO_CHANGE = 0.1
"""Prior of a range that is bad throughout, and of one that is good throughout; each."""


@dataclass(frozen=True)
class Piece:
    """The change came with one of ``first`` to ``last``; ``mass`` is the probability of that."""

    change: Change
    first: int
    last: int
    mass: float

    @property
    def last_before(self) -> int:
        return self.first - 1


@dataclass(frozen=True)
class Belief:
    """The pieces, and the probabilities that all candidates are bad and that all are good."""

    pieces: tuple[Piece, ...]
    all_bad: float
    all_good: float
    boots: dict[int, tuple[Counts, ...]]
    ends: Ends

    @cached_property
    def best(self) -> Piece | None:
        """The likeliest piece; ``None`` where the range has no place for a change."""
        return max(self.pieces, key=lambda piece: piece.mass, default=None)

    @property
    def changed(self) -> float:
        """The probability that there is a change."""
        return 1 - self.all_bad - self.all_good

    @cached_property
    def likelier(self) -> Change:
        """The kind of change that is likelier."""
        fix = sum(piece.mass for piece in self.pieces if piece.change is Change.FIX)
        return Change.FIX if 2 * fix >= self.changed else Change.BREAK

    def is_bad(self, index: int) -> bool:
        """Whether a candidate is bad by the likeliest hypothesis."""
        best = self.best
        if best is None or best.mass < max(self.all_bad, self.all_good):
            return self.all_bad > self.all_good
        return (index < best.first) == (best.change is Change.FIX)

    def evidence(self, index: int) -> Evidence:
        """What was seen of a release."""
        return evidence_of(self.boots.get(index, ()))

    def points_without(self, index: int) -> tuple[Shares, Shares]:
        """The likely points of both sides by all other releases, so that none speaks for itself."""
        bad = good = NO_EVIDENCE
        for other in self.boots:
            if other == index:
                continue
            if self.is_bad(other):
                bad = bad.plus(self.evidence(other))
            else:
                good = good.plus(self.evidence(other))
        return likely_points(bad.bad, good.good)


def believe(aim: Aim, seen: Seen, ends: Ends, weighing: Weighing) -> Belief:
    """What is to be thought of every place of the change, given all observations.

    ``weighing`` is the prior; an answer takes an even one.
    """
    boots = {index: boots_of(aim, seen, index) for index in seen.judged}
    evidence = [evidence_of(kept) for kept in boots.values()]
    below = list(accumulate(evidence, Evidence.plus, initial=NO_EVIDENCE))
    above = list(accumulate(reversed(evidence), Evidence.plus, initial=NO_EVIDENCE))[::-1]
    places = [
        (max(first, ends.low) + 1, last, below[cut], above[cut])
        for cut, (first, last) in enumerate(pairwise([ends.low, *boots, ends.high]))
        if last > first
    ]
    logs = [
        math.log(NO_CHANGE) + log_alone(below[-1].bad, None),
        math.log(NO_CHANGE) + log_alone(None, below[-1].good),
    ]
    whole = weighing.between(ends.low + 1, ends.high) if ends.high > ends.low else 1.0
    for first, last, older, newer in places:
        prior = math.log((0.5 - NO_CHANGE) * weighing.between(first, last) / whole)
        logs.append(prior + log_both(older.bad, newer.good))
        logs.append(prior + log_both(newer.bad, older.good))
    sum_of_all = log_sum(logs)
    all_bad, all_good, *masses = (math.exp(value - sum_of_all) for value in logs)
    pieces = [
        Piece(change, first, last, mass)
        for (first, last, _, _), both in zip(
            places, zip(masses[::2], masses[1::2], strict=True), strict=True
        )
        for change, mass in zip((Change.FIX, Change.BREAK), both, strict=True)
    ]
    return Belief(tuple(pieces), all_bad, all_good, boots, ends)


def boots_of(aim: Aim, seen: Seen, index: int) -> tuple[Counts, ...]:
    """The boots of a release with observations; one that was not kept counts as a steady one."""
    if index in seen.boots:
        return tuple(boot for boot in seen.boots[index] if boot.total)
    outcome = seen.outcomes.get(index)
    if outcome is Outcome.PASS:
        return (Counts(passes_needed(aim.confidence), 0),)
    return (Counts(0, STEADY_FAILURES),) if outcome is Outcome.FAIL else ()
