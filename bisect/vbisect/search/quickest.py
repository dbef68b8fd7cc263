"""Where to cut one stretch when the trials of its candidates do not take equally long.

A short stretch is cut where the whole rest of the search is expected to end soonest, a long one
where a trial yields the most information per second, which comes close to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from vbisect.search.weighing import Weighing

EXACT_UP_TO = 40
"""Candidates; the effort of the exact way grows with the third power, and 40 take about 5 ms."""

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


def soonest_over(first: int, beyond: int, weighing: Weighing, seconds: Seconds) -> int:
    """The candidate to try first so that the expected time to the end is shortest.

    An interval programme: ``rest[i][j]`` is the time still expected, times the weight, when the
    change came with one of candidate ``i`` to candidate ``j``.
    """
    size = beyond - first
    time = [seconds(first + i) for i in range(size)]
    rest = [[0.0] * (size + 1) for _ in range(size + 1)]
    below = [0.0, *(weighing.between(first, first + i) for i in range(size + 1))]
    best = 0
    # After a cut the older part is a row's beginning and the newer one a column's end.
    columns = [[0.0] * (size + 1) for _ in range(size + 1)]
    for width in range(1, size + 1):
        for i in range(size + 1 - width):
            j = i + width
            weight = below[j + 1] - below[i]
            ways = [
                weight * cost + older + newer
                for cost, older, newer in zip(
                    time[i:j], rest[i][i:j], columns[j][i + 1 : j + 1], strict=True
                )
            ]
            least = min(ways)
            rest[i][j] = columns[j][i] = least
            if width == size:
                best = ways.index(least)
    return first + best
