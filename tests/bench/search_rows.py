"""The rows of the search benchmark: a world each, with what vbisect has to reach there."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.pool import Pool
from statistics import fmean
from typing import Any, NamedTuple

from bench.bayesect import search_with_peer
from bench.calibration import Bin, exact_answers, margin, quartiles, suspect_answers
from bench.search_worlds import (
    LARGE,
    SMALL,
    CrashingLowEnd,
    Draw,
    broken_in_a_row,
    changed,
    draw_truths,
    flaky,
    quarter_cached,
    steady,
    without_change,
)
from vbisect.search import Costs, Seen
from vbisect.simulate import STRATEGIES, Mode, Run, Status, Summary, World, simulate, summarise
from vbisect.simulate.strategies import Vbisect

SURER = (0.95, 0.97, 0.99)
MOST_OF_SLOW = 200
"""Truths of a slow row."""

_REACHES: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Row:
    """A world; its figures (those of ``figures_of``) are to be at ``most`` and at ``least`` these.

    ``hint`` makes the hinted index from that of the change. ``peer`` searches the same truths. With
    ``in_quartiles`` stated confidences must hold in each quartile of them.
    """

    name: str
    draw: Draw
    most: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    slow: bool = False
    hint: Callable[[int], int] | None = None
    peer: str = ""
    in_quartiles: bool = False


class Cost(NamedTuple):
    """Means of a row."""

    boots: float
    minutes: float


BEFORE = {
    "jobs 2": Cost(8.589, 46.59),
    "jobs 4": Cost(9.003, 30.91),
    "jobs 8": Cost(12.116, 21.96),
    "quarter cached": Cost(7.849, 50.19),
    "hint right": Cost(4.099, 37.40),
    "hint wrong": Cost(8.345, 76.76),
    "60: 15 broken in a row": Cost(10.873, 100.89),
    "fail 0.3": Cost(10.578, 81.96),
    "fail 0.1": Cost(15.963, 103.30),
    "fail 0.3, false 0.02": Cost(12.752, 91.19),
    "fail 0.3, false 0.05": Cost(11.797, 89.83),
    "fail 0.3, false 0.1": Cost(17.020, 114.37),
    "fail 0.1, false 0.02": Cost(34.523, 169.61),
    "1000: steady": Cost(11.971, 111.77),
    "1000: quarter cached": Cost(12.090, 64.96),
    "1000: jobs 4": Cost(14.585, 50.69),
    "1000: fail 0.3": Cost(15.575, 128.07),
}
"""Measured with the search of commit 7126953 on the same truths."""

MORE = 1.1
"""Times what it took before, at most."""


HOLDS = {"stated_margin": 0}
SUSPECTS_HOLD = {"suspects_margin": 0}


def timed(name: str, draw: Draw, hint: Callable[[int], int] | None = None) -> Row:
    """Nothing flaky: no more minutes than before."""
    most = {"minutes": MORE * BEFORE[name].minutes, "wrong": 0.05}
    return Row(name, draw, most, HOLDS, hint=hint)


def flakes(fail: float, false: float = 0.0, *, count: int = SMALL, peer: str = "") -> Row:
    """Failures that do not depend on each other: no more boots than before."""
    name = f"{count}: " * (count != SMALL) + f"fail {fail}" + f", false {false}" * (false > 0)
    most = {"boots": MORE * BEFORE[name].boots, "wrong": 0.05}
    return Row(name, flaky(count, fail, false), most, HOLDS, slow=True, peer=peer)


def sure(exact_wrong: float, **keys: Any) -> Row:
    """An answer that has to be surer than usual."""
    name = ", ".join(f"{key} {value}" for key, value in keys.items()) + ", confidence 0.99"
    return Row(name, changed(confidence=0.99, **keys), {"exact_wrong": exact_wrong}, slow=True)


def hard(most: Mapping[str, float], **keys: Any) -> Row:
    """Worlds in which many answers name suspects, which have to hold the change."""
    name = ", ".join(f"{key} {value}" for key, value in keys.items())
    return Row(name, changed(**keys), most, SUSPECTS_HOLD, slow=True)


ROWS = (
    Row("steady", steady(SMALL), {"wrong": 0, "boots": 9.8, "requests": 70}, peer="midpoint"),
    Row(
        "1000: steady",
        steady(LARGE),
        {"wrong": 0, "boots": 14.1, "minutes": MORE * BEFORE["1000: steady"].minutes},
        peer="midpoint",
    ),
    Row("F2", changed(sticky=18 / 19), in_quartiles=True),
    Row("sticky 0.9", changed(sticky=0.9), {"exact_wrong": 0.03, "boots": 16}),
    Row("sticky 0.8", changed(sticky=0.8), {"exact_wrong": 0.07, "boots": 16}, peer="git-bayesect"),
    Row("false_sticky 0.1", changed(false_sticky=0.1), {"exact_wrong": 0.05, "boots": 16}),
    sure(0.01, sticky=0.9),
    sure(0.02, sticky=0.8),
    sure(0.02, false_sticky=0.1),
    hard({"exact_wrong": 0.05}, sticky=0.7, fail_rate=0.5),
    hard({"exact_wrong": 0.08}, rate_at_change=0.05),
    hard({"exact_wrong": 0.2, "exact_wrong_of_mixed": 0.05}, sticky=0.5),
    Row("other_rate 0.05", changed(other_rate=0.05), {"boots": 10}, {"exact_right": 0.95}),
    Row("crash_rate 0.05", changed(crash_rate=0.05), {"exact_wrong": 0.01}),
    Row("low end crashes 0.2", changed(kind=CrashingLowEnd), {"exact_wrong": 0.01}),
    Row(
        "1000: 700 to 999 broken",
        changed(LARGE, untestable=((700, 999),)),
        {"boots": 30},
        slow=True,
    ),
    Row("skip_rate 0.3", changed(skip_rate=0.3), least={"exact_right": 0.85}),
    Row(
        "no change, false 0.1", without_change(SMALL, 0.1), {"boots": 20}, {"none": 0.7}, slow=True
    ),
    timed("jobs 2", steady(SMALL, jobs=2)),
    timed("jobs 4", steady(SMALL, jobs=4)),
    timed("jobs 8", steady(SMALL, jobs=8)),
    timed("quarter cached", quarter_cached(SMALL)),
    timed("hint right", steady(SMALL), hint=lambda at: at),
    timed("hint wrong", steady(SMALL), hint=lambda at: (at + 20) % 50 + 1),
    timed("60: 15 broken in a row", broken_in_a_row(60, 15)),
    timed("1000: quarter cached", quarter_cached(LARGE)),
    timed("1000: jobs 4", steady(LARGE, jobs=4)),
    flakes(0.3, peer="git-bayesect"),
    flakes(0.1),
    flakes(0.3, 0.02),
    flakes(0.3, 0.05),
    flakes(0.3, 0.1),
    flakes(0.1, 0.02),
    flakes(0.3, count=LARGE),
)


class Check(NamedTuple):
    """A figure with what it must reach; ``relation`` is empty where that is nothing."""

    figure: str
    value: float
    relation: str = ""
    bound: float = 0.0

    @property
    def ok(self) -> bool | None:
        """Whether it reaches that; ``None`` where there is nothing to reach."""
        reaches = _REACHES.get(self.relation)
        return None if reaches is None else reaches(self.value, self.bound)


@dataclass(frozen=True)
class Line:
    """One line of the table: what was measured there, and the checks on it."""

    name: str
    measured: Summary | Bin | None
    checks: Sequence[Check] = ()


@dataclass
class Bench:
    """``truths`` of each world, searched in ``pool``; ``runs`` are all of vbisect so far."""

    truths: int
    pool: Pool
    runs: list[Run] = field(default_factory=list)

    def lines(self, row: Row) -> Iterator[Line]:
        """Measure a row, its peer too."""
        truths = min(self.truths, MOST_OF_SLOW) if row.slow else self.truths
        worlds = draw_truths(row.draw, truths)
        runs = self._search(worlds, row.hint)
        ours, figures = summarise(runs), figures_of(runs)
        checks = [
            Check(figure, figures[figure], relation, bound)
            for relation, bounds in (("<=", row.most), (">=", row.least))
            for figure, bound in bounds.items()
        ]
        yield Line(row.name, ours, checks)
        if row.in_quartiles:
            for number, quartile in enumerate(quartiles(runs), start=1):
                yield bin_line(f"{row.name}, quartile {number}", quartile)
        name = f"{row.name}, {row.peer}"
        if row.peer in STRATEGIES:
            theirs = self.pool.map(partial(run_of, strategy=row.peer), worlds)
            yield Line(name, summarise(theirs))
        elif row.peer:
            yield Line(name, None, list(self._beside_bayesect(worlds, ours)))

    def _search(
        self, worlds: Sequence[World], hint: Callable[[int], int] | None = None
    ) -> list[Run]:
        hints = [hint(world.change.at) if hint and world.change else None for world in worlds]
        runs = self.pool.starmap(run_of, zip(worlds, hints, strict=True))
        self.runs += runs
        return runs

    def _beside_bayesect(self, worlds: Sequence[World], ours: Summary) -> Iterator[Check]:
        """Its figures; where boots do not depend on each other, ours at its accuracy too.

        For that vbisect's confidence is raised until it is right at least as often, where an answer
        that is not exact counts as not right.
        """
        theirs = self.pool.map(search_with_peer, worlds)
        boots = fmean(boots for boots, _ in theirs)
        wrong = fmean(not right for _, right in theirs)
        yield Check("boots", boots)
        yield Check("wrong", wrong)
        if worlds[0].sticky < 1:
            return
        for confidence in SURER:
            if confidence > worlds[0].confidence:
                surer = [world.model_copy(update={"confidence": confidence}) for world in worlds]
                ours = summarise(self._search(surer))
            not_right = 1 - ours.exact_right / ours.runs
            if not_right <= wrong:
                break
        yield Check("our confidence at its accuracy", confidence)
        yield Check("ours not right", not_right, "<=", wrong)
        yield Check("its boots / ours", boots / ours.boots_mean, ">=", 3)


def run_of(world: World, hint: int | None = None, strategy: str = "vbisect") -> Run:
    """One run of a strategy, told ``hint`` if it is vbisect's."""
    if strategy != "vbisect":
        return simulate(world, STRATEGIES[strategy](world.candidates, world.confidence))
    return simulate(world, Vbisect(world.candidates, world.confidence, Mode(hint=hint)))


