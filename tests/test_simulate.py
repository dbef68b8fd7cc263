"""Simulated runs: the declared world is what is met, virtual time adds up, confidences hold."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.calibration import calibrate, wilson
from bench.search_worlds import broken_in_a_row, draw_truths, flaky, steady
from vbisect.cli import app
from vbisect.search import CRASHED, Boot, Change, Costs, Counts, Outcome, Seen
from vbisect.shell import run_app
from vbisect.simulate import (
    STRATEGIES,
    Answer,
    DeclaredChange,
    Run,
    Status,
    Trial,
    World,
    is_wrong,
    simulate,
    strategies,
    summarise,
)
from vbisect.simulate.strategies import Judge

P, F, S = Outcome.PASS, Outcome.FAIL, Outcome.SKIP
DESIGN_EXAMPLE = """
{"candidates": 51, "change": {"kind": "fix", "at": 23}, "fail_rate": 1.0, "false_fail_rate": 0.0,
 "untestable": [[10, 14]], "cached": [3, 4], "fetch_s": 480, "boot_s": 150, "request_s": 2,
 "jobs": 1, "seed": 7}
"""
FIGURES = {
    *("runs", "wrong", "inconclusive", "boots_mean", "requests_mean"),
    *("virtual_s_mean", "virtual_s_p95", "exact_right", "exact_wrong", "stated_mean"),
    *("suspects_right", "suspects_wrong", "none", "none_wrong"),
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no candidates": ({"candidates": None}, "candidates: Input should be a valid integer"),
    "one candidate": ({"candidates": 1}, "candidates: Input should be greater than or equal to 2"),
    "candidates as text": ({"candidates": "51"}, "candidates: Input should be a valid integer"),
    "unknown key": ({"banana": 1}, "'banana': there is no such key"),
    "unknown key of the change": (
        {"change": {"kind": "fix", "at": 2, "by": 1}},
        "'change.by': there is no such key",
    ),
    "at zero": ({"change": {"kind": "fix", "at": 0}}, "change.at is 0, and the first candidate"),
    "at beyond": ({"change": {"kind": "fix", "at": 10}}, "is one of 1 to 9"),
    "again too early": (
        {"change": {"kind": "fix", "at": 2, "again": [2]}},
        "again 2 is not one of",
    ),
    "again beyond": (
        {"change": {"kind": "fix", "at": 2, "again": [5, 10]}},
        "is not one of 6 to 9",
    ),
    "kind": ({"change": {"kind": "mend", "at": 2}}, "change.kind: Input should be 'fix' or"),
    "rate": ({"fail_rate": 1.5}, "fail_rate: Input should be less than or equal to 1"),
    "rates alike": ({"fail_rate": 0.2, "false_fail_rate": 0.2}, "0.2 is not below fail_rate 0.2"),
    "untestable backwards": ({"untestable": [[4, 3]]}, "untestable [4, 3] is not a first"),
    "untestable beyond": ({"untestable": [[8, 10]]}, "untestable [8, 10] is not a first"),
    "untestable of three": ({"untestable": [[1, 2, 3]]}, "untestable.0: "),
    "cached beyond": ({"cached": [10]}, "cached 10 is not an index out of 0 to 9"),
    "alike at the change": (
        {"false_fail_rate": 0.2, "rate_at_change": 0.2},
        "0.2 is not below rate_at_change 0.2",
    ),
    "boots alike": (
        {"sticky": 0.3, "false_sticky": 0.3},
        "false_sticky 0.3 is not below sticky 0.3, so that nothing changes",
    ),
    "the good one sticks more": ({"sticky": 0.5, "false_sticky": 0.6}, "0.6 is not below sticky"),
    "share of boots": ({"sticky": 1.1}, "sticky: Input should be less than or equal to 1"),
    "share of good boots": ({"false_sticky": -0.1}, "false_sticky: Input should be greater than"),
    "crashes": ({"crash_rate": 2}, "crash_rate: Input should be less than or equal to 1"),
    "skips": ({"skip_rate": "0.1"}, "skip_rate: Input should be a valid number"),
    "others": ({"other_rate": -1}, "other_rate: Input should be greater than or equal to 0"),
    "certain": ({"confidence": 1}, "confidence: Input should be less than 1"),
    "hardly sure": (
        {"confidence": 0.4},
        "confidence: Input should be greater than or equal to 0.5",
    ),
    "negative time": ({"boot_s": -1}, "boot_s: Input should be greater than or equal to 0"),
    "beyond all clocks": ({"boot_s": 1e18}, "boot_s: Input should be less than or equal to 1000"),
    "endless time": ({"fetch_s": math.inf}, "fetch_s: Input should be a finite number"),
    "no jobs": ({"jobs": 0}, "jobs: Input should be greater than or equal to 1"),
}
WRONG_OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "sweep of another": (("--strategy", "linear", "--sweep"), "are for --strategy vbisect"),
    "hint beyond": (("--hint", "99"), "--hint 99: it is not one of 0 to "),
    "strategy": (("--strategy", "guess"), "--strategy guess: choose one of vbisect, linear,"),
    "confidence": (("--confidence", "1"), "--confidence 1: it must be at least 0.5 and below 1"),
    "repeat": (("--repeat", "0"), "--repeat 0: it must be from 1 to 1000000"),
}


def world(candidates: int, at: int | None, kind: str = "fix", **rest: Any) -> World:
    """A world in few words."""
    change = None if at is None else DeclaredChange(kind=Change(kind), at=at)
    return World(candidates=candidates, change=change, **rest)


def run(strategy: str, searched: World, number: int = 0) -> Run:
    """One run at the usual confidence."""
    return simulate(searched, STRATEGIES[strategy](searched.candidates, 0.95), number)


def order(done: Run) -> list[tuple[int, Outcome | None]]:
    """The trials as they ended."""
    return [(trial.index, trial.outcome) for trial in done.trials]


@dataclass
class Vbisect:
    """`vbisect simulate` with its own handling of errors."""

    path: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, text: str | bytes, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr for a world of this text."""
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)
        self.monkeypatch.setattr(sys, "argv", ["vbisect", "simulate", str(self.path), *words])
        code = run_app(app)
        said = self.capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def vbisect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Vbisect:
    """The command over a world of this test."""
    return Vbisect(tmp_path / "world.json", monkeypatch, capsys)


