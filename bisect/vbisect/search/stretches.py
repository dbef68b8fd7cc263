"""Stretches of untested candidates: where a further trial can tell anything."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from vbisect.search.weighing import Weighing


@dataclass(frozen=True)
class Stretch:
    """Untested candidates from ``first`` up to, not including, ``beyond``.

    ``middle`` is twice the middle of the bracket the stretch lies in.
    """

    first: int
    beyond: int
    middle: int

    @property
    def length(self) -> int:
        return self.beyond - self.first

    @property
    def off_middle(self) -> int:
        """Twice the distance of its middle from that of the bracket."""
        return abs(self.first + self.beyond - 1 - self.middle)

    def share(self, weighing: Weighing) -> float:
        """The weight of a change in one of the gaps around its candidates."""
        return weighing.between(self.first, self.beyond)


def untested_stretches(low: int, high: int, taken: Collection[int]) -> list[Stretch]:
    """The runs of indices strictly between ``low`` and ``high`` that are not in ``taken``."""
    stretches = []
    first = low + 1
    for index in [*sorted(i for i in taken if low < i < high), high]:
        if first < index:
            stretches.append(Stretch(first, index, low + high))
        first = index + 1
    return stretches
