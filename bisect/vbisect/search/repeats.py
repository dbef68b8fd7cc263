"""Which releases to boot again where several changes are looked for and anything was flaky."""

from __future__ import annotations

from vbisect.search.aim import Aim
from vbisect.search.belief import boots_of
from vbisect.search.belief_picks import BOOTS_TO_ANSWER
from vbisect.search.boundary import conclude
from vbisect.search.seen import Seen

_MOST_BOOTS = 4
"""Boots of one release; a boundary may move when its releases are booted again."""


def repeat_picks(aim: Aim, seen: Seen, free: int) -> tuple[int, ...]:
    """Up to ``free`` releases beside a change that were booted too seldom for an answer."""
    if free < 1:
        return ()
    beside: dict[int, None] = {}
    for boundary in conclude(aim.count, seen.outcomes).boundaries:
        beside |= dict.fromkeys((boundary.last_before, boundary.first_after))
    wanted = [
        index
        for index in beside
        if index not in seen.running
        and len(boots_of(aim, seen, index)) < BOOTS_TO_ANSWER
        and len(seen.boots.get(index, ())) < _MOST_BOOTS
    ]
    return tuple(wanted[:free])
