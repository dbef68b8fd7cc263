"""The plain search, as long as every release was steady: where the change can still be.

The invariant: a bracket's two ends are tested releases that differ, so at least one change lies
between them. A skip removes a candidate from the bracket and never moves its ends. While an end of
the range is still to come, the candidates beside it are worth testing too if a slot is free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from vbisect.search.cuts import Seconds, Stretch, Weighing, spread, untested_stretches
from vbisect.search.ends import Ends, find_ends
from vbisect.search.known import Aim, Find, Outcome, Seen, change_between


@dataclass(frozen=True)
class Bracket:
    """The candidates strictly between ``low`` and ``high`` can tell something.

    ``agreeing`` when both ends are tested and agree, so that only a long stretch is worth it.
    """

    low: int
    high: int
    agreeing: bool = False


def plain_picks(aim: Aim, seen: Seen, seconds: Seconds | None, free: int) -> tuple[int, ...]:
    """Up to ``free`` candidates to begin now: ends first, then what cuts the brackets best."""
    ends = find_ends(aim.count, seen)
    if ends is None:
        return ()
    picks = [*dict.fromkeys(i for i in (ends.low, ends.high) if _is_new(seen, i))][:free]
    left = free - len(picks)
    if left:
        stretches = open_stretches(aim, seen, taken=set(picks))
        picks += spread(stretches, left, Weighing(aim.weights), seconds)
    return tuple(picks)


def plain_pointless(aim: Aim, seen: Seen) -> frozenset[int]:
    """The running candidates outside of every bracket: their outcome is known or not asked for."""
    ends = find_ends(aim.count, seen)
    if ends is None or aim.several:
        return frozenset()
    wanted = {ends.low, ends.high} - seen.outcomes.keys()
    open_now = list(brackets(aim, seen, ends))
    return frozenset(
        index
        for index in seen.running - wanted
        if not any(bracket.low < index < bracket.high for bracket in open_now)
    )


def brackets(aim: Aim, seen: Seen, ends: Ends) -> Iterator[Bracket]:
    """Where a trial can still tell something, between neighbours that have an outcome or are ends.

    One bracket is enough for a plain search: the newest change of the kind looked for.
    """
    if aim.sweep:
        yield Bracket(-1, aim.count)
        return
    neighbours = list(pairwise(sorted({*seen.judged, ends.low, ends.high})))
    sides = [
        (low, high, seen.outcomes.get(low), seen.outcomes.get(high)) for low, high in neighbours
    ]
    if aim.find_all:
        for low, high, before, after in sides:
            yield Bracket(low, high, agreeing=before is after and before is not None)
        return
    for low, high, before, after in reversed(sides):
        change = change_between(before, after) if before and after else None
        if change and aim.find.wants(change):
            yield Bracket(low, high)
            return
    for low, high, before, after in sides:
        if (before is None or after is None) and _may_differ(aim.find, before, after):
            yield Bracket(low, high)


def open_range(aim: Aim, seen: Seen) -> tuple[int, int] | None:
    """The stretch the answer lies in as far as is known: its first and last index.

    The whole range until both ends are known; ``None`` when they agree or nothing is testable.
    """
    ends = find_ends(aim.count, seen)
    if ends is None:
        return None
    if not {ends.low, ends.high} <= seen.outcomes.keys():
        return ends.low, ends.high
    plain = replace(aim, sweep=False, find_all=False)
    return next(((each.low, each.high) for each in brackets(plain, seen, ends)), None)


def open_stretches(aim: Aim, seen: Seen, taken: Collection[int] = ()) -> list[Stretch]:
    """The untested stretches of the brackets that skips have not closed."""
    ends = find_ends(aim.count, seen)
    return [] if ends is None else list(_stretches(aim, seen, ends, {*taken}))


def _stretches(aim: Aim, seen: Seen, ends: Ends, taken: set[int]) -> Iterator[Stretch]:
    taken = taken | seen.outcomes.keys() | seen.running
    for bracket in brackets(aim, seen, ends):
        if not aim.sweep and seen.dear_skips(bracket.low, bracket.high) >= aim.max_skips:
            continue
        shortest = aim.longest_agreeing + 1 if bracket.agreeing else 1
        for stretch in untested_stretches(bracket.low, bracket.high, taken):
            if stretch.length >= shortest:
                yield stretch


def _is_new(seen: Seen, index: int) -> bool:
    return index not in seen.outcomes and index not in seen.running


def _may_differ(find: Find, before: Outcome | None, after: Outcome | None) -> bool:
    """Whether two ends, one of them unknown, may still differ the way that is looked for."""
    if find is Find.AUTO:
        return True
    bad_first = find is Find.FIX
    return before is not (Outcome.PASS if bad_first else Outcome.FAIL) and after is not (
        Outcome.FAIL if bad_first else Outcome.PASS
    )
