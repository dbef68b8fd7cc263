"""How likely a change came with each candidate, summed up once so that any range is quick."""

from __future__ import annotations

from collections.abc import Sequence
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
        """The weight of a change that came with one of ``first`` to ``last``, both included."""
        if self.even:
            return last - first + 1
        return self._below[last + 1] - self._below[first]

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
