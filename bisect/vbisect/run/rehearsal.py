"""A run rehearsed: what would be tested, and how long it would take, if this were the truth.

The picks are those of the run itself, and every release is taken to be steady. Trials take the
usual times, and builds are fetched when their trial begins, one after the other, for servers at
once share a network and get none of them sooner by it; with dice, trials vary in length, and
builds come ahead of their trials as chance has it, since a run prefers those that are there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from vbisect.search import (
    Aim,
    Costs,
    Counts,
    Outcome,
    Seen,
    boot_context,
    judge_boot,
    next_picks,
    pointless,
)

_SHORTEST, _LONGEST = 0.8, 1.25
"""How far a trial's length varies, by chance."""

_COMES_AHEAD = 0.1
"""How often a build has come further whenever a trial begins."""


@dataclass(frozen=True)
class Rehearsal:
    """The candidates of which a build was fetched and a server started, by the time that began.

    ``boots`` counts them with those that were booted again; ``seconds`` is the time until the
    answer stands.
    """

    booted: tuple[int, ...]
    boots: int
    seconds: float


@dataclass(frozen=True)
class Stage:
    """What a run would find here.

    ``costs`` are those before anything was fetched. ``excluded`` are left out on request, and
    ``missing`` were never published, which their trial finds out at once. ``jobs`` is how many
    servers run at a time.
    """

    aim: Aim
    costs: Costs
    excluded: frozenset[int] = frozenset()
    missing: frozenset[int] = frozenset()
    jobs: int = 1

    @property
    def testable(self) -> list[int]:
        """The candidates that can be tested as far as is known, oldest first."""
        untestable = self.excluded | self.missing
        return [index for index in range(self.aim.count) if index not in untestable]


def rehearse(
    stage: Stage, truth: Mapping[int, Outcome], dice: random.Random | None = None
) -> Rehearsal:
    """The run on ``stage`` if each testable candidate comes to its outcome in ``truth``."""
    return _Rehearsal(stage, truth, dice).run()


@dataclass
class _Trial:
    """A trial under way: seconds at which its build begins to come, at which its server starts and
    at which it ends, and what it sees."""

    comes_at: float
    boots_at: float
    ends_at: float
    counts: Counts


@dataclass
class _Rehearsal:
    stage: Stage
    truth: Mapping[int, Outcome]
    dice: random.Random | None = None
    now: float = 0.0
    line_free_at: float = 0.0
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    running: dict[int, _Trial] = field(default_factory=dict)
    booted: dict[int, int] = field(default_factory=dict)
    seen: dict[int, tuple[Counts, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outcomes = dict.fromkeys(self.stage.excluded, Outcome.SKIP)
        self.fetch = list(self.stage.costs.fetch)
        self.costs = Costs(self.fetch, self.stage.costs.boot, self.stage.costs.request)

    def run(self) -> Rehearsal:
        while True:
            self._fetch_ahead()
            free = self.stage.jobs - len(self.running)
            for pick in next_picks(self.stage.aim, self._seen(), self.costs, free):
                self._begin(pick)
            if not self.running:
                return Rehearsal(tuple(self.booted), sum(self.booted.values()), self.now)
            self._end(min(self.running, key=lambda index: self.running[index].ends_at))
            for index in pointless(self.stage.aim, self._seen()):
                self._give_up(index)

    def _seen(self) -> Seen:
        return Seen(
            outcomes=dict(self.outcomes),
            boots=dict(self.seen),
            running=frozenset(self.running),
            cheap_skips=self.stage.excluded | self.stage.missing,
        )

    def _begin(self, index: int) -> None:
        if index in self.stage.missing:
            self.running[index] = _Trial(self.now, self.now, self.now, Counts())
            return
        varied = self.dice.uniform(_SHORTEST, _LONGEST) if self.dice else 1.0
        comes_at = boots_at = self.now
        if self.fetch[index]:
            comes_at = max(self.now, self.line_free_at)
            self.line_free_at = boots_at = comes_at + self.fetch[index] * varied
        counts = self._counts(index)
        seconds = self.costs.boot + counts.total * self.costs.request
        self.running[index] = _Trial(comes_at, boots_at, boots_at + seconds * varied, counts)

    def _fetch_ahead(self) -> None:
        if self.dice is None:
            return
        for index, seconds in enumerate(self.fetch):
            if seconds and self.dice.random() < _COMES_AHEAD:
                self.fetch[index] = seconds * self.dice.random()

    def _counts(self, index: int) -> Counts:
        """What a boot comes to until it is judged."""
        context = boot_context(self.stage.aim, self._seen(), index, self.costs)
        each = Counts(0, 1) if self.truth[index] is Outcome.FAIL else Counts(1, 0)
        counts = each
        while judge_boot(counts, context) is None:
            counts = counts.plus(each)
        return counts

    def _end(self, index: int) -> None:
        trial = self.running.pop(index)
        self.now = trial.ends_at
        if index in self.stage.missing:
            self.outcomes[index] = Outcome.SKIP
            return
        self.outcomes[index] = self.truth[index]
        self.seen[index] = (*self.seen.get(index, ()), trial.counts)
        self._has_booted(index)

    def _give_up(self, index: int) -> None:
        trial = self.running.pop(index)
        if trial.boots_at < self.now:
            self._has_booted(index)
            return
        sooner = trial.boots_at - max(self.now, trial.comes_at)
        self.line_free_at -= sooner
        for other in self.running.values():
            if other.comes_at >= trial.boots_at:
                other.comes_at -= sooner
                other.boots_at -= sooner
                other.ends_at -= sooner

    def _has_booted(self, index: int) -> None:
        self.booted[index] = self.booted.get(index, 0) + 1
        self.fetch[index] = 0.0
