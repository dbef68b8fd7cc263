"""What to begin, what to cancel, and when to stop."""

from __future__ import annotations

from dataclasses import replace

from vbisect.search.aim import Aim
from vbisect.search.belief_picks import belief_picks, belief_pointless
from vbisect.search.ends import outward_picks
from vbisect.search.plain import plain_picks
from vbisect.search.quickest import Seconds
from vbisect.search.repeats import repeat_picks
from vbisect.search.requests import expected_requests
from vbisect.search.seen import Costs, Seen
from vbisect.search.sides import Sides


def next_picks(aim: Aim, seen: Seen, costs: Costs | None = None, free: int = 1) -> tuple[int, ...]:
    """Up to ``free`` different candidates to begin a trial of now, given those running.

    Empty when nothing that is useful can begin now. Nothing running is ever picked; a release with
    an outcome is where an answer rests on it, or where anything was flaky.
    """
    if free < 1:
        return ()
    seconds = _seconds(aim, costs)
    if not aim.several:
        return belief_picks(aim, seen, seconds, free)
    sides = Sides(aim, seen)
    told = replace(seen, outcomes=sides.outcomes)
    picks = plain_picks(aim, told, seconds, free)
    outward = [i for i in outward_picks(aim.count, told) if i not in {*picks, *seen.running}]
    picks += tuple(outward[: free - len(picks)])
    return picks + repeat_picks(aim, told, sides, free - len(picks))


def is_over(aim: Aim, seen: Seen) -> bool:
    """Whether nothing that runs matters and nothing is to begin: time to conclude."""
    return not seen.running - pointless(aim, seen) and not next_picks(aim, seen)


def pointless(aim: Aim, seen: Seen) -> frozenset[int]:
    """Of the running candidates, those whose outcome can no longer matter: to be cancelled."""
    return frozenset() if aim.several else belief_pointless(aim, seen)


def _seconds(aim: Aim, costs: Costs | None) -> Seconds | None:
    """How long a trial is expected to take, or ``None`` when nobody knows."""
    if costs is None:
        return None
    on_top = costs.boot + expected_requests(aim.confidence) * costs.request
    fetch = costs.fetch
    return lambda index: max(fetch[index] + on_top, _INSTANT)


_INSTANT = 1e-3
"""Seconds that a trial takes at least, so that the information per second stays finite."""
