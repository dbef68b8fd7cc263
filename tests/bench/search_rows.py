"""What each world of the search benchmark measures, and what it has to reach."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from bench.bayesect import Peer, measure_peer
from bench.optimum import mean_least_seconds
from bench.search_worlds import (
    BROKEN,
    BROKEN_OF,
    broken_in_a_row,
    draw_truths,
    flaky,
    quarter_cached,
    steady,
    without_change,
)
from vbisect.search import Costs, Seen
from vbisect.simulate import STRATEGIES, Run, Status, Summary, World, simulate, summarise
from vbisect.simulate.strategies import Vbisect

CONFIDENCE = 0.95
SURER = (CONFIDENCE, 0.97, 0.99)
JOBS = (1, 2, 4, 8)
MOST_FOR_OPTIMUM = 100
"""Candidates; the exact optimum takes the cube of them."""
NEAR = 0.9
"""The part of log2(K + 1) that has to be reached."""

_REACHES: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Row:
    """One figure of one world; ``relation`` and ``bound`` are what it must reach, if anything."""

    world: str
    figure: str
    value: float
    relation: str = ""
    bound: float = 0.0

    @property
    def ok(self) -> bool | None:
        """Whether it reaches that; ``None`` where there is nothing to reach."""
        reaches = _REACHES.get(self.relation)
        return None if reaches is None else reaches(self.value, self.bound)


@dataclass
class Bench:
    """The truths to measure on, and every run of vbisect so far, for the calibration."""

    truths: int
    steady_runs: list[Run] = field(default_factory=list)
    flaky_runs: list[Run] = field(default_factory=list)

    def steady(self, count: int) -> Iterator[Row]:
        """Nothing flaky, nothing cached."""
        name = f"{count}: steady"
        worlds = draw_truths(steady(count), self.truths)
        ours, midpoint, linear = (self._sum(worlds, each) for each in STRATEGY_NAMES)
        bound = math.log2(count - 1) + 2
        yield Row(name, "information bound + 2 ends", bound)
        yield Row(name, "boots_mean", ours.boots_mean, "<=", midpoint.boots_mean)
        yield Row(name, "boots above the bound", ours.boots_mean - bound, "<=", 0.1)
        yield Row(name, "wrong", ours.wrong, "<=", 0)
        yield Row(name, "midpoint boots_mean", midpoint.boots_mean)
        yield Row(name, "linear boots_mean", linear.boots_mean)

    def broken(self, count: int, broken: int, bound: float | None) -> Iterator[Row]:
        """A stretch that cannot be tested."""
        name = f"{count}: {broken} broken in a row"
        worlds = draw_truths(broken_in_a_row(count, broken), self.truths)
        ours, midpoint, linear = (self._sum(worlds, each) for each in STRATEGY_NAMES)
        beyond = ours.boots_mean - 2
        yield Row(name, "boots beyond the ends", beyond, "<=" if bound else "", bound or 0)
        yield Row(name, "wrong", ours.wrong, "<=", 0)
        yield Row(name, "inconclusive share", ours.inconclusive / ours.runs)
        yield Row(name, "change among the broken, share", _hidden(worlds))
        yield Row(name, "midpoint boots beyond", midpoint.boots_mean - 2)
        yield Row(name, "linear boots beyond", linear.boots_mean - 2)

    def cached(self, count: int) -> Iterator[Row]:
        """A quarter on disk."""
        name = f"{count}: a quarter cached, 3 against 11 min"
        worlds = draw_truths(quarter_cached(count), self.truths)
        ours, midpoint, linear = (self._sum(worlds, each) for each in STRATEGY_NAMES)
        ratio = midpoint.virtual_s_mean / ours.virtual_s_mean
        yield Row(name, "midpoint's time / ours", ratio, ">=", 1.35)
        in_order = summarise([simulate(w, Vbisect(count, CONFIDENCE, lookahead=0)) for w in worlds])
        by_order = midpoint.virtual_s_mean / in_order.virtual_s_mean
        yield Row(name, "by order alone, nothing fetched ahead", by_order)
        if count <= MOST_FOR_OPTIMUM:
            most = midpoint.virtual_s_mean / mean_least_seconds(worlds)
            yield Row(name, "by order alone, most possible", most)
        yield Row(name, "linear's time / ours", linear.virtual_s_mean / ours.virtual_s_mean)
        yield Row(name, "minutes", ours.virtual_s_mean / 60)
        yield Row(name, "boots_mean", ours.boots_mean)
        yield Row(name, "midpoint boots_mean", midpoint.boots_mean)
        yield Row(name, "wrong", ours.wrong, "<=", 0)

    def flaky(self, count: int, false_fail_rate: float = 0.0) -> Iterator[Row]:
        """The bug shows in three of ten requests."""
        name = f"{count}: fail_rate 0.3" + (f", false {false_fail_rate:g}" * bool(false_fail_rate))
        worlds = draw_truths(flaky(count, 0.3, false_fail_rate), self.truths)
        runs = self._run(worlds, is_flaky=True)
        ours = summarise(runs)
        allowed = 1 - CONFIDENCE
        yield Row(name, "wrong share", ours.wrong / ours.runs, "<=", allowed)
        yield Row(name, "said no change, share", _said_none(runs))
        yield Row(name, "inconclusive share", ours.inconclusive / ours.runs)
        yield Row(name, "boots_mean", ours.boots_mean)
        yield Row(name, "requests_mean", ours.requests_mean)
        for strategy in ("midpoint", "linear"):
            theirs = self._sum(worlds, strategy)
            yield Row(name, f"{strategy} wrong share", theirs.wrong / theirs.runs)
        if false_fail_rate:
            return
        peer = measure_peer(worlds, CONFIDENCE)
        yield Row(name, "git-bayesect boots_mean", peer.boots_mean)
        yield Row(name, "git-bayesect wrong share", peer.wrong_share)
        yield from self._at_equal_accuracy(name, worlds, ours, peer)

    def _at_equal_accuracy(
        self, name: str, worlds: Sequence[World], ours: Summary, peer: Peer
    ) -> Iterator[Row]:
        """vbisect's confidence is raised until it is right as often; unsure is not right."""
        for confidence in SURER:
            if confidence > CONFIDENCE:
                ours = summarise(self._run(worlds, is_flaky=True, confidence=confidence))
            not_right = (ours.wrong + ours.inconclusive) / ours.runs
            if not_right <= peer.wrong_share or confidence == SURER[-1]:
                break
        yield Row(name, "vbisect confidence at equal accuracy", confidence)
        yield Row(name, "vbisect not right there, share", not_right, "<=", peer.wrong_share)
        yield Row(name, "git-bayesect's boots / ours", peer.boots_mean / ours.boots_mean, ">=", 3)

    def unchanged(self, count: int, false_fail_rate: float) -> Iterator[Row]:
        """Every release is alike, and fails now and then; a fifth of the truths, which are slow."""
        name = f"{count}: no change, false {false_fail_rate:g}"
        worlds = draw_truths(without_change(count, false_fail_rate), max(1, self.truths // 5))
        runs = self._run(worlds, is_flaky=True)
        ours = summarise(runs)
        yield Row(name, "truths", ours.runs)
        yield Row(name, "wrong share", ours.wrong / ours.runs, "<=", 1 - CONFIDENCE)
        yield Row(name, "said no change, share", _said_none(runs))
        yield Row(name, "inconclusive share", ours.inconclusive / ours.runs)
        yield Row(name, "boots_mean", ours.boots_mean)

    def parallel(self, count: int) -> Iterator[Row]:
        """Several servers at once."""
        name = f"{count}: jobs"
        means = {}
        for jobs in JOBS:
            runs = self._run(draw_truths(steady(count, jobs), self.truths))
            means[jobs] = summarise(runs).virtual_s_mean
            yield Row(name, f"jobs {jobs}: wrong", sum(run.wrong for run in runs), "<=", 0)
        for jobs in JOBS[1:]:
            faster = means[JOBS[0]] / means[jobs]
            yield Row(name, f"jobs {jobs}: times faster", faster, ">=", NEAR * math.log2(jobs + 1))

    def pick_times(self, count: int, runs: int, bound_ms: float) -> Iterator[Row]:
        """How long it takes to decide what is next, in milliseconds."""
        for kind, draw in (("steady", steady(count)), ("flaky", flaky(count, 0.3, 0.02))):
            taken: list[float] = []
            for world in draw_truths(draw, runs):
                simulate(world, Timed(count, CONFIDENCE, taken))
            name = f"{count}: one pick"
            yield Row(name, f"{kind}: mean ms", 1000 * fmean(taken), "<", bound_ms)
            yield Row(name, f"{kind}: slowest ms", 1000 * max(taken))

    def _run(
        self, worlds: Sequence[World], *, is_flaky: bool = False, confidence: float = CONFIDENCE
    ) -> list[Run]:
        runs = [simulate(world, Vbisect(world.candidates, confidence)) for world in worlds]
        (self.flaky_runs if is_flaky else self.steady_runs).extend(runs)
        return runs

    def _sum(self, worlds: Sequence[World], strategy: str) -> Summary:
        if strategy == "vbisect":
            return summarise(self._run(worlds))
        make = STRATEGIES[strategy]
        return summarise([simulate(world, make(world.candidates, CONFIDENCE)) for world in worlds])


STRATEGY_NAMES = ("vbisect", "midpoint", "linear")
SMALL_BROKEN = (BROKEN_OF, BROKEN)


class Timed(Vbisect):
    """vbisect's search, with the seconds of each pick written down."""

    def __init__(self, count: int, confidence: float, taken: list[float]) -> None:
        """Append to ``taken``."""
        super().__init__(count, confidence)
        self.taken = taken

    def picks(self, seen: Seen, costs: Costs, free: int) -> tuple[int, ...]:
        began = time.perf_counter()
        picks = super().picks(seen, costs, free)
        self.taken.append(time.perf_counter() - began)
        return picks


def _said_none(runs: Sequence[Run]) -> float:
    """The share of runs that ended with "no change in range"."""
    return fmean(run.answer.status is Status.NONE for run in runs)


def _hidden(worlds: Sequence[World]) -> float:
    """The share of worlds whose boundary has a broken candidate at one side at least."""
    return fmean(
        bool({world.change.at, world.change.at - 1} & world.skipped)
        for world in worlds
        if world.change is not None
    )
