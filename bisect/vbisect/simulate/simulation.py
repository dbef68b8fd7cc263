"""One run in virtual time: slots that trials occupy, and results used as they arrive.

A trial fetches its build unless it is on disk, boots, then sends requests one at a time until its
boot is judged; meanwhile builds are fetched ahead. What it will see is drawn when it starts; the
search learns of it when it ends. A trial that has become pointless is cancelled on the spot, and
frees its slot.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vbisect.search import CRASHED, Boot, Costs, Counts, Outcome, Seen, bug_kind, told_of
from vbisect.simulate.answer import Answer, is_wrong
from vbisect.simulate.fetching import Fetching
from vbisect.simulate.strategies import Strategy
from vbisect.simulate.world import World

MOST_BOOTS = 100_000
MOST_REQUESTS = 100_000

_BUG, _OTHER = "the bug", "something else"
"""Kinds of failure beside crashes."""


class SearchStuck(RuntimeError):
    """A strategy did not come to an end, or asked for what cannot be: a defect of its own."""


@dataclass(frozen=True)
class Trial:
    """One trial: seconds of virtual time at its start, its boot and its end, and what it saw.

    ``outcome`` is ``None`` for one that was cancelled; ``boot`` and ``ended`` are then what there
    was of it until that moment.
    """

    index: int
    started: float
    boots_at: float
    ended: float
    outcome: Outcome | None
    boot: Boot

    @property
    def requests(self) -> int:
        """Requests answered."""
        return self.boot.passes + sum(self.boot.fails.values())

    @property
    def booted(self) -> bool:
        """Whether its server was started before the trial ended."""
        return self.outcome is not None or self.boots_at < self.ended


@dataclass(frozen=True)
class Run:
    """One simulated run: its trials by the time they ended, and what it answered.

    ``virtual_s`` is the time until the answer stood, in seconds.
    """

    trials: tuple[Trial, ...]
    answer: Answer
    virtual_s: float
    wrong: bool

    @property
    def boots(self) -> int:
        """Servers started, those of trials cancelled later included."""
        return sum(trial.booted for trial in self.trials)

    @property
    def requests(self) -> int:
        """Requests answered."""
        return sum(trial.requests for trial in self.trials)


def simulate(world: World, strategy: Strategy, run_number: int = 0) -> Run:
    """Run ``strategy`` once against ``world``; the same ``run_number`` gives the same run.

    Raises ``SearchStuck`` when the strategy never ends.
    """
    return _Simulation(world, strategy, random.Random(world.seed + run_number)).run()


@dataclass
class _Simulation:
    """The state between two events."""

    world: World
    strategy: Strategy
    dice: random.Random
    now: float = 0.0
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    boots: dict[int, tuple[Boot, ...]] = field(default_factory=dict)
    running: dict[int, Trial] = field(default_factory=dict)
    asked: dict[int, list[str | None]] = field(default_factory=dict)
    ends: list[tuple[float, int]] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fetching = Fetching(self.world)
        # the search sees each fetch that becomes free
        self.costs = Costs(self.fetching.costs, self.world.boot_s, self.world.request_s)

    def run(self) -> Run:
        """Let trials start and end until the strategy is done."""
        while not self.strategy.is_over(self._seen()):
            self._start_trials()
            if not self.running:
                break
            self.fetching.expect(self._ahead(), self.now)
            self._end_next_trials()
            for index in self.strategy.pointless(self._seen()) & self.running.keys():
                self._cancel(index)
            if len(self.trials) > MOST_BOOTS:
                raise SearchStuck(f"no answer after {MOST_BOOTS} boots")
        for index in list(self.running):
            self._cancel(index)
        answer = self.strategy.answer(self._seen())
        return Run(tuple(self.trials), answer, self.now, is_wrong(answer, self.world))

    def _seen(self) -> Seen:
        return told_of(
            self.boots,
            bug_kind(self.boots),
            judged_as=self.outcomes,
            running=frozenset(self.running),
            # an untestable candidate of a world fails only at its boot, and nobody is told why
            passing_skips=frozenset(self.boots),
        )

    def _ahead(self) -> Iterator[int]:
        return self.strategy.ahead(self._seen(), self.costs, self.world.jobs)

    def _start_trials(self) -> None:
        free = self.world.jobs - len(self.running)
        if not free:
            return
        for index in self.strategy.picks(self._seen(), self.costs, free)[:free]:
            if index in self.running or not 0 <= index < self.world.candidates:
                raise SearchStuck(f"candidate {index} was picked, which cannot be started")
            trial = self._draw(index)
            self.running[index] = trial
            heapq.heappush(self.ends, (trial.ended, index))

    def _draw(self, index: int) -> Trial:
        """The trial that starts now, as it will be if it may end."""
        world = self.world
        boots_at = self.fetching.begin_trial(index, self.now)
        ready = boots_at + world.boot_s
        self.asked[index] = []
        if index in world.skipped or self._happens(world.skip_rate):
            return Trial(index, self.now, boots_at, ready, Outcome.SKIP, Boot())
        outcome = self._ask(index)
        boot = _boot(self.asked[index])
        ended = ready + len(self.asked[index]) * world.request_s
        return Trial(index, self.now, boots_at, ended, outcome, boot)

    def _ask(self, index: int) -> Outcome:
        """Send requests to a server until its boot is judged."""
        asked, seen = self.asked[index], self._seen()
        judge = self.strategy.judge(seen, index, self.costs)
        if self._happens(self.world.crashes(index)):
            asked.append(CRASHED)
            return Outcome.FAIL
        bug = bug_kind(self.boots)
        rate = self._rate(index)
        while len(asked) < MOST_REQUESTS:
            asked.append(self._request(rate))
            kinds = Counter(asked)
            bug = bug or next((kind for kind in kinds if kind), None)
            fails = kinds[bug] if bug else 0
            counts = Counts(kinds[None], fails)
            outcome = judge(counts, len(asked) - counts.total)
            if outcome is not None:
                return outcome
        raise SearchStuck(f"candidate {index} was not judged after {MOST_REQUESTS} requests")

    def _rate(self, index: int) -> float:
        """The rate at which a boot that starts now fails."""
        world = self.world
        if not world.is_bad(index):
            return 1.0 if self._happens(world.false_sticky) else world.false_fail_rate
        return world.failure_rate(index) if self._happens(world.sticky) else world.false_fail_rate

    def _request(self, rate: float) -> str | None:
        """The kind of failure that a request shows; ``None``: it passes."""
        if self._happens(self.world.other_rate):
            return _OTHER
        return _BUG if self._happens(rate) else None

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self.dice.random() < chance

    def _end_next_trials(self) -> None:
        """Go on to when the next trial ends; all that end at that instant are seen together."""
        self.now = min(trial.ended for trial in self.running.values())
        self.fetching.go_on(self.now)
        while self.ends and self.ends[0][0] <= self.now:
            ended, index = heapq.heappop(self.ends)
            trial = self.running.get(index)
            if trial is not None and trial.ended == ended:  # else it was cancelled
                self._end(trial)

    def _end(self, trial: Trial) -> None:
        assert trial.outcome is not None
        del self.running[trial.index]
        self.trials.append(trial)
        self.fetching.end_trial(trial.index, self.now)
        self.outcomes[trial.index] = trial.outcome
        self.boots[trial.index] = (*self.boots.get(trial.index, ()), trial.boot)

    def _cancel(self, index: int) -> None:
        """Stop a trial now; its build stays on disk if it has been fetched."""
        trial = self.running.pop(index)
        self.fetching.end_trial(index, self.now)
        boot = _boot(self.asked[index][: self._answered(trial)])
        self.trials.append(Trial(trial.index, trial.started, trial.boots_at, self.now, None, boot))

    def _answered(self, trial: Trial) -> int:
        """How many of a running trial's requests have been answered by now."""
        spent = self.now - trial.boots_at - self.world.boot_s
        if spent < 0:
            return 0
        if not self.world.request_s:
            return trial.requests
        return min(trial.requests, int(spent / self.world.request_s))


def _boot(asked: Sequence[str | None]) -> Boot:
    return Boot(asked.count(None), dict(Counter(kind for kind in asked if kind)))
