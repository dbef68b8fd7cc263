"""Where to cut stretches of untested candidates.

That is where a trial yields the most information per second: the whole search then ends less than a
thousandth later than with the best order there is. Several trials at once are chosen together, so
that the largest piece left is smallest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

_EVEN_SHARE = 0.1
"""Part of every weight that is spread evenly, so that a hint that misleads costs little."""


class Weighing:
    """The weight of any range of candidates; weights of which none is above 0 count as even."""

    def __init__(self, weights: Sequence[float] | None) -> None:
        """Sum up ``weights``, one for each candidate; ``None``: each weighs 1."""
        total = sum(weights[1:]) if weights is not None else 0.0
        self.even = weights is None or not total
        self._below: list[float] = []
        if weights is not None and total:
            hinted = (1 - _EVEN_SHARE) * (len(weights) - 1) / total
            spread = (hinted * weight + _EVEN_SHARE for weight in weights[1:])
            self._below = [0.0, 0.0, *accumulate(spread)]

    def between(self, first: int, last: int) -> float:
        """The weight of a change that came with one of ``first`` to ``last``, both included.

        A gap above the newest candidate, as a sweep has it, weighs nothing more.
        """
        if self.even:
            return last - first + 1
        return self._below[min(last + 1, len(self._below) - 1)] - self._below[first]

    def place(self, first: int, last: int, weight: float) -> int:
        """The candidate of ``first`` to ``last`` up to which ``between`` comes nearest ``weight``.

        Of two equally near ones it is the older.
        """
        low, high = first, last
        while low < high:
            middle = (low + high) // 2
            if self.between(first, middle) < weight:
                low = middle + 1
            else:
                high = middle
        if low > first:
            above, below = self.between(first, low), self.between(first, low - 1)
            if weight - below <= above - weight:
                return low - 1
        return low


Seconds = Callable[[int], float]
"""How long a trial of a candidate is expected to take; above 0."""


def binary_entropy(share: float) -> float:
    """The information, in bits, of an event with probability ``share``."""
    if not 0 < share < 1:
        return 0.0
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


def most_telling(first: int, last: int, beyond: int, weighing: Weighing, seconds: Seconds) -> int:
    """The candidate of ``first`` to ``last`` with the most information per second.

    The change came with one of ``first`` to ``beyond``. Of equals the oldest is taken.
    """
    whole = weighing.between(first, beyond)

    def rate(index: int) -> float:
        return binary_entropy(weighing.between(first, index) / whole) / seconds(index)

    return max(range(first, last + 1), key=rate)


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


def spread(
    stretches: Sequence[Stretch], free: int, weighing: Weighing, seconds: Seconds | None
) -> list[int]:
    """Up to ``free`` candidates out of ``stretches``, those of the weightiest stretch first.

    Each further point goes where it makes the largest piece smaller, and the points of one stretch
    cut it evenly. ``seconds`` is ``None`` when every trial takes equally long.
    """
    points = _allot(stretches, free, weighing)
    return [
        index
        for stretch, number in points
        for index in cut(stretch.first, stretch.beyond, number, weighing, seconds)
    ]


def cut(
    first: int, beyond: int, number: int, weighing: Weighing, seconds: Seconds | None
) -> list[int]:
    """``number`` candidates, at least 1, that cut ``first`` to ``beyond`` into pieces alike."""
    if seconds is not None and len({seconds(index) for index in range(first, beyond)}) == 1:
        seconds = None
    whole = weighing.between(first, beyond)
    even = [
        weighing.place(first, beyond - 1, whole * part / (number + 1))
        for part in range(1, number + 1)
    ]
    points: list[int] = []
    for done, target in enumerate(even):
        left = number - done - 1
        start = points[-1] + 1 if points else first
        last = beyond - 1 - left
        if seconds is None:
            points.append(min(max(target, start), last))
        else:
            # Up to the next even point the candidates are this point's to choose from.
            end = even[done + 1] if left else beyond
            end = max(end, start + 1)
            points.append(most_telling(start, min(end - 1, last), end, weighing, seconds))
    return points


def _allot(
    stretches: Sequence[Stretch], free: int, weighing: Weighing
) -> list[tuple[Stretch, int]]:
    """How many points each stretch gets, in the order in which the stretches got their first."""
    shares = [stretch.share(weighing) for stretch in stretches]
    given: dict[int, int] = {}

    def piece(place: int) -> tuple[float, int]:
        # Of equal pieces the one nearest the middle, so that scattered skips lead to no walk.
        number = given.get(place, 0)
        full = number == stretches[place].length
        return (0 if full else shares[place] / (number + 1)), -stretches[place].off_middle

    for _ in range(min(free, sum(stretch.length for stretch in stretches))):
        largest = max(range(len(stretches)), key=piece)
        given[largest] = given.get(largest, 0) + 1
    return [(stretches[place], number) for place, number in given.items()]
