"""How sure each of several changes is: each on its own, within the stretch that holds no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vbisect.search.aim import Aim
from vbisect.search.belief import believe
from vbisect.search.boundary import Boundary
from vbisect.search.ends import Ends
from vbisect.search.seen import Seen
from vbisect.search.weighing import Weighing


def confidences(aim: Aim, seen: Seen, boundaries: Sequence[Boundary]) -> list[float]:
    """The probability of each of ``boundaries``, which are in order, given flaky observations."""
    befores = [boundary.last_before for boundary in boundaries[1:]]
    afters = [boundary.first_after for boundary in boundaries[:-1]]
    windows = zip([0, *afters], [*befores, aim.count - 1], strict=True) if boundaries else ()
    return [
        _within(aim, seen, boundary, low, high)
        for boundary, (low, high) in zip(boundaries, windows, strict=True)
    ]


def _within(aim: Aim, seen: Seen, boundary: Boundary, low: int, high: int) -> float:
    """The probability of ``boundary`` if ``low`` to ``high`` holds one change at most."""
    outcomes = {index: outcome for index, outcome in seen.outcomes.items() if low <= index <= high}
    window = replace(seen, outcomes=outcomes)
    ends = Ends(min(window.judged), max(window.judged))
    belief = believe(aim, window, ends, Weighing(None))
    return sum(
        piece.mass
        for piece in belief.pieces
        if piece.change is boundary.change
        and boundary.last_before < piece.first
        and piece.last <= boundary.first_after
    )