def test_the_documented_world_has_the_documented_figures(tmp_path: Path) -> None:
    path = tmp_path / "world.json"
    path.write_text(DESIGN_EXAMPLE)
    command = [sys.executable, "-m", "vbisect", "simulate", str(path), "--repeat", "20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert set(figures) == FIGURES
    assert (figures["runs"], figures["wrong"], figures["inconclusive"]) == (20, 0, 0)
    # two ends, at least what 50 places need, and both sides again
    assert 2 + 5 + 2 <= figures["boots_mean"] <= 2 + 6 + 4
    assert done.stderr == ""


def test_the_documented_world_is_the_default_one() -> None:
    """What the example spells out is what a world without these keys has."""
    declared = json.loads(DESIGN_EXAMPLE)
    shortest = {key: declared[key] for key in ("candidates", "change")}
    spelt = {**declared, "untestable": [], "cached": []}
    spelt |= {"sticky": 1.0, "false_sticky": 0.0, "other_rate": 0.0, "crash_rate": 0.0}
    spelt |= {"skip_rate": 0.0, "rate_at_change": None, "confidence": 0.95}
    worlds = [World.model_validate_json(json.dumps(each)) for each in (shortest, spelt)]
    assert worlds[0] == worlds[1]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_world_is_one_line(vbisect: Vbisect, name: str) -> None:
    keys, said = WRONG[name]
    declared = {"candidates": 10, "change": {"kind": "fix", "at": 4}} | keys
    code, out, err = vbisect(json.dumps(declared))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"vbisect: {vbisect.path} is not a world: ")
    assert said in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Invalid JSON"),
        ("[]", "Input should be an object"),
        (b"\xff", "Invalid JSON"),
        ('{"candidates": 9, "change": null, "seed": 1, "seed": 2}', "'seed' is there twice"),
        (
            '{"candidates": 9, "change": {"kind": "fix", "at": 2, "at": 3}}',
            "the key 'at' is there twice",
        ),
    ],
)
def test_a_file_that_holds_no_world_is_one_line(
    vbisect: Vbisect, text: str | bytes, said: str
) -> None:
    code, out, err = vbisect(text)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize("missing", ["candidates", "change"])
def test_the_first_two_keys_are_needed(vbisect: Vbisect, missing: str) -> None:
    declared = {"candidates": 10, "change": None}
    del declared[missing]
    code, _, err = vbisect(json.dumps(declared))
    assert (code, err) == (2, f"vbisect: {vbisect.path} is not a world: {missing} is missing.\n")


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_a_wrong_option_is_one_line(vbisect: Vbisect, name: str) -> None:
    words, said = WRONG_OPTIONS[name]
    code, out, err = vbisect(DESIGN_EXAMPLE, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_missing_file_is_one_line(vbisect: Vbisect) -> None:
    vbisect.monkeypatch.setattr(sys, "argv", ["vbisect", "simulate", "/nowhere/world.json"])
    assert run_app(app) == 2
    said = vbisect.capsys.readouterr().err
    assert said == "vbisect: /nowhere/world.json cannot be read: No such file or directory.\n"


def test_one_run_shows_its_trials_and_its_answer(vbisect: Vbisect) -> None:
    text = json.dumps(
        {
            **{"candidates": 5, "change": {"kind": "break", "at": 2}, "cached": [0]},
            **{"fetch_s": 100, "boot_s": 10, "request_s": 1, "untestable": [[1, 1]]},
        }
    )
    code, out, err = vbisect(text, "--strategy", "linear")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "        11 s  version 0      pass       1 / 0",
        "       121 s  version 1      skip       0 / 0",
        "       232 s  version 2      fail       0 / 1",
        "answer: inconclusive: break in one of 1, 2",
        "runs:         1",
        "wrong:        0",
        "inconclusive: 1",
        "boots:        3.00 on average",
        "requests:     2.0 on average",
        "virtual time: 232 s on average, 232 s in 95 of 100 runs",
    ]