def figures_of(runs: Sequence[Run]) -> dict[str, float]:
    """What bounds are about: shares of the runs, means, and how far stated confidences hold.

    ``wrong`` are answers of any kind, ``…_of_mixed`` is of the runs that saw a release both pass
    and fail, and a ``…_margin`` is not negative where the answers are right as often as they say.
    """
    ours = summarise(runs)
    mixed = [run.wrong and run.answer.status is Status.FOUND for run in runs if _is_mixed(run)]
    return {
        "wrong": ours.wrong / ours.runs,
        "exact_wrong": ours.exact_wrong / ours.runs,
        "exact_wrong_of_mixed": sum(mixed) / max(1, len(mixed)),
        "exact_right": ours.exact_right / ours.runs,
        "none": ours.none / ours.runs,
        "boots": ours.boots_mean,
        "requests": ours.requests_mean,
        "minutes": ours.virtual_s_mean / 60,
        "stated_margin": margin(exact_answers(runs)),
        "suspects_margin": margin(suspect_answers(runs)),
    }


def bin_line(name: str, held: Bin) -> Line:
    """That the answers of a bin are right as often as they say."""
    return Line(name, held, (Check("upper", held.interval[1], ">=", held.stated),))


def as_json(line: Line) -> dict[str, object]:
    """The figures of a line, rounded."""
    checks = {
        check.figure: _rounded([*check._asdict().items(), ("ok", check.ok)])
        for check in line.checks
    }
    return (asdict(line.measured, dict_factory=_rounded) if line.measured else {}) | {
        "checks": checks
    }


def _rounded(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {name: round(each, 4) if isinstance(each, float) else each for name, each in items}


def _is_mixed(run: Run) -> bool:
    """Whether any release was seen both passing and failing, over all its boots."""
    passed = {trial.index for trial in run.trials if trial.boot.passes}
    return any(trial.boot.fails and trial.index in passed for trial in run.trials)


PICK_TIMES = ((LARGE, 5, 10.0), (100_000, 1, 1000.0))
"""Candidates, runs of each kind, and the milliseconds that a pick may take."""


def pick_times(count: int, runs: int, bound_ms: float) -> Iterator[Line]:
    """How long it takes to decide what is next, in milliseconds."""
    for kind, draw in (("steady", steady(count)), ("flaky", flaky(count, 0.3, 0.02))):
        taken: list[float] = []
        for world in draw_truths(draw, runs):
            simulate(world, Timed(count, world.confidence, taken))
        mean, slowest = 1000 * fmean(taken), 1000 * max(taken)
        checks = Check("mean ms", mean, "<", bound_ms), Check("slowest ms", slowest)
        yield Line(f"{count}: one pick, {kind}", None, checks)


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
