"""What the running trials will leave open: the hypotheses, grouped by what those will show.

All hypotheses of one cell foretell the same sides for every running candidate. A further trial is
worth what it tells on average within the cells, so that several at once do not tell the same.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from vbisect.search.belief import Belief
from vbisect.search.channel import Channel
from vbisect.search.outcome import Change
from vbisect.search.weighing import Weighing

_NEGLIGIBLE = 1e-6
"""Pieces less likely than this are left out: they cannot change which pick is best."""


@dataclass(frozen=True)
class Part:
    """A part of a piece between two running candidates."""

    change: Change
    first: int
    last: int
    mass: float


class Cells:
    """The hypotheses in groups that what is running cannot tell apart."""

    def __init__(self, belief: Belief, running: Collection[int], weighing: Weighing) -> None:
        """Group the pieces of ``belief`` by what ``running`` will show of them."""
        self._weighing = weighing
        self._running = sorted(running)
        every = len(self._running)
        # A cell is named by which of the running are bad in it: from the one up to the other.
        self._cells: dict[tuple[int, int], list[Part]] = {}
        self._all_bad = {(0, every): belief.all_bad}
        self._all_good = {(0, 0): belief.all_good}
        for piece in belief.pieces:
            if piece.mass >= _NEGLIGIBLE:
                self._add(piece.change, piece.first, piece.last, piece.mass)

    def chance_bad(self, index: int) -> float:
        """The probability that a candidate is bad."""
        return sum(bad for bad, _ in self._sides(index))

    def bits(self, index: int, channel: Channel) -> float:
        """What a boot of ``index`` is expected to tell beyond what is running."""
        return sum(mass * channel.bits(bad / mass) for bad, mass in self._sides(index) if mass > 0)

    def halving(self, first: int, beyond: int) -> int:
        """The candidate of ``first`` up to ``beyond`` that best halves the cell it lies in."""
        last = beyond - 1
        inside = [
            (part.mass, cell, part)
            for cell, parts in self._cells.items()
            for part in parts
            if part.first <= beyond and part.last >= first
        ]
        if not inside:
            return self._weighing.place(first, last, self._weighing.between(first, beyond) / 2)
        _, cell, part = max(inside, key=lambda found: found[0])
        parts = self._cells[cell]
        whole = sum(other.mass for other in parts) + self._no_change(cell)
        # Which side a candidate is on is told by the part before it for one kind of change, and
        # by the part behind it for the other.
        older = sum(p.mass for p in parts if p.change is part.change and p.last < part.first)
        if part.change is Change.FIX:
            older += self._all_good.get(cell, 0.0)
            older += sum(p.mass for p in parts if p.change is Change.BREAK and p.first > part.last)
        else:
            older += self._all_bad.get(cell, 0.0)
            older += sum(p.mass for p in parts if p.change is Change.FIX and p.first > part.last)
        wanted = (whole / 2 - older) / part.mass
        weight = self._weighing.between(part.first, part.last)
        start = max(first, part.first)
        before = self._weighing.between(part.first, start - 1)
        return self._weighing.place(
            start, max(start, min(last, part.last)), wanted * weight - before
        )

    def _no_change(self, cell: tuple[int, int]) -> float:
        return self._all_bad.get(cell, 0.0) + self._all_good.get(cell, 0.0)

    def _add(self, change: Change, first: int, last: int, mass: float) -> None:
        whole = self._weighing.between(first, last)
        edges = [index + 1 for index in self._running if first < index + 1 <= last]
        for start, end in zip([first, *edges], [*(edge - 1 for edge in edges), last], strict=True):
            share = mass * self._weighing.between(start, end) / whole
            older = sum(index < start for index in self._running)
            every = len(self._running)
            bad = (0, older) if change is Change.FIX else (older, every)
            # Where no running candidate is bad the kind of change makes no difference.
            cell = bad if bad[0] < bad[1] else (0, 0)
            self._cells.setdefault(cell, []).append(Part(change, start, end, share))

    def _sides(self, index: int) -> list[tuple[float, float]]:
        """For every cell the mass in which ``index`` is bad, and the whole mass."""
        found = []
        for cell in {*self._cells, *self._all_bad, *self._all_good}:
            bad = self._all_bad.get(cell, 0.0)
            whole = self._no_change(cell)
            for part in self._cells.get(cell, ()):
                whole += part.mass
                bad += part.mass * self._share_bad(part, index)
            found.append((bad, whole))
        return found

    def _share_bad(self, part: Part, index: int) -> float:
        """The share of a part's places that make ``index`` a bad release."""
        if index >= part.last:
            older = 1.0
        elif index < part.first:
            older = 0.0
        else:
            whole = self._weighing.between(part.first, part.last)
            older = self._weighing.between(part.first, index) / whole
        return older if part.change is Change.BREAK else 1 - older
