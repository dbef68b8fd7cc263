"""The ends of the range, where the outermost candidates cannot be tested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vbisect.search.known import Outcome, Seen

MOST_TRIES = 3
"""Boots of a release that came to skips whose reasons can pass."""

_MOST_IN_VAIN = 20
"""Skips after which nobody looks on for a first release that can be tested."""


Place = Callable[[int], int]
"""How far inward from its end an index is, and which index is so far inward."""


@dataclass(frozen=True)
class Ends:
    """The outermost candidates that were judged, or are to be tested next to find those."""

    low: int
    high: int


def find_ends(count: int, seen: Seen) -> Ends | None:
    """The ends of ``count`` candidates; ``None`` where none can be tested.

    Skips at an end are galloped over: 1, 2, 4, 8 … candidates on, until one can be judged.
    """
    low, high = (_end(count, seen, at) for at in _sides(count))
    if low is None or high is None:
        return None
    return Ends(min(low, count - 1 - high), max(low, count - 1 - high))


def outward_picks(count: int, seen: Seen) -> Iterator[int]:
    """What is left to try between the ends and the skips beyond them: the middle of each gap.

    Where there is no gap, the skip beside the end, if its reason can pass.
    """
    for at in _sides(count):
        end = _end(count, seen, at)
        if not end or at(end) not in seen.outcomes:
            continue
        skipped = max(p for p in map(at, seen.outcomes) if p < end)
        if end - skipped > 1:
            yield at((skipped + end) // 2)
        elif at(skipped) in seen.passing_skips and seen.tries(at(skipped)) < MOST_TRIES:
            yield at(skipped)


def _sides(count: int) -> tuple[Place, Place]:
    return (lambda place: place), (lambda place: count - 1 - place)


def _end(count: int, seen: Seen, at: Place) -> int | None:
    """How far inward one end is."""
    places: dict[int, Outcome] = {at(i): outcome for i, outcome in seen.outcomes.items()}
    inside = [place for place, outcome in places.items() if outcome is not Outcome.SKIP]
    judged = min(inside) if inside else None
    limit = count if judged is None else judged
    # while nothing was judged, skips from both ends may meet: each counts for the nearer one
    mine = count // 2 if judged is None and count - 1 in places else limit
    dear = sum(p < mine and at(p) not in seen.cheap_skips for p in places)
    place = min((1 << dear) - 1, limit)
    while place < limit and place in places:
        place += 1
    if place < limit:
        return place
    if judged is not None or dear >= _MOST_IN_VAIN:
        return judged
    return next((p for p in reversed(range(limit)) if p not in places), None)
