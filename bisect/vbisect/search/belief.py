"""Where the change may be once anything was flaky: a posterior over every place it can have.

A hypothesis is a kind of change with the candidate it came with, or no change at all. Places
between the same two tested releases cannot be told apart by what was seen, so they form one piece,
and the work grows with the number of tested releases, not with that of candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise

from vbisect.search.aim import Aim
from vbisect.search.boundary import Ends
from vbisect.search.confidence import STEADY_FAILURES, Counts
from vbisect.search.models import NO_EVIDENCE, Evidence, evidence_of, log_bad, log_good, shares
from vbisect.search.outcome import Change, Outcome
from vbisect.search.requests import passes_needed
from vbisect.search.seen import Seen
from vbisect.search.weighing import Weighing

NO_CHANGE = 0.05
"""Prior of a range that is bad throughout, and of one that is good throughout; each."""


@dataclass(frozen=True)
class Piece:
    """The change came with one of ``first`` to ``last``; ``mass`` is the probability of that."""

    change: Change
    first: int
    last: int
    mass: float
    bad: Evidence
    good: Evidence

    @property
    def last_before(self) -> int:
        return self.first - 1


@dataclass(frozen=True)
class Belief:
    """The pieces, and the probabilities that all candidates are bad and that all are good."""

    pieces: tuple[Piece, ...]
    all_bad: float
    all_good: float
    evidence: dict[int, Evidence]
    ends: Ends

    @property
    def best(self) -> Piece | None:
        """The likeliest piece; ``None`` where the range has no place for a change."""
        return max(self.pieces, key=lambda piece: piece.mass, default=None)

    @property
    def changed(self) -> float:
        """The probability that there is a change."""
        return 1 - self.all_bad - self.all_good

    def is_bad(self, index: int) -> bool:
        """Whether a candidate is bad by the likeliest hypothesis."""
        best = self._likeliest
        if best is None:
            return self.all_bad > self.all_good
        return (index < best.first) == (best.change is Change.FIX)

    @property
    def _likeliest(self) -> Piece | None:
        """The likeliest hypothesis; ``None`` where that is that nothing changes."""
        best = self.best
        none = max(self.all_bad, self.all_good)
        return best if best is not None and best.mass >= none else None

    @property
    def sides(self) -> tuple[Evidence, Evidence]:
        """What was seen on the bad side and on the good side of the likeliest hypothesis."""
        best = self._likeliest
        if best is not None:
            return best.bad, best.good
        whole = Evidence()
        for seen in self.evidence.values():
            whole = whole.plus(seen)
        return (whole, Evidence()) if self.all_bad > self.all_good else (Evidence(), whole)

    def sides_without(self, index: int) -> tuple[Evidence, Evidence]:
        """The sides without a release, so that it does not speak for itself."""
        bad, good = self.sides
        own = self.evidence.get(index, NO_EVIDENCE)
        return (bad.minus(own), good) if self.is_bad(index) else (bad, good.minus(own))


def believe(aim: Aim, seen: Seen, ends: Ends, weighing: Weighing) -> Belief:
    """What is to be thought of every place of the change, given all observations.

    ``weighing`` is the prior; an answer takes an even one.
    """
    evidence = {index: _evidence(aim, seen, index) for index in seen.judged}
    tested = list(evidence)
    below = list(accumulate(evidence.values(), Evidence.plus, initial=Evidence()))
    above = [below[-1].minus(sums) for sums in below]
    places = [
        (max(first, ends.low) + 1, last, below[cut], above[cut])
        for cut, (first, last) in enumerate(pairwise([ends.low, *tested, ends.high]))
        if last > first
    ]
    everything = below[-1]
    logs = [math.log(NO_CHANGE) + log_bad(everything), math.log(NO_CHANGE) + log_good(everything)]
    whole = weighing.between(ends.low + 1, ends.high) if ends.high > ends.low else 1.0
    a_change = 0.5 - NO_CHANGE
    for first, last, older, newer in places:
        prior = math.log(a_change * weighing.between(first, last) / whole)
        logs.append(prior + log_bad(older) + log_good(newer))
        logs.append(prior + log_good(older) + log_bad(newer))
    all_bad, all_good, *masses = shares(logs)
    pieces = []
    for (first, last, older, newer), fix, broke in zip(
        places, masses[::2], masses[1::2], strict=True
    ):
        pieces.append(Piece(Change.FIX, first, last, fix, older, newer))
        pieces.append(Piece(Change.BREAK, first, last, broke, newer, older))
    return Belief(tuple(pieces), all_bad, all_good, evidence, ends)


def boots_of(aim: Aim, seen: Seen, index: int) -> tuple[Counts, ...]:
    """The boots of a release with observations; one that was not kept counts as a steady one."""
    if index in seen.boots:
        return tuple(boot for boot in seen.boots[index] if boot.total)
    outcome = seen.outcomes.get(index)
    if outcome is Outcome.PASS:
        return (Counts(passes_needed(aim.confidence), 0),)
    return (Counts(0, STEADY_FAILURES),) if outcome is Outcome.FAIL else ()


def _evidence(aim: Aim, seen: Seen, index: int) -> Evidence:
    return evidence_of(boots_of(aim, seen, index))