def test_many_runs_show_figures_only(vbisect: Vbisect) -> None:
    code, out, _ = vbisect(DESIGN_EXAMPLE, "--repeat", "2", "--strategy", "midpoint")
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == [
        *("runs", "wrong", "inconclusive", "boots", "requests", "virtual time")
    ]


def test_one_run_as_json_holds_its_trials_too(vbisect: Vbisect) -> None:
    _, out, _ = vbisect(DESIGN_EXAMPLE, "--json")
    told = json.loads(out)
    assert set(told) == FIGURES | {"answer", "trials"}
    assert (told["answer"]["last_before"], told["answer"]["first_after"]) == (22, 23)
    assert len(told["trials"]) == told["boots_mean"]


def test_repeated_runs_are_those_of_the_following_seeds(vbisect: Vbisect) -> None:
    """`--repeat N` is N runs whose seeds follow one another, and each seed gives one run."""
    declared = {"candidates": 20, "change": {"kind": "fix", "at": 7}, "fail_rate": 0.4}

    def requests(seed: int, repeat: int) -> float:
        text = json.dumps(declared | {"seed": seed})
        told = json.loads(vbisect(text, "--json", "--repeat", str(repeat))[1])
        return float(told["requests_mean"]) * repeat

    each = [requests(seed, 1) for seed in (3, 4, 5)]
    assert requests(3, 3) == pytest.approx(sum(each))
    assert len(set(each)) > 1
    assert requests(4, 1) == each[1]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_number_gives_one_run(strategy: str) -> None:
    searched = world(20, 7, fail_rate=0.4, false_fail_rate=0.1, jobs=2, seed=1)
    runs = [run(strategy, searched, number) for number in range(8)]
    assert runs == [run(strategy, searched, number) for number in range(8)]
    assert any(each != runs[0] for each in runs)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", Change)
def test_every_strategy_finds_every_steady_change(strategy: str, kind: str) -> None:
    for count in (2, 3, 7):
        for at in range(1, count):
            done = run(strategy, world(count, at, kind))
            named = (done.answer.change, done.answer.last_before, done.answer.first_after)
            assert (done.answer.status, *named) == (Status.FOUND, kind, at - 1, at)
            assert not done.wrong


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("false_fail_rate", [0.0, 1.0])
def test_every_strategy_says_that_nothing_changes(strategy: str, false_fail_rate: float) -> None:
    """All pass, or all fail."""
    done = run(strategy, world(9, None, false_fail_rate=false_fail_rate))
    assert (done.answer.status, done.wrong) == (Status.NONE, False)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_change_beside_what_cannot_be_tested_stays_open(strategy: str) -> None:
    for at in (3, 4, 5, 6):
        done = run(strategy, world(9, at, untestable=((3, 5),)))
        assert (done.answer.status, done.wrong) == (Status.INCONCLUSIVE, False)
        assert done.answer.suspects == (3, 4, 5, 6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_where_nothing_can_be_tested_nothing_is_said(strategy: str) -> None:
    done = run(strategy, world(4, 2, untestable=((0, 3),)))
    assert (done.answer, done.wrong) == (Answer(Status.INCONCLUSIVE), False)
    assert {outcome for _, outcome in order(done)} == {S}


@pytest.mark.parametrize("jobs", [1, 3, 8, 48])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999, 0.9995])
def test_however_many_jobs_and_however_sure_a_steady_change_is_found(
    confidence: float, jobs: int
) -> None:
    for candidates, at in ((3, 1), (51, 46)):
        change = DeclaredChange(kind=Change.FIX, at=at)
        world = World(candidates=candidates, change=change, jobs=jobs, confidence=confidence)
        answer = simulate(world, STRATEGIES["vbisect"](candidates, confidence)).answer
        assert (answer.exact, answer.first_after) == (True, at)
        assert answer.confidence is not None
        assert answer.confidence >= confidence


def test_steady_releases_that_no_single_change_explains_are_not_no_change() -> None:
    change = DeclaredChange(kind=Change.FIX, at=3, again=(4,))
    world = World(candidates=6, change=change, jobs=4)
    answer = simulate(world, STRATEGIES["vbisect"](6, 0.95)).answer
    assert (answer.status, answer.more) == (Status.INCONCLUSIVE, True)


def test_linear_goes_upwards_until_the_outcome_changes() -> None:
    done = run("linear", world(9, 4, untestable=((1, 1),)))
    assert order(done) == [(0, F), (1, S), (2, F), (3, F), (4, P)]
    assert done.requests == 4


def test_midpoint_takes_the_ends_then_halves() -> None:
    assert order(run("midpoint", world(9, 3))) == [(0, F), (8, P), (4, P), (2, F), (3, P)]


