"""What a simulated run has on disk, and what it fetches ahead while servers boot and are asked.

A trial fetches its own build at once. There are as many lines as servers fit at once, and one that
no trial needs brings builds that may be wanted next, the soonest first. A build that can no longer
be wanted is given up, and what had come of it is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from vbisect.simulate.world import World


@dataclass
class Fetching:
    """The builds of ``world`` at one instant; times are in seconds of virtual time.

    ``costs[i]`` is what is still to come of build ``i``, as the search sees it. ``for_trials`` and
    ``ahead`` have the time at which each build on its way arrives.
    """

    world: World
    costs: list[float] = field(default_factory=list)
    for_trials: dict[int, float] = field(default_factory=dict)
    ahead: dict[int, float] = field(default_factory=dict)
    _there: set[int] = field(default_factory=set)
    _wanted: Iterator[int] = field(default_factory=lambda: iter(()))

    def __post_init__(self) -> None:
        self._there = set(self.world.cached)
        self.costs += (self._whole(index) for index in range(self.world.candidates))

    def begin_trial(self, index: int, now: float) -> float:
        """When the build of a trial that begins ``now`` is there."""
        arrives = self.ahead.pop(index, now + self._whole(index))
        if arrives > now:
            self.for_trials[index] = arrives
            while self.ahead and self._busy > self.world.jobs:
                self._give_up(next(reversed(self.ahead)))
        return arrives

    def end_trial(self, index: int, now: float) -> None:
        """The trial has ended or was cancelled; what had not come of its build is lost."""
        arrived = self.for_trials.pop(index, now) <= now
        if arrived:
            self._there.add(index)
        self.costs[index] = self._whole(index)

    def expect(self, wanted: Iterable[int], now: float) -> None:
        """From ``now`` on fetch ``wanted`` ahead, the soonest first, and nothing else."""
        looked_at: list[int] = []
        following = iter(wanted)
        going_on = set(self.ahead)
        while going_on and (index := next(following, None)) is not None:
            looked_at.append(index)
            going_on.discard(index)
        for index in going_on:
            self._give_up(index)
        self._wanted = chain(looked_at, following)
        self._fill_lines(now)

    def go_on(self, until: float) -> None:
        """Let time go by; a line that becomes free brings the next build at once."""
        while (arrival := min(self._arrivals(), default=until)) < until:
            self._arrive_by(arrival)
            self._fill_lines(arrival)
        self._arrive_by(until)
        for index, arrives in self.ahead.items():
            self.costs[index] = arrives - until

    @property
    def _busy(self) -> int:
        return len(self.for_trials) + len(self.ahead)

    def _arrivals(self) -> Iterator[float]:
        yield from self.for_trials.values()
        yield from self.ahead.values()

    def _arrive_by(self, now: float) -> None:
        for coming in (self.for_trials, self.ahead):
            for index in [index for index, arrives in coming.items() if arrives <= now]:
                del coming[index]
                self._there.add(index)
                self.costs[index] = 0.0

    def _fill_lines(self, now: float) -> None:
        while self._busy < self.world.jobs:
            index = next(self._wanted, None)
            if index is None:
                return
            if index not in self._there | self.ahead.keys() | self.for_trials.keys():
                self.ahead[index] = now + self._whole(index)

    def _give_up(self, index: int) -> None:
        del self.ahead[index]
        self.costs[index] = self._whole(index)

    def _whole(self, index: int) -> float:
        return 0.0 if index in self._there else self.world.fetch_s
