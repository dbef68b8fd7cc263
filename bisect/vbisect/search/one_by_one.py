"""One trial at a time, nothing flaky, and every trial equally dear."""

from __future__ import annotations

from collections.abc import Mapping

from vbisect.search.aim import Aim
from vbisect.search.boundary import Ends, testable_ends
from vbisect.search.outcome import Find, Outcome
from vbisect.search.plain import brackets, plain_picks
from vbisect.search.seen import Seen
from vbisect.search.stretches import untested_stretches


def next_pick(
    count: int,
    outcomes: Mapping[int, Outcome],
    *,
    find: Find = Find.AUTO,
    sweep: bool = False,
) -> int | None:
    """The candidate to test next out of ``range(count)``, or ``None`` when the search is over.

    Both ends come first, then the middle of the longest untested stretch between the tested
    neighbours of the change. Ends that differ the other way round than ``find`` asks end the
    search. ``sweep`` keeps going until every candidate has been tested. Skips never end it.
    """
    aim = Aim(count, find, sweep, max_skips=count + 1)
    return next(iter(plain_picks(aim, Seen(outcomes), None, 1)), None)


def likely_next(
    count: int,
    outcomes: Mapping[int, Outcome],
    pick: int,
    *,
    find: Find = Find.AUTO,
    sweep: bool = False,
    depth: int = 1,
) -> tuple[int, ...]:
    """What may be picked within ``depth`` trials after ``pick``, the soonest and likeliest first.

    Before both ends are known a pass and a fail are equally telling, and the other end comes next
    either way; what follows a skip of ``pick`` itself is listed last.
    """
    seen: dict[int, None] = {}
    after_skips: dict[int, None] = {}
    level = [({**outcomes}, pick)]
    for ahead in range(depth):
        following = []
        for known, tested in level:
            for outcome in (Outcome.PASS, Outcome.FAIL, Outcome.SKIP):
                then = {**known, tested: outcome}
                chosen = next_pick(count, then, find=find, sweep=sweep)
                if chosen is None:
                    continue
                if outcome is not Outcome.SKIP:
                    seen.setdefault(chosen)
                    following.append((then, chosen))
                elif ahead == 0:
                    after_skips.setdefault(chosen)
        level = following
    return tuple(seen | after_skips)


def expected_trials(count: int, outcomes: Mapping[int, Outcome], *, sweep: bool = False) -> int:
    """How many more trials the search needs if nothing more is skipped (an upper bound)."""
    ends = testable_ends(count, outcomes)
    if ends is None:
        return 0
    if sweep:
        return sum(index not in outcomes for index in range(count))
    untested_ends = len({ends.low, ends.high} - set(outcomes))
    bracket = (ends.low, ends.high) if untested_ends else _bracket(count, outcomes, ends)
    return untested_ends + (_worst_case(*bracket, outcomes) if bracket else 0)


def remaining_range(count: int, outcomes: Mapping[int, Outcome]) -> tuple[int, int] | None:
    """The stretch the answer lies in as far as is known: its first and last index.

    The whole range until both ends are known; ``None`` when they agree or nothing is testable.
    """
    ends = testable_ends(count, outcomes)
    if ends is None:
        return None
    if ends.low in outcomes and ends.high in outcomes:
        return _bracket(count, outcomes, ends)
    return ends.low, ends.high


def _bracket(count: int, outcomes: Mapping[int, Outcome], ends: Ends) -> tuple[int, int] | None:
    """The tested neighbours around the newest change, or ``None`` when there is none."""
    open_now = brackets(Aim(count), Seen(outcomes), ends)
    return next(((bracket.low, bracket.high) for bracket in open_now), None)


def _worst_case(low: int, high: int, outcomes: Mapping[int, Outcome]) -> int:
    """How many picks it takes at most until nothing untested is left between the two."""
    stretches = untested_stretches(low, high, outcomes.keys())
    if not stretches:
        return 0
    longest = max(stretches, key=lambda stretch: (stretch.length, -stretch.off_middle))
    pick = (longest.first + longest.beyond - 1) // 2
    return 1 + max(_worst_case(low, pick, outcomes), _worst_case(pick, high, outcomes))