def test_midpoint_takes_the_nearest_in_place_of_a_skip() -> None:
    done = run("midpoint", world(9, 2, untestable=((0, 0), (3, 4))))
    assert order(done) == [(0, S), (1, F), (8, P), (4, S), (3, S), (5, P), (2, P)]
    assert (done.answer.status, done.answer.first_after) == (Status.FOUND, 2)


def test_midpoint_takes_a_single_request_for_a_verdict() -> None:
    """It is what flakes fool: the same world is no trouble without them."""
    flaking = [run("midpoint", world(30, 11, fail_rate=0.3), number) for number in range(50)]
    assert all(done.requests == done.boots for done in flaking)
    assert sum(done.wrong for done in flaking) > 25
    assert not run("midpoint", world(30, 11)).wrong


def test_vbisect_is_seldom_fooled() -> None:
    flaking = [run("vbisect", world(30, 11, fail_rate=0.3), number) for number in range(50)]
    assert sum(done.wrong for done in flaking) <= 5
    assert sum(done.answer.status is Status.FOUND for done in flaking) >= 40


def test_vbisect_unsure_names_what_holds_the_confidence() -> None:
    """One failure in five says too little of releases that passed five times: no answer yet."""
    passing = {index: (Counts(5, 0),) for index in (1, 2, 3, 4)}
    seen = Seen({0: F, 1: P, 2: P, 3: P, 4: P}, {0: (Counts(4, 1),), **passing})
    answer = STRATEGIES["vbisect"](5, 0.95).answer(seen)
    assert (answer.status, answer.change) == (Status.INCONCLUSIVE, None)
    assert answer.confidence is not None
    assert answer.confidence < 0.95
    assert set(answer.suspects) > {1}


def test_time_is_what_fetches_boots_and_requests_take() -> None:
    """One build is on disk; what cannot be tested is fetched and booted, and never asked."""
    costs: dict[str, Any] = {"fetch_s": 100, "boot_s": 10, "request_s": 1}
    done = run("linear", world(9, 4, cached=(2,), untestable=((1, 1),), **costs))
    ended = [trial.ended for trial in done.trials]
    assert ended == [111, 111 + 110, 221 + 11, 232 + 111, 343 + 111]
    assert done.virtual_s == 454
    assert (done.boots, done.requests) == (5, 4)


@dataclass
class Scripted:
    """Starts what `rounds` names for each number of ended trials; `useless` ends with the first.

    Likewise `following` names what may be fetched ahead.
    """

    rounds: Mapping[int, tuple[int, ...]]
    useless: frozenset[int] = frozenset()
    requests: int = 3
    following: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    fetches: list[list[float]] = field(default_factory=list)

    def is_over(self, seen: Seen) -> bool:
        return len(seen.outcomes) > max(self.rounds)

    def picks(self, seen: Seen, costs: Costs, free: int) -> tuple[int, ...]:
        self.fetches.append(list(costs.fetch))
        return self.rounds.get(len(seen.outcomes), ())

    def ahead(self, seen: Seen, costs: Costs, jobs: int) -> Iterator[int]:
        return iter(self.following.get(len(seen.outcomes), ()))

    def pointless(self, seen: Seen) -> frozenset[int]:
        return self.useless

    def judge(self, seen: Seen, index: int, costs: Costs) -> Judge:
        return lambda counts, other: F if counts.total + other == self.requests else None

    def answer(self, seen: Seen) -> Answer:
        return Answer(Status.NONE)


COSTS: dict[str, Any] = {"fetch_s": 100, "boot_s": 10, "request_s": 1}


def test_servers_run_side_by_side() -> None:
    """Four trials with two slots take as long as two, and as many boots as four."""
    script = Scripted({0: (0, 1), 2: (2, 3), 3: ()})
    done = simulate(world(4, None, jobs=2, **COSTS), script)
    assert (done.virtual_s, done.boots, done.requests) == (2 * 113, 4, 12)


def test_no_more_run_than_there_are_slots() -> None:
    script = Scripted({0: (0, 1, 2), 1: (3, 1), 2: ()})
    done = simulate(world(4, None, jobs=1, **COSTS), script)
    assert order(done)[:2] == [(0, F), (3, F)]
    assert done.virtual_s == 2 * 113


def test_a_cancelled_trial_frees_its_slot_at_once() -> None:
    """Candidate 0 is on disk; with its end 1 becomes pointless, and 2 takes the slot."""
    rounds = {0: (0, 1), 1: (2, 3), 2: (), 3: ()}
    worlds = world(4, None, cached=(0,), jobs=2, **COSTS)
    cancelling = simulate(worlds, Scripted({**rounds, 2: ()}, useless=frozenset({1})))
    patient = simulate(worlds, Scripted({**rounds, 2: (3,)}))
    assert order(cancelling) == [(0, F), (1, None), (2, F), (3, F)]
    assert cancelling.virtual_s == 13 + 113
    assert patient.virtual_s > cancelling.virtual_s
    # cancelled while it fetched: no boot, no request, and the fetch is lost
    assert (cancelling.boots, cancelling.requests) == (3, 9)


