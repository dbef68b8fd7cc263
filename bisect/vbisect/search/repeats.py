"""Which releases to boot again where several changes are looked for and anything was flaky."""

from __future__ import annotations

from vbisect.search.aim import Aim
from vbisect.search.belief import boots_of
from vbisect.search.belief_picks import BOOTS_TO_ANSWER
from vbisect.search.boundary import conclude
from vbisect.search.seen import Seen
from vbisect.search.windows import confidences

_MOST_BOOTS = 4
"""Boots of one release; what these leave open is told as the confidence of its change."""


def repeat_picks(aim: Aim, seen: Seen, free: int) -> tuple[int, ...]:
    """Up to ``free`` releases beside a change that more boots would make surer of."""
    if free < 1:
        return ()
    boundaries = conclude(aim.count, seen.outcomes).boundaries
    wanted: dict[int, None] = {}
    for boundary, sure in zip(boundaries, confidences(aim, seen, boundaries), strict=True):
        most = BOOTS_TO_ANSWER if sure >= aim.confidence else _MOST_BOOTS
        for index in (boundary.last_before, boundary.first_after):
            tried = max(len(boots_of(aim, seen, index)), len(seen.boots.get(index, ())))
            if tried < most and index not in seen.running:
                wanted[index] = None
    return tuple(wanted)[:free]
