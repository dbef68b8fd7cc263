"""Ways to search, driven alike: vbisect's own, and the two a shell script would take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from vbisect.search import (
    Aim,
    Change,
    Conclusion,
    Costs,
    Counts,
    Outcome,
    Seen,
    Verdict,
    boot_context,
    conclude_seen,
    is_over,
    judge_boot,
    likely_after,
    next_picks,
    pointless,
)
from vbisect.simulate.answer import Answer, Status

Judge = Callable[[Counts, int], Outcome | None]
"""The verdict on a boot by what its requests came to so far; ``None``: send another.

Beside the counts it takes the number of failures of another kind."""

LOOKAHEAD = 1
"""Rounds ahead, as with wheels; with images it is more, which hardly saves time in these worlds."""


class Strategy(Protocol):
    """What a simulated run asks of a way to search."""

    def is_over(self, seen: Seen) -> bool:
        """Whether nothing more has to be tested."""

    def picks(self, seen: Seen, costs: Costs, free: int) -> tuple[int, ...]:
        """What to start now, at most ``free`` candidates, none that runs."""

    def ahead(self, seen: Seen, costs: Costs, jobs: int) -> Iterator[int]:
        """What to fetch for trials to come while those that run boot and are asked."""

    def pointless(self, seen: Seen) -> frozenset[int]:
        """The running trials that can be cancelled."""

    def judge(self, seen: Seen, index: int, costs: Costs) -> Judge:
        """How a boot of candidate ``index`` that starts now is judged."""

    def answer(self, seen: Seen) -> Answer:
        """What has been found."""


@dataclass(frozen=True)
class Mode:
    """The options of ``vbisect run`` of these names; ``hint`` is an index."""

    sweep: bool = False
    find_all: bool = False
    hint: int | None = None


class Vbisect:
    """The search of ``vbisect run``."""

    def __init__(
        self, count: int, confidence: float, mode: Mode | None = None, *, lookahead: int = LOOKAHEAD
    ) -> None:
        """Search ``count`` candidates until the answer carries ``confidence``, in [0.5, 1).

        ``lookahead`` is how many rounds ahead builds are fetched; 0: none is.
        """
        mode = mode or Mode()
        weights = None
        if mode.hint is not None:
            weights = tuple(float(count - 1 if i == mode.hint else 1) for i in range(count))
        self.aim = Aim(
            count,
            sweep=mode.sweep,
            find_all=mode.find_all,
            confidence=confidence,
            weights=weights,
        )
        self.lookahead = lookahead

    def is_over(self, seen: Seen) -> bool:
        return is_over(self.aim, seen)

    def picks(self, seen: Seen, costs: Costs, free: int) -> tuple[int, ...]:
        return next_picks(self.aim, seen, costs, free)

    def ahead(self, seen: Seen, costs: Costs, jobs: int) -> Iterator[int]:
        if not self.lookahead:
            return iter(())
        return likely_after(self.aim, seen, costs, jobs=jobs, depth=self.lookahead)

    def pointless(self, seen: Seen) -> frozenset[int]:
        return pointless(self.aim, seen)

    def judge(self, seen: Seen, index: int, costs: Costs) -> Judge:
        context = boot_context(self.aim, seen, index, costs)
        return lambda counts, other: judge_boot(counts, context, other)

    def answer(self, seen: Seen) -> Answer:
        conclusion = conclude_seen(self.aim, seen)
        ends = conclusion.ends
        return replace(
            _answer_of(conclusion),
            changes=tuple(
                (boundary.change, boundary.suspects[0], boundary.suspects[-1])
                for boundary in conclusion.boundaries
            ),
            more=conclusion.more_changes,
            tested=(ends.low, ends.high) if ends else None,
        )


def _answer_of(conclusion: Conclusion) -> Answer:
    """The newest boundary, as ``vbisect run`` answers."""
    if conclusion.verdict in (Verdict.NO_CHANGE, Verdict.OTHER_CHANGE):
        return Answer(Status.NONE)
    boundary = conclusion.boundaries[-1] if conclusion.boundaries else None
    if conclusion.verdict is not Verdict.FOUND or boundary is None:
        return Answer(Status.INCONCLUSIVE, suspects=conclusion.suspects, confidence=conclusion.held)
    return Answer(
        Status.FOUND if boundary.exact else Status.INCONCLUSIVE,
        boundary.change,
        boundary.last_before,
        boundary.first_after,
        boundary.exact,
        boundary.suspects,
        boundary.confidence,
    )


class OneByOne:
    """What the strategies of a shell script share: one trial at a time, one request a boot."""

    def __init__(self, count: int, confidence: float) -> None:
        """Search ``count`` candidates; a script knows no confidence."""
        self.count = count

    def next_pick(self, outcomes: Mapping[int, Outcome]) -> int | None:
        """The candidate to test next; ``None`` at the end."""
        raise NotImplementedError

    def is_over(self, seen: Seen) -> bool:
        return not seen.running and self.next_pick(seen.outcomes) is None

    def picks(self, seen: Seen, costs: Costs, free: int) -> tuple[int, ...]:
        pick = None if seen.running else self.next_pick(seen.outcomes)
        return () if pick is None else (pick,)

    def ahead(self, seen: Seen, costs: Costs, jobs: int) -> Iterator[int]:
        return iter(())

    def pointless(self, seen: Seen) -> frozenset[int]:
        return frozenset()

    def judge(self, seen: Seen, index: int, costs: Costs) -> Judge:
        return lambda counts, other: Outcome.FAIL if counts.fails or other else Outcome.PASS

    def answer(self, seen: Seen) -> Answer:
        tested = [i for i, o in sorted(seen.outcomes.items()) if o is not Outcome.SKIP]
        if len(tested) < 2:
            return Answer(Status.INCONCLUSIVE)
        bracket = _bracket(seen.outcomes)
        if bracket is None:
            return Answer(Status.NONE)
        before, after = bracket
        exact = after == before + 1
        return Answer(
            Status.FOUND if exact else Status.INCONCLUSIVE,
            Change.FIX if seen.outcomes[before] is Outcome.FAIL else Change.BREAK,
            before,
            after,
            exact,
            tuple(range(before + 1, after + 1)),
        )


class Linear(OneByOne):
    """From the old end upwards until the outcome changes."""

    def next_pick(self, outcomes: Mapping[int, Outcome]) -> int | None:
        # a change could only have come with the last one: it would have ended here before
        newest_first = (outcomes[i] for i in range(len(outcomes) - 1, -1, -1))
        last_two = list(islice((o for o in newest_first if o is not Outcome.SKIP), 2))
        if len(outcomes) == self.count or len(set(last_two)) == 2:
            return None
        return len(outcomes)


class Midpoint(OneByOne):
    """Both ends, then halves, as ``git bisect run`` with a script does.

    In place of a candidate that cannot be tested the nearest untested one is taken.
    """

    def next_pick(self, outcomes: Mapping[int, Outcome]) -> int | None:
        for end in (range(self.count), range(self.count - 1, -1, -1)):
            place = next((i for i in end if outcomes.get(i) is not Outcome.SKIP), None)
            if place is not None and place not in outcomes:
                return place
        bracket = _bracket(outcomes)
        if bracket is None:
            return None
        middle = sum(bracket) // 2
        untested = (i for i in range(bracket[0] + 1, bracket[1]) if i not in outcomes)
        return min(untested, key=lambda i: (abs(i - middle), i), default=None)


def _bracket(outcomes: Mapping[int, Outcome]) -> tuple[int, int] | None:
    """The tested neighbours around the oldest change, ``None`` where nothing changes."""
    before: int | None = None
    for index in sorted(outcomes):
        if outcomes[index] is Outcome.SKIP:
            continue
        if before is not None and outcomes[index] is not outcomes[before]:
            return before, index
        before = index
    return None


STRATEGIES: dict[str, Callable[[int, float], Strategy]] = {
    "vbisect": Vbisect,
    "linear": Linear,
    "midpoint": Midpoint,
}
"""By name: makes a strategy for a number of candidates and a confidence."""
