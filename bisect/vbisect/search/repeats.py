"""Which releases to boot again where several changes are looked for."""

from __future__ import annotations

from vbisect.search.aim import Aim
from vbisect.search.belief import boots_of
from vbisect.search.boundary import conclude
from vbisect.search.requests import boots_needed
from vbisect.search.seen import Seen
from vbisect.search.sides import Sides
from vbisect.search.windows import confidences

_MOST_BOOTS = 4
"""Boots of one release; what these leave open is told as the confidence of its change."""

_ERROR_SHARE = 0.1
"""Part of the error an answer may have that one release may have: many make up an answer."""


def repeat_picks(aim: Aim, seen: Seen, sides: Sides, free: int) -> tuple[int, ...]:
    """Up to ``free`` releases that more boots would make surer of.

    Those are the ones of which it is in doubt on which side they are, and those beside a change.
    ``seen`` has the outcomes that ``sides`` gave them.
    """
    if free < 1:
        return ()
    boundaries = conclude(seen).boundaries
    needed = boots_needed(aim.confidence)
    wanted: dict[int, None] = {}
    for index, doubt in sorted(sides.doubts.items(), key=lambda known: -known[1]):
        doubtful = doubt > _ERROR_SHARE * (1 - aim.confidence)
        if doubtful and _boots(aim, seen, index) < _MOST_BOOTS and index not in seen.running:
            wanted[index] = None
    for boundary, sure in zip(boundaries, confidences(aim, seen, boundaries), strict=True):
        most = needed if sure >= aim.confidence else max(needed, _MOST_BOOTS)
        for index in (boundary.last_before, boundary.first_after):
            if _boots(aim, seen, index) < most and index not in seen.running:
                wanted[index] = None
    return tuple(wanted)[:free]


def _boots(aim: Aim, seen: Seen, index: int) -> int:
    return max(len(boots_of(aim, seen, index)), len(seen.boots.get(index, ())))
