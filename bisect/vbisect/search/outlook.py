"""What one more boot of a release can be expected to tell of the place of the change."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import accumulate

from vbisect.search.belief import Belief, Piece
from vbisect.search.cuts import Weighing, binary_entropy
from vbisect.search.known import Change, Counts
from vbisect.search.models import (
    NO_EVIDENCE,
    Evidence,
    Shares,
    evidence_of,
    likely_points,
    log_mixed,
)

Chances = Sequence[tuple[float, float]]
"""Of each way a boot can come out its chance in a bad release and in a good one."""

_MIXED_REQUESTS = 16
"""Requests that a boot is taken to be worth where boots were seen both passing and failing."""


class Outlook:
    """What boots will tell, given a belief, and that what is ``running`` will tell its part.

    Each of the running divides the places of the change; a further boot tells within one part. The
    places are those of the likelier kind of change, with no change at either end of them.
    """

    def __init__(
        self, belief: Belief, running: Collection[int], weighing: Weighing, requests: int | None
    ) -> None:
        """``requests`` are those of a boot; ``None`` where boots were seen mixed."""
        self._belief, self._weighing = belief, weighing
        self._requests = requests or _MIXED_REQUESTS
        self._fix = belief.likelier is Change.FIX
        pieces = [piece for piece in belief.pieces if piece.change is belief.likelier]
        self._pieces: list[Piece] = sorted(pieces, key=lambda piece: piece.first)
        self._oldest = belief.all_good if self._fix else belief.all_bad
        self._newest = belief.all_bad if self._fix else belief.all_good
        self._whole = self._oldest + sum(p.mass for p in self._pieces) + self._newest
        self._running = sorted(running)
        self._known = list(belief.boots)
        older = accumulate(map(belief.evidence, self._known), Evidence.plus, initial=NO_EVIDENCE)
        newer = accumulate(
            map(belief.evidence, reversed(self._known)), Evidence.plus, initial=NO_EVIDENCE
        )
        self._older, self._newer = list(older), list(newer)[::-1]
        self._untested: dict[int, Chances] = {}

    def bits(self, index: int) -> float:
        """What a boot of ``index`` is expected to tell beyond what is running."""
        low, high = self._part(index)
        mass = high - low
        if mass <= 0:
            return 0.0
        # older places of the change: the release is after it
        older = (self._upto(index) - low) / mass
        bad = 1 - older if self._fix else older
        return mass / self._whole * _information(bad, self._chances(index))

    def share_bad(self, index: int) -> float:
        """The probability that a candidate is bad."""
        older = self._upto(index) / self._whole
        return 1 - older if self._fix else older

    def dividing(self, first: int, beyond: int, ways: int) -> int:
        """The candidate of ``first`` up to ``beyond`` that best takes a ``ways``-th of its part."""
        inside = [p for p in self._pieces if p.first <= beyond and p.last >= first]
        low, high = self._part(first)
        wanted = low + (high - low) / ways
        for piece in inside:
            before = self._upto(piece.first - 1)
            if wanted <= before + piece.mass or piece is inside[-1]:
                share = min(max((wanted - before) / piece.mass, 0.0), 1.0) if piece.mass else 0.5
                weight = self._weighing.between(piece.first, piece.last) * share
                place = self._weighing.place(piece.first, piece.last, weight)
                return min(max(place, first), beyond - 1)
        return (first + beyond - 1) // 2

    def _part(self, index: int) -> tuple[float, float]:
        """The mass of the older places up to where the part of ``index`` begins, and ends."""
        low = max((i for i in self._running if i < index), default=None)
        high = min((i for i in self._running if i > index), default=None)
        return (
            0.0 if low is None else self._upto(low),
            self._whole if high is None else self._upto(high),
        )

    def _upto(self, index: int) -> float:
        """The mass of a change that came with ``index`` or an older candidate."""
        total = self._oldest
        for piece in self._pieces:
            if piece.last <= index:
                total += piece.mass
            elif piece.first <= index:
                part = self._weighing.between(piece.first, index)
                total += piece.mass * part / self._weighing.between(piece.first, piece.last)
        return total

    def _chances(self, index: int) -> Chances:
        """The ways a boot of ``index`` can come out.

        If it is bad, so is every release on the bad side of it, whatever those have shown.
        """
        cut = bisect_left(self._known, index)
        own = self._belief.boots.get(index, ())
        if not own and cut in self._untested:
            return self._untested[cut]
        sides = self._older[cut], self._newer[cut + bool(own)]
        in_bad, in_good = sides if self._fix else sides[::-1]
        points = likely_points(in_bad.bad, in_good.good)
        bad, good = (_ways(each, own, self._requests, side) for side, each in enumerate(points))
        chances = list(zip(bad, good, strict=True))
        if not own:
            self._untested[cut] = chances
        return chances


def _ways(points: Shares, own: tuple[Counts, ...], requests: int, side: int) -> Sequence[float]:
    """The chances of the numbers of failures in one more boot, on the bad (0) or good (1) side."""
    before = log_mixed(points, evidence_of(own)[side])
    chances = [
        math.exp(
            log_mixed(points, evidence_of((*own, Counts(requests - fails, fails)))[side])
            - before
            + ways
        )
        for fails, ways in _looked_at(requests)
    ]
    whole = sum(chances)
    return [chance / whole for chance in chances]


@lru_cache
def _looked_at(requests: int) -> Sequence[tuple[int, float]]:
    """A few numbers of failures, each with the log of the ways to have about so many."""
    few = range(min(requests, 2) + 1)
    some = sorted({*few, requests // 4, requests // 2, requests * 3 // 4, requests})
    edges = [*some, requests + 1]
    return [
        (fails, math.log(math.comb(requests, fails)) + math.log(beyond - fails))
        for fails, beyond in zip(some, edges[1:], strict=True)
    ]


def _information(bad: float, chances: Chances) -> float:
    """The bits that a boot tells of a release that is bad with probability ``bad``."""
    told = binary_entropy(bad)
    for in_bad, in_good in chances:
        either = bad * in_bad + (1 - bad) * in_good
        if either > 0:
            told -= either * binary_entropy(bad * in_bad / either)
    return max(0.0, told)
