"""Find where the outcome changes along an ordered list of candidates.

The invariant: ``low`` and ``high`` are tested candidates with different outcomes, so at least
one change lies between them. Each pick halves the longest untested stretch between the two; a
skip removes a candidate from that stretch and never moves ``low`` or ``high``. The search ends
when nothing untested is left between them, so an exact answer always names two tested neighbours.

Skips cluster, which is why the longest untested stretch is halved, not the walk from the last
skip continued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from vbisect.search.outcome import Change, Outcome


class Find(StrEnum):
    """Which change is looked for; ``auto`` lets the two ends decide."""

    AUTO = "auto"
    FIX = "fix"
    BREAK = "break"

    def wants(self, change: Change) -> bool:
        """Whether ``change`` is of the kind looked for."""
        return self is Find.AUTO or self.value == change.value


class Verdict(StrEnum):
    """How a search stands when nothing is left to test."""

    FOUND = "found"
    NO_CHANGE = "no_change"
    OTHER_CHANGE = "other_change"  # a change, but not of the kind that was asked for
    TOO_FEW = "too_few"  # fewer than two candidates could be tested


@dataclass(frozen=True)
class Ends:
    """The outermost candidates that are not skips; ``None`` where every candidate is one."""

    low: int
    high: int


@dataclass(frozen=True)
class Boundary:
    """A change between two tested candidates; ``suspects`` are the indices it could be in.

    The change is in one of ``suspects``: the skipped candidates after ``last_before`` and
    ``first_after`` itself. ``exact`` when that is ``first_after`` alone.
    """

    change: Change
    last_before: int
    first_after: int

    @property
    def suspects(self) -> tuple[int, ...]:
        return tuple(range(self.last_before + 1, self.first_after + 1))

    @property
    def exact(self) -> bool:
        return self.first_after == self.last_before + 1


@dataclass(frozen=True)
class Conclusion:
    """What the outcomes seen say: the verdict, and every boundary between tested candidates."""

    verdict: Verdict
    boundaries: tuple[Boundary, ...]
    ends: Ends | None


def testable_ends(count: int, outcomes: Mapping[int, Outcome]) -> Ends | None:
    """The ends of the range after moving inward past skips; untested candidates count as ends."""
    kept = [index for index in range(count) if outcomes.get(index) is not Outcome.SKIP]
    return Ends(kept[0], kept[-1]) if kept else None


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
    search. ``sweep`` keeps going until every candidate has been tested.
    """
    ends = testable_ends(count, outcomes)
    if ends is None:
        return None
    for end in (ends.low, ends.high):
        if end not in outcomes:
            return end
    if sweep:
        return _middle_of_longest_stretch(ends.low, ends.high, outcomes)
    bracket = _bracket(ends, outcomes)
    if bracket is None or not find.wants(_change(outcomes[bracket[0]])):
        return None
    return _middle_of_longest_stretch(*bracket, outcomes)


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
    bracket = (ends.low, ends.high) if untested_ends else _bracket(ends, outcomes)
    return untested_ends + (_worst_case(*bracket, outcomes) if bracket else 0)


def remaining_range(count: int, outcomes: Mapping[int, Outcome]) -> tuple[int, int] | None:
    """The stretch the answer lies in as far as is known: its first and last index.

    The whole range until both ends are known; ``None`` when they agree or nothing is testable.
    """
    ends = testable_ends(count, outcomes)
    if ends is None:
        return None
    if ends.low in outcomes and ends.high in outcomes:
        return _bracket(ends, outcomes)
    return ends.low, ends.high


def conclude(count: int, outcomes: Mapping[int, Outcome], *, find: Find = Find.AUTO) -> Conclusion:
    """Read the answer from the outcomes seen so far; untested candidates are never answered for."""
    ends = testable_ends(count, outcomes)
    tested = sorted(i for i, outcome in outcomes.items() if outcome is not Outcome.SKIP)
    if ends is None or len(tested) < 2:
        return Conclusion(Verdict.TOO_FEW, (), ends)
    boundaries = tuple(
        Boundary(_change(outcomes[before]), before, after)
        for before, after in pairwise(tested)
        if outcomes[before] is not outcomes[after]
    )
    if any(find.wants(boundary.change) for boundary in boundaries):
        return Conclusion(Verdict.FOUND, boundaries, ends)
    verdict = Verdict.OTHER_CHANGE if boundaries else Verdict.NO_CHANGE
    return Conclusion(verdict, boundaries, ends)


def _change(before: Outcome) -> Change:
    return Change.FIX if before is Outcome.FAIL else Change.BREAK


def _bracket(ends: Ends, outcomes: Mapping[int, Outcome]) -> tuple[int, int] | None:
    """The tested neighbours around the newest change, or ``None`` when the two ends agree."""
    if outcomes[ends.low] is outcomes[ends.high]:
        return None
    tested = [i for i, o in sorted(outcomes.items()) if o is not Outcome.SKIP]
    for low, high in reversed(list(pairwise(tested))):
        if outcomes[low] is not outcomes[high]:
            return low, high
    raise AssertionError("ends that differ have a change between them")


def _worst_case(low: int, high: int, outcomes: Mapping[int, Outcome]) -> int:
    """How many picks it takes at most until nothing untested is left between the two."""
    pick = _middle_of_longest_stretch(low, high, outcomes)
    if pick is None:
        return 0
    return 1 + max(_worst_case(low, pick, outcomes), _worst_case(pick, high, outcomes))


def _middle_of_longest_stretch(low: int, high: int, outcomes: Mapping[int, Outcome]) -> int | None:
    """The middle of the longest run of untested indices strictly between ``low`` and ``high``.

    Of runs equally long the one nearest the middle counts, so that scattered skips do not turn the
    search into a walk.
    """
    stretches: list[tuple[int, int]] = []
    start: int | None = None
    for index in range(low + 1, high + 1):
        untested = index < high and index not in outcomes
        if untested and start is None:
            start = index
        elif not untested and start is not None:
            stretches.append((start, index))
            start = None
    if not stretches:
        return None
    first, beyond = max(
        stretches, key=lambda s: (s[1] - s[0], -abs((s[0] + s[1] - 1) - (low + high)))
    )
    return (first + beyond - 1) // 2