@pytest.mark.parametrize(
    ("fetch", "asked", "boots", "requests"),
    [(20, 3, 1, 3), (13, 3, 1, 3), (5, 3, 2, 3), (2, 3, 2, 4), (2, 9, 2, 16)],
)
def test_what_a_cancelled_trial_had_done_counts(
    fetch: float, asked: int, boots: int, requests: int
) -> None:
    """Candidate 1 is cancelled when 0 ends: at its fetch, at its boot, or between its requests."""
    costs: dict[str, Any] = {"fetch_s": fetch, "boot_s": 10, "request_s": 1}
    script = Scripted({0: (0, 1), 1: ()}, useless=frozenset({1}), requests=asked)
    done = simulate(world(2, None, cached=(0,), jobs=2, **costs), script)
    assert order(done) == [(0, F), (1, None)]
    assert (done.boots, done.requests) == (boots, requests)
    assert done.virtual_s == 10 + asked


def test_a_build_once_fetched_stays() -> None:
    script = Scripted({0: (0,), 1: (1,), 2: ()})
    simulate(world(2, None, cached=(1,), **COSTS), script)
    assert script.fetches == [[100, 0], [0, 0], [0, 0]]


@pytest.mark.parametrize(("fetch", "left"), [(5, 0), (13, 0), (20, 20)])
def test_a_cancelled_trial_leaves_what_it_has_fetched(fetch: float, left: float) -> None:
    """Cancelled after 13 seconds; a later trial of the same candidate has the build, or fetches."""
    costs: dict[str, Any] = {"fetch_s": fetch, "boot_s": 10, "request_s": 1}
    script = Scripted({0: (0, 1), 1: (1,), 2: ()}, useless=frozenset({1}))
    done = simulate(world(2, None, cached=(0,), jobs=2, **costs), script)
    assert script.fetches[1] == [0, left]
    assert done.virtual_s == 13 + left + 13


def test_a_build_is_fetched_ahead_while_a_server_boots_and_is_asked() -> None:
    """The line is free after 100 s: 13 s of the next fetch pass before the next trial begins."""
    script = Scripted({0: (0,), 1: (1,), 2: ()}, following={0: (1,)})
    done = simulate(world(2, None, **COSTS), script)
    assert script.fetches[1] == [0, 87]
    assert done.virtual_s == 113 + 87 + 13


def test_builds_are_fetched_ahead_one_after_the_other() -> None:
    """While the server of one that is on disk boots, the next two builds come, and no third."""
    costs: dict[str, Any] = {"fetch_s": 5, "boot_s": 10, "request_s": 1}
    following = {0: (3, 2, 1)}
    script = Scripted({0: (0,), 1: (2,), 2: ()}, following=following)
    done = simulate(world(4, None, cached=(0,), **costs), script)
    assert script.fetches[1] == [0, 2, 0, 0]
    assert done.virtual_s == 13 + 13


def test_what_is_no_longer_wanted_is_no_longer_fetched() -> None:
    """Build 2 is on its way when only build 3 may still come next: what came of it is lost."""
    rounds, following = {0: (0,), 1: (1,), 2: (2,), 3: ()}, {0: (2,), 1: (3,)}
    script = Scripted(rounds, following=following)
    done = simulate(world(4, None, cached=(0, 1), **COSTS), script)
    assert script.fetches[1] == [0, 0, 87, 100]
    assert script.fetches[2] == [0, 0, 100, 87]
    assert done.virtual_s == 13 + 13 + 113


def test_a_trial_that_needs_the_line_takes_it_from_what_is_fetched_ahead() -> None:
    rounds, following = {0: (0,), 1: (1,), 2: (2,), 3: ()}, {0: (2,), 1: (2,)}
    script = Scripted(rounds, following=following)
    done = simulate(world(3, None, cached=(0,), **COSTS), script)
    assert script.fetches[1:3] == [[0, 100, 87], [0, 0, 87]]
    assert done.virtual_s == 13 + 113 + (87 + 13)


def test_only_vbisect_fetches_ahead_and_it_saves_time_alone() -> None:
    """Both ends are known at once, so that fetching the newer one is never in vain."""
    searched = world(2, 1, fetch_s=100, boot_s=50, request_s=0)
    assert run("midpoint", searched).virtual_s == 2 * 150
    again = 2 * 50  # both ends are booted twice, and their builds are there
    ahead = run("vbisect", searched)
    assert ahead.virtual_s == 2 * 150 - 50 + again
    in_order = simulate(searched, strategies.Vbisect(2, 0.95, lookahead=0))
    assert (in_order.virtual_s, order(in_order)) == (2 * 150 + again, order(ahead))


def test_what_ends_together_is_seen_together() -> None:
    """Of two trials that end at one instant neither is cancelled for the other's sake."""
    script = Scripted({0: (0, 1), 2: (2,)}, useless=frozenset({1}))
    done = simulate(world(3, None, jobs=2, **COSTS), script)
    assert order(done) == [(0, F), (1, F), (2, F)]


