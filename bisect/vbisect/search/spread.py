"""Several trials at once: points chosen together, so that the largest piece left is smallest."""

from __future__ import annotations

from collections.abc import Sequence

from vbisect.search.quickest import Seconds, most_telling
from vbisect.search.stretches import Stretch
from vbisect.search.weighing import Weighing


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
