"""The words of a search: what it is to find, what it knows so far, and what more costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import reduce
from typing import NamedTuple


class Outcome(StrEnum):
    """What a trial of one release came to; a skip says nothing about the bug."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


class Change(StrEnum):
    """``fix``: fail before, pass after. ``break``: pass before, fail after."""

    FIX = "fix"
    BREAK = "break"


class Find(StrEnum):
    """Which change is looked for; ``auto`` lets the two ends decide."""

    AUTO = "auto"
    FIX = "fix"
    BREAK = "break"

    def wants(self, change: Change) -> bool:
        """Whether ``change`` is of the kind looked for."""
        return self is Find.AUTO or self.value == change.value


def change_between(before: Outcome, after: Outcome) -> Change | None:
    """The change from ``before`` to ``after``, neither a skip; ``None`` when they agree."""
    if before is after:
        return None
    return Change.FIX if before is Outcome.FAIL else Change.BREAK


MAX_SKIPS = 10
"""Without a limit, 15 broken of 60 in a row cost up to two boots more and name no more answers."""


@dataclass(frozen=True)
class Aim:
    """What is looked for among ``count`` candidates, oldest first.

    ``sweep`` tests every candidate. ``find_all`` narrows down every change seen and leaves no
    untested stretch between agreeing releases longer than about an eighth of the range.
    ``confidence``, in (0, 1), is what an answer needs. After ``max_skips`` dear skips inside one
    bracket the search stops with suspects. ``weights[i]`` says how likely the change came with
    candidate ``i`` (index 0 is unused); it steers the picks, never the answer; ``None`` is even.

    Raises ``ValueError`` unless there is one weight, finite and not negative, for each candidate.
    """

    count: int
    find: Find = Find.AUTO
    sweep: bool = False
    find_all: bool = False
    confidence: float = 0.95
    # Of 60 candidates with 15 broken in a row, 10 name as many exact answers as 12 do, with half a
    # boot less: whoever has skipped so often is inside the broken stretch for good.
    max_skips: int = MAX_SKIPS
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.weights is None:
            return
        if len(self.weights) != self.count:
            raise ValueError(f"{len(self.weights)} weights for {self.count} candidates")
        if not all(0 <= weight < float("inf") for weight in self.weights):
            raise ValueError("a weight is negative or not finite")

    @property
    def several(self) -> bool:
        """Whether all changes are looked for, not one."""
        return self.sweep or self.find_all

    @property
    def longest_agreeing(self) -> int:
        """How many untested candidates in a row ``find_all`` leaves between agreeing releases."""
        return self.count // 8


class Counts(NamedTuple):
    """Observations of one boot or release: passes, and failures of the kind that is the bug."""

    passes: int = 0
    fails: int = 0

    @property
    def total(self) -> int:
        return self.passes + self.fails

    def plus(self, more: Counts) -> Counts:
        """Both together."""
        return Counts(self.passes + more.passes, self.fails + more.fails)


@dataclass(frozen=True)
class Seen:
    """The trials so far, by candidate.

    ``outcomes`` holds pass, fail or skip of each release tested. ``boots`` holds the observations
    of each of its boots, none for one that came to a skip; a release missing there counts as steady
    in its outcome. ``running`` are under trial now. ``cheap_skips`` cost no boot (never published,
    left out), do not count for ``max_skips`` and are not tried again; ``passing_skips`` are skips
    for a reason that can pass.
    """

    outcomes: Mapping[int, Outcome]
    boots: Mapping[int, tuple[Counts, ...]] = field(default_factory=dict)
    running: frozenset[int] = frozenset()
    cheap_skips: frozenset[int] = frozenset()
    passing_skips: frozenset[int] = frozenset()

    @property
    def judged(self) -> list[int]:
        """The releases that passed or failed, oldest first."""
        return sorted(i for i, outcome in self.outcomes.items() if outcome is not Outcome.SKIP)

    def total(self, index: int) -> Counts:
        """All observations of a release, over its boots."""
        return reduce(Counts.plus, self.boots.get(index, ()), Counts())

    def tries(self, index: int) -> int:
        """How often a release was booted, in vain or not."""
        return len(self.boots.get(index, (None,))) if index in self.outcomes else 0

    def dear_skips(self, low: int, high: int) -> int:
        """How many skips that cost a boot lie strictly between ``low`` and ``high``."""
        return sum(
            outcome is Outcome.SKIP and low < index < high and index not in self.cheap_skips
            for index, outcome in self.outcomes.items()
        )


@dataclass(frozen=True)
class Costs:
    """Seconds: ``fetch`` by candidate, 0 where the build is there, a boot, and a request."""

    fetch: Sequence[float]
    boot: float
    request: float


def flaky(seen: Seen) -> bool:
    """Whether any release was seen both passing and failing, within a boot or between boots."""
    return any(
        seen.outcomes.get(index) is not Outcome.SKIP
        and any(boot.passes for boot in boots)
        and any(boot.fails for boot in boots)
        for index, boots in seen.boots.items()
    )


def mixed(seen: Seen) -> bool:
    """Whether any boot was seen both passing and failing."""
    return any(boot.passes and boot.fails for boots in seen.boots.values() for boot in boots)