def test_more_jobs_never_take_longer_and_are_no_less_right() -> None:
    means = []
    for jobs in (1, 2, 4):
        runs = [run("vbisect", each) for each in draw_truths(steady(51, jobs), 40)]
        assert not any(done.wrong for done in runs)
        means.append(summarise(runs).virtual_s_mean)
    assert means[0] > 1.4 * means[1] > 1.4 * 1.2 * means[2]


FIX_4 = Answer(Status.FOUND, Change.FIX, 3, 4, True, (4,), 0.96)
UNSURE = Answer(Status.INCONCLUSIVE, Change.FIX, 2, 5, False, (3, 4, 5))
TWICE = World(candidates=9, change=DeclaredChange(kind=Change.FIX, at=4, again=(7,)))


@pytest.mark.parametrize(
    ("answer", "declared", "wrong"),
    [
        (FIX_4, world(9, 4), False),
        (FIX_4, world(9, 5), True),
        (FIX_4, world(9, 4, "break"), True),
        (FIX_4, world(9, None), True),
        (FIX_4, world(9, 4, untestable=((0, 3),)), True),
        (Answer(Status.NONE), world(9, 4), True),
        (Answer(Status.NONE), world(9, None), False),
        (Answer(Status.NONE), world(9, 4, untestable=((0, 3),)), False),
        (Answer(Status.NONE), world(9, 4, untestable=((4, 8),)), False),
        (Answer(Status.NONE), TWICE, True),
        (FIX_4, TWICE, False),
        (Answer(Status.FOUND, Change.BREAK, 6, 7, True, (7,), 0.96), TWICE, False),
        (Answer(Status.FOUND, Change.FIX, 6, 7, True, (7,), 0.96), TWICE, True),
        (UNSURE, TWICE, False),
        (UNSURE, world(9, 3), False),
        (UNSURE, world(9, 5), False),
        (UNSURE, world(9, 6), True),
        (UNSURE, world(9, 2), True),
        (UNSURE, world(9, 4, "break"), True),
        (UNSURE, world(9, None), True),
        (Answer(Status.INCONCLUSIVE), world(9, 4), False),
        (Answer(Status.INCONCLUSIVE, suspects=(3, 4)), world(9, 4), False),
        (Answer(Status.INCONCLUSIVE, suspects=(3, 4)), world(9, None), False),
        (Answer(Status.INCONCLUSIVE, suspects=(3, 4)), world(9, 5), True),
    ],
)
def test_an_answer_is_held_against_the_truth(answer: Answer, declared: World, wrong: bool) -> None:
    assert is_wrong(answer, declared) is wrong


def ended(seconds: float, answer: Answer, wrong: bool, requests: int = 1) -> Run:
    """A run of one trial."""
    trial = Trial(0, 0, 0, seconds, F, Boot(0, {"the bug": requests}))
    return Run((trial,), answer, seconds, wrong)


def test_figures_of_many_runs() -> None:
    runs = [ended(seconds, FIX_4, False, requests=3) for seconds in range(1, 19)]
    runs += [ended(100, UNSURE, True), ended(19, UNSURE, False)]
    figures = summarise(runs)
    assert (figures.runs, figures.wrong, figures.inconclusive) == (20, 1, 1)
    assert (figures.boots_mean, figures.requests_mean) == (1, 56 / 20)
    assert figures.virtual_s_mean == (sum(range(1, 20)) + 100) / 20
    assert figures.virtual_s_p95 == 19  # nineteen of the twenty took no longer


@pytest.mark.parametrize(
    ("strategy", "keys"),
    [
        ("vbisect", {"sticky": 0.6, "false_sticky": 0.2}),
        ("vbisect", {"untestable": ((8, 13),), "fail_rate": 0.5}),
        ("midpoint", {"fail_rate": 0.4, "untestable": ((8, 13),)}),
        ("linear", {"sticky": 0.5, "crash_rate": 0.2, "skip_rate": 0.9}),
    ],
)
def test_the_figures_add_up(strategy: str, keys: dict[str, Any]) -> None:
    """Each run named one release, several, none or nothing at all, and was right or wrong."""
    runs = [run(strategy, world(16, 11, **keys), number) for number in range(15)]
    figures = summarise(runs)
    silent = sum(
        each.answer.status is Status.INCONCLUSIVE and not each.answer.suspects for each in runs
    )
    exact = figures.exact_right + figures.exact_wrong
    several = figures.suspects_right + figures.suspects_wrong
    assert figures.runs == exact + several + figures.none + silent == 15
    assert figures.wrong == figures.exact_wrong + figures.suspects_wrong + figures.none_wrong
    assert figures.inconclusive == figures.suspects_right + silent
    assert figures.none_wrong <= figures.none
    assert exact == sum(each.answer.exact for each in runs)
    stated = [
        each.answer.confidence
        for each in runs
        if each.answer.exact and each.answer.confidence is not None
    ]
    assert (figures.stated_mean is None) == (strategy != "vbisect" or not stated)
    if figures.stated_mean is not None:
        assert figures.stated_mean == pytest.approx(sum(stated) / len(stated))
        assert figures.stated_mean >= 0.95


