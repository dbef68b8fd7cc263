"""What to test next once anything was flaky, and when enough is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vbisect.search.aim import Aim
from vbisect.search.belief import Belief, Piece, believe, boots_of
from vbisect.search.boundary import testable_ends
from vbisect.search.cells import Cells
from vbisect.search.channel import Channels
from vbisect.search.outcome import Outcome
from vbisect.search.quickest import Seconds
from vbisect.search.seen import Seen
from vbisect.search.stretches import untested_stretches
from vbisect.search.weighing import Weighing

BOOTS_TO_ANSWER = 2
"""Boots of both releases at the boundary before an answer: one boot can be odd as a whole."""

_FEWEST_BITS = 0.002
"""A boot that tells less is not worth its time; when all do, the search ends unsure."""

_BEYOND_DOUBT = 0.02
"""Part of the error an answer may have, below which a running trial can no longer matter."""


def most_boots(count: int) -> int:
    """Boots after which a search gives up; several times what a search of steady releases takes."""
    return math.ceil(4 * math.log2(max(count, 2))) + 16


@dataclass(frozen=True)
class Standing:
    """How the search stands: ``settled`` when no further boot is needed or useful.

    ``to_confirm`` are the releases whose further boots the answer waits for.
    """

    settled: bool
    to_confirm: tuple[int, ...] = ()


def standing(aim: Aim, seen: Seen, belief: Belief) -> Standing:
    """Whether the belief carries an answer: a boundary nothing untested is left in, or none.

    There is none before both ends were tested.
    """
    best = belief.best
    if not {belief.ends.low, belief.ends.high} <= seen.outcomes.keys():
        return Standing(False)
    if belief.ends.low == belief.ends.high:
        return Standing(True)
    if best is not None and best.mass >= aim.confidence:
        sides = [belief.ends.low, belief.ends.high]
        if aim.find.wants(best.change):
            if not is_closed(aim, seen, best):
                return Standing(False)
            sides = [best.last_before, best.last]
        return _confirmed(aim, seen, sides)
    wanted = sum(piece.mass for piece in belief.pieces if aim.find.wants(piece.change))
    if wanted <= 1 - aim.confidence:
        return _confirmed(aim, seen, [belief.ends.low, belief.ends.high])
    return Standing(False)


def is_closed(aim: Aim, seen: Seen, piece: Piece) -> bool:
    """Whether nothing that can be tested is left between the tested neighbours of a change."""
    neighbours = (piece.last_before, piece.last)
    if any(seen.outcomes.get(index, Outcome.SKIP) is Outcome.SKIP for index in neighbours):
        return False
    if seen.dear_skips(*neighbours) >= aim.max_skips:
        return True
    return not untested_stretches(*neighbours, seen.outcomes.keys())


def _confirmed(aim: Aim, seen: Seen, sides: list[int]) -> Standing:
    again = tuple(i for i in sides if len(boots_of(aim, seen, i)) < BOOTS_TO_ANSWER)
    return Standing(not again, again)


def belief_picks(aim: Aim, seen: Seen, seconds: Seconds | None, free: int) -> tuple[int, ...]:
    """Up to ``free`` candidates to boot now, tested ones among them, each after the last."""
    ends = testable_ends(aim.count, seen.outcomes)
    if ends is None:
        return ()
    new = [i for i in (ends.low, ends.high) if i not in seen.outcomes and i not in seen.running]
    picks = [*dict.fromkeys(new)][:free]
    belief = believe(aim, seen, ends, Weighing(None))
    now = standing(aim, seen, belief)
    left = min(free - len(picks), _boots_left(aim, seen, now))
    if now.settled or left <= 0:
        return tuple(picks)
    if now.to_confirm:
        again = [i for i in now.to_confirm if i not in seen.running and _may_boot(seen, i)]
        return (*picks, *again[:left])
    weighing = Weighing(aim.weights)
    steering = believe(aim, seen, ends, weighing) if aim.weights else belief
    chooser = _Chooser(aim, seen, steering, weighing, seconds)
    return (*picks, *chooser.choose(left, seen.running | set(picks)))


def belief_pointless(aim: Aim, seen: Seen) -> frozenset[int]:
    """The running candidates of which it is beyond doubt which side they are on."""
    ends = testable_ends(aim.count, seen.outcomes)
    if ends is None:
        return frozenset()
    belief = believe(aim, seen, ends, Weighing(None))
    now = standing(aim, seen, belief)
    if now.settled:
        return seen.running
    doubt = _BEYOND_DOUBT * (1 - aim.confidence)
    needed = {*now.to_confirm, *({ends.low, ends.high} - seen.outcomes.keys())}
    cells = Cells(belief, (), Weighing(None))
    return frozenset(
        index for index in seen.running - needed if not doubt < cells.chance_bad(index) < 1 - doubt
    )


def _boots_left(aim: Aim, seen: Seen, now: Standing) -> int:
    spent = len(seen.running) + sum(len(seen.boots.get(index, (None,))) for index in seen.judged)
    # Confirming must not fail for want of one boot.
    return most_boots(aim.count) + (4 if now.to_confirm else 0) - spent


def _may_boot(seen: Seen, index: int) -> bool:
    """Whether a release has not come to a skip again and again since it was first judged."""
    return sum(not boot.total for boot in seen.boots.get(index, ())) < 2


@dataclass
class _Chooser:
    """Picks one candidate after the other, each with the most information per second."""

    aim: Aim
    seen: Seen
    belief: Belief
    weighing: Weighing
    seconds: Seconds | None

    def choose(self, number: int, running: frozenset[int] | set[int]) -> list[int]:
        picks: list[int] = []
        channels = Channels(self.belief)
        for _ in range(number):
            taken = {*running, *picks}
            cells = Cells(self.belief, taken, self.weighing)
            best, most = None, 0.0
            for index in self._candidates(cells, taken):
                bits = cells.bits(index, channels.of(index))
                rate = bits / (self.seconds(index) if self.seconds else 1.0)
                if bits >= _FEWEST_BITS and rate > most:
                    best, most = index, rate
            if best is None:
                break
            picks.append(best)
        return picks

    def _candidates(self, cells: Cells, taken: set[int]) -> Iterator[int]:
        """Every tested release, and of each untested stretch the points worth a look."""
        for index in self.seen.judged:
            if index not in taken and _may_boot(self.seen, index):
                yield index
        taken = taken | self.seen.outcomes.keys()
        places = {(piece.last_before, piece.last) for piece in self.belief.pieces}
        for low, high in sorted(places):
            if self.seen.dear_skips(low, high) >= self.aim.max_skips:
                continue
            stretches = untested_stretches(low, high, taken)
            longest = max(
                stretches, key=lambda s: (s.share(self.weighing), -s.off_middle), default=None
            )
            if longest is not None:
                yield from self._points(cells, longest.first, longest.beyond)

    def _points(self, cells: Cells, first: int, beyond: int) -> Iterator[int]:
        """The point that halves what is open, and the nearest cheaper one on either side."""
        point = cells.halving(first, beyond)
        yield point
        if self.seconds is None:
            return
        dear = self.seconds(point)
        for side in (range(point - 1, first - 1, -1), range(point + 1, beyond)):
            cheaper = next((i for i in side if self.seconds(i) < 0.9 * dear), None)
            if cheaper is not None:
                yield cheaper