def test_a_search_of_any_world_ends() -> None:
    """Whatever releases do, and however many servers run at once: an answer, or none at all."""
    dice = random.Random(41)
    for number in range(60):
        count = dice.choice((2, 3, 9, 17))
        at = dice.choice((None, dice.randrange(1, count)))
        first = dice.randrange(count)
        searched = world(
            count,
            at,
            dice.choice(tuple(Change)),
            untestable=((first, first),) if dice.random() < 0.3 else (),
            jobs=dice.choice((1, 1, 3)),
            fail_rate=dice.choice((1.0, 0.5)),
            sticky=dice.choice((1.0, 0.6)),
            false_sticky=dice.choice((0.0, 0.1)),
            other_rate=dice.choice((0.0, 0.3)),
            crash_rate=dice.choice((0.0, 0.4)),
            skip_rate=dice.choice((0.0, 0.5)),
        )
        mode = dice.choice((strategies.Mode(), strategies.Mode(sweep=True)))
        done = simulate(searched, strategies.Vbisect(count, 0.9, mode), number)
        for trial in done.trials:
            assert trial.index not in searched.skipped or trial.boot == Boot()
        if done.answer.status is Status.FOUND:
            assert done.answer.confidence is not None
            assert done.answer.confidence >= 0.9


def drawn(**more: Any) -> list[Trial]:
    """Of 300 bad and then 300 good releases one boot each, of up to three requests."""
    searched = world(600, 300, request_s=0, jobs=600, **more)
    return sorted(
        simulate(searched, Scripted({0: tuple(range(600))})).trials, key=lambda trial: trial.index
    )


def share(trials: list[Trial], is_so: Callable[[Trial], bool]) -> float:
    """How many of these are so."""
    return sum(map(is_so, trials)) / len(trials)


def bugs(trial: Trial) -> int:
    """The failures that are neither crashes nor unrelated."""
    return trial.boot.fails.get("the bug", 0)


def test_the_bug_shows_in_a_share_of_the_boots() -> None:
    """In all of the requests of such a boot, in none of the others; likewise in good releases."""
    trials = drawn(sticky=0.6, false_sticky=0.2)
    assert {(trial.boot.passes, bugs(trial)) for trial in trials} == {(3, 0), (0, 3)}
    assert share(trials[:300], lambda trial: bugs(trial) == 3) == pytest.approx(0.6, abs=0.1)
    assert share(trials[300:], lambda trial: bugs(trial) == 3) == pytest.approx(0.2, abs=0.1)
    # in a boot that does not show it a bad release is like a good one
    flaking = drawn(sticky=0.5, false_fail_rate=0.2)
    assert share(flaking[:300], lambda trial: bugs(trial) == 3) == pytest.approx(0.5, abs=0.1)
    hidden = [trial for trial in flaking[:300] if bugs(trial) < 3]
    assert sum(map(bugs, hidden)) / (3 * len(hidden)) == pytest.approx(0.2, abs=0.1)


def test_unrelated_failures_come_to_every_release() -> None:
    """They are of a kind of their own, and take the place of what a request would have shown."""
    trials = drawn(other_rate=0.3)
    others = [sum(trial.boot.fails.values()) - bugs(trial) for trial in trials]
    assert all(trial.requests == 3 for trial in trials)
    for some in (others[:300], others[300:]):
        assert sum(some) / 900 == pytest.approx(0.3, abs=0.1)
    assert all(bugs(trial) == 0 for trial in trials[300:])


def test_boots_crash_and_skip_by_chance() -> None:
    """A crash is one failed request of its kind; a skip has none. Both come to any release."""
    for some in (drawn(crash_rate=0.3)[:300], drawn(crash_rate=0.3)[300:]):
        crashed = [trial for trial in some if CRASHED in trial.boot.fails]
        assert len(crashed) / 300 == pytest.approx(0.3, abs=0.1)
        assert all(trial.boot == Boot(0, {CRASHED: 1}) for trial in crashed)
    for some in (drawn(skip_rate=0.3)[:300], drawn(skip_rate=0.3)[300:]):
        skipped = [trial for trial in some if trial.outcome is S]
        assert len(skipped) / 300 == pytest.approx(0.3, abs=0.1)
        assert all(trial.boot == Boot() for trial in skipped)


@pytest.mark.parametrize("kind", Change)
def test_the_rate_falls_evenly_to_the_change(kind: str) -> None:
    """The bug fades in or out: rarest beside the change, as declared at the far end."""
    searched = world(51, 21, kind, fail_rate=0.9, rate_at_change=0.3, false_fail_rate=0.1)
    bad = [index for index in range(51) if searched.is_bad(index)]
    nearest_first = bad[::-1] if kind == "fix" else bad
    rates = [searched.failure_rate(index) for index in nearest_first]
    assert (rates[0], rates[-1]) == pytest.approx((0.3, 0.9))
    steps = [after - before for before, after in pairwise(rates)]
    assert steps == pytest.approx([0.6 / (len(bad) - 1)] * (len(bad) - 1))
    good = set(range(51)) - set(bad)
    assert {searched.failure_rate(index) for index in good} == {0.1}
    flat = world(51, 21, kind, fail_rate=0.9)
    assert {flat.failure_rate(index) for index in bad} == {0.9}


def test_the_rate_falls_to_the_changes_on_both_sides() -> None:
    """Between two changes it is highest in the middle; a single bad release has the lowest."""
    again = DeclaredChange(kind=Change.BREAK, at=10, again=(21,))
    searched = World(candidates=40, change=again, fail_rate=0.8, rate_at_change=0.2)
    rates = [searched.failure_rate(index) for index in range(10, 21)]
    assert rates == pytest.approx(rates[::-1])
    assert (rates[0], max(rates), rates[5]) == pytest.approx((0.2, 0.8, 0.8))
    single = world(5, 1, fail_rate=0.8, rate_at_change=0.2)
    assert single.failure_rate(0) == pytest.approx(0.2)


def test_the_world_says_how_sure_an_answer_has_to_be(vbisect: Vbisect) -> None:
    """Unless the command line does."""
    declared = {"candidates": 20, "change": {"kind": "fix", "at": 7}}

    def boots(sure: float, *words: str) -> float:
        told = json.loads(
            vbisect(json.dumps(declared | {"confidence": sure}), "--json", "--repeat", "1", *words)[
                1
            ]
        )
        return float(told["boots_mean"])

    assert boots(0.6) < boots(0.95) < boots(0.995)
    assert boots(0.6, "--confidence", "0.995") == boots(0.995)


def test_a_calibration_sees_who_overstates() -> None:
    """Said with 0.96: fifty right of a hundred is a lie, ninety-six is not."""
    for right, holds in ((50, False), (90, False), (96, True), (100, True)):
        runs = [ended(1, FIX_4, wrong=number >= right) for number in range(100)]
        [found] = calibrate(runs)
        assert (found.low, found.answers, found.right, found.holds) == (0.95, 100, right, holds)


def test_only_answers_that_name_a_change_are_calibrated() -> None:
    runs = [ended(1, UNSURE, True), ended(1, Answer(Status.NONE), True)]
    assert calibrate(runs) == []


def test_the_interval_is_the_published_one() -> None:
    """81 of 263: Newcombe 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(10, 10)[1] == pytest.approx(1)


@pytest.mark.parametrize("false_fail_rate", [0.0, 0.02])
def test_stated_confidence_holds_where_servers_flake(false_fail_rate: float) -> None:
    """Wrong at most as often as was allowed, beyond what chance does in so few truths."""
    truths = draw_truths(flaky(51, 0.3, false_fail_rate), 60)
    runs = [run("vbisect", each) for each in truths]
    bins = calibrate(runs)
    assert sum(each.answers for each in bins) >= 45, "hardly ever sure"
    assert all(each.holds for each in bins), bins
    wrong = sum(done.wrong for done in runs)
    assert wilson(len(runs) - wrong, len(runs))[1] >= 0.95, wrong


@pytest.mark.parametrize(
    ("keys", "number"),
    [
        ({"sticky": 0.8}, 60),
        ({"false_sticky": 0.1}, 60),
        ({"crash_rate": 0.1, "other_rate": 0.05, "skip_rate": 0.05}, 60),
        ({"fail_rate": 0.9, "rate_at_change": 0.2}, 40),
    ],
    ids=["sticky", "false sticky", "other failures", "fading"],
)
def test_exact_answers_are_as_right_as_they_say(keys: dict[str, Any], number: int) -> None:
    """Also where the bug sticks to boots, or good boots fail, or other things do.

    Wrong at most as often as was allowed and as was stated, beyond what chance does in so few.
    """
    truths = [each.model_copy(update=keys) for each in draw_truths(steady(51), number)]
    figures = summarise([run("vbisect", each) for each in truths])
    exact = figures.exact_right + figures.exact_wrong
    assert exact >= 0.6 * number, "hardly ever sure"
    assert figures.stated_mean is not None
    right = wilson(figures.exact_right, exact)[1]
    assert right >= max(0.95, figures.stated_mean), figures
    assert figures.none_wrong <= 0.05 * number


def test_suspects_hold_the_change_as_often_as_they_are_said_to() -> None:
    """Where flaky releases surround a stretch that cannot be tested, often no single one can be."""
    broken = broken_in_a_row(20, 8)
    truths = [
        each.model_copy(update={"fail_rate": 0.5, "false_fail_rate": 0.1})
        for each in draw_truths(broken, 40)
    ]
    unsure = [
        done
        for done in (run("vbisect", each) for each in truths)
        if done.answer.status is Status.INCONCLUSIVE and done.answer.suspects
    ]
    stated = [done.answer.confidence or 0.0 for done in unsure]
    assert len(unsure) >= 15, "nearly always sure"
    assert sum(each >= 0.95 for each in stated) >= 10, stated
    right = sum(not done.wrong for done in unsure)
    assert wilson(right, len(unsure))[1] >= sum(stated) / len(stated), (right, stated)
