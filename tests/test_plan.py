"""What ``vbisect plan`` foretells is what a run does, wherever the change is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driving import CPU, Vbisect, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from test_picks import Searcher
from test_times import timed, write
from vbisect.run.forecast import Forecast, foresee
from vbisect.run.prior import prior_weights
from vbisect.run.rehearsal import Stage, rehearse
from vbisect.search import Aim, Change, Costs, Find, Outcome, Seen

P, F, S = Outcome.PASS, Outcome.FAIL, Outcome.SKIP
GIGABYTE = 1e9


def costs(count: int, fetch: float = 480.0, there: frozenset[int] = frozenset()) -> Costs:
    """Every build takes as long to fetch, but for those that are ``there``."""
    return Costs([0.0 if i in there else fetch for i in range(count)], 150, 2)


@st.composite
def stages(draw: st.DrawFn, jobs: int | None = None, fetch: float = 480.0) -> Stage:
    """Any run of up to 16 candidates: left out, missing, on disk, hinted at, of any mode."""
    count = draw(st.integers(2, 16))
    indices = st.frozensets(st.integers(0, count - 1))
    mode = draw(st.sampled_from([{}, {"sweep": True}, {"find_all": True}]))
    find = draw(st.sampled_from(list(Find)))
    weights = draw(st.none() | st.lists(st.floats(0.5, 20), min_size=count, max_size=count))
    excluded = draw(indices)
    return Stage(
        Aim(count, find=find, weights=tuple(weights) if weights else None, **mode),
        costs(count, fetch, draw(indices)),
        excluded,
        draw(indices) - excluded,
        jobs or draw(st.integers(1, 4)),
    )


def foreseen(stage: Stage) -> Forecast:
    """The forecast where every build is a gigabyte."""
    return foresee(stage, lambda booted: len(booted) * GIGABYTE)


def actual_world(stage: Stage, at: int, change: Change) -> list[Outcome]:
    """What each candidate comes to when the change came with ``at``."""
    old, new = (F, P) if change is Change.FIX else (P, F)
    worlds = [old if index < at else new for index in range(stage.aim.count)]
    return [S if i in stage.excluded | stage.missing else o for i, o in enumerate(worlds)]


def boots(stage: Stage, searched: list[Outcome], order: int) -> int:
    """Servers that a search starts when its trials end in a random order."""
    return len(searched_by(stage, searched, order))


def searched_by(stage: Stage, searched: list[Outcome], order: int) -> list[int]:
    """The candidates of which a search starts servers, one again for each further boot."""
    start = Seen(dict.fromkeys(stage.excluded, S), cheap_skips=stage.excluded | stage.missing)
    searcher = Searcher(stage.aim, searched, stage.jobs, stage.costs, seen=start)
    searcher.run(random.Random(order))
    return [index for index in searcher.begun if index not in stage.missing]


@settings(max_examples=25, derandomize=True)  # what is foretold is drawn, so not proven
@given(stages(), st.data())
def test_no_run_takes_more_boots_than_foretold(stage: Stage, data: st.DataObject) -> None:
    """Wherever the change is, in whatever order trials end; nor more builds than there are."""
    at = data.draw(st.integers(1, stage.aim.count - 1))
    change = data.draw(st.sampled_from(list(Change)))
    took = searched_by(stage, actual_world(stage, at, change), data.draw(st.integers(0, 99)))
    told = foreseen(stage)
    assert len(took) <= told.boots_most
    assert round(told.boots_mean, 6) <= told.boots_most
    assert round(told.seconds_mean, 6) <= told.seconds_most
    builds = min(told.boots_most, len(stage.testable))
    assert len(set(took)) * GIGABYTE <= told.bytes_most <= builds * GIGABYTE
    assert told.vain_mean <= told.vain_most <= told.bytes_most / 2
    assert told.vain_most == (0 if stage.aim.sweep else told.bytes_most / 2)


@settings(max_examples=25)
@given(stages(jobs=1, fetch=0.0))
def test_one_server_and_nothing_to_fetch_is_foretold_exactly(stage: Stage) -> None:
    """Then nothing is left to chance: some place of the change takes as many boots as said."""
    stage = replace(stage, aim=replace(stage.aim, find_all=False))
    took = [
        boots(stage, actual_world(stage, at, change), 0)
        for at in range(1, stage.aim.count)
        for change in Change
    ]
    nothing_changes = [
        boots(stage, [S if o is S else side for o in actual_world(stage, 1, Change.FIX)], 0)
        for side in (P, F)
    ]
    sides = {index: (P, F)[place % 2] for place, index in enumerate(stage.testable)}
    with_each = boots(stage, [sides.get(index, S) for index in range(stage.aim.count)], 0)
    assert max([*took, *nothing_changes, with_each]) == foreseen(stage).boots_most


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_to_test(count: int) -> None:
    """What was never published costs nothing, a single release a boot."""
    stage = Stage(Aim(5), costs(5), missing=frozenset(range(5 - count)))
    told = foreseen(stage)
    assert (told.boots_most, told.boots_mean) == (count, count)


@pytest.mark.parametrize("jobs", [1, 2])
def test_two_candidates_with_a_hint(jobs: int) -> None:
    """The ends are all there is; each is booted twice, also while a server is idle."""
    aim = Aim(2, weights=prior_weights(("0.28.0", "0.29.0"), "0.29.0"))
    told = foreseen(Stage(aim, costs(2), jobs=jobs))
    assert (told.boots_most, told.boots_mean) == (4 + 1, 4), "one more for what was not drawn"
    assert told.bytes_most == told.bytes_mean == 2 * GIGABYTE


def test_releases_left_out_are_still_searched_around() -> None:
    """A stretch of missing releases is found out without a boot, and counted so."""
    stage = Stage(Aim(51), costs(51, 0.0), missing=frozenset(range(10, 40)))
    told, without = foreseen(stage), foreseen(Stage(Aim(51), costs(51, 0.0)))
    assert told.boots_most <= without.boots_most
    assert told.boots_mean < without.boots_mean
    assert told.boots_most == max(
        boots(stage, actual_world(stage, at, Change.FIX), 0) for at in range(1, 51)
    )


def test_a_sweep_tests_everything_and_several_at_once_are_sooner() -> None:
    """The same builds in a fraction of the time, and the sides of the change booted again."""
    alone = foreseen(Stage(Aim(12, sweep=True), costs(12, 20)))
    together = foreseen(Stage(Aim(12, sweep=True), costs(12, 20), jobs=4))
    assert alone.boots_mean == 12 + 2
    assert alone.boots_mean <= together.boots_mean < 12 + 3
    for told in (alone, together):
        assert told.bytes_most == told.bytes_mean == 12 * GIGABYTE
    assert alone.seconds_mean > 3 * together.seconds_mean


def test_servers_at_once_share_a_network() -> None:
    """However many there are, all builds come through it."""
    for jobs in (2, 12):
        told = foreseen(Stage(Aim(12, sweep=True), costs(12), jobs=jobs))
        assert told.seconds_mean > 12 * 480 + 150


def test_the_time_adds_up() -> None:
    """Two releases: fetched once, booted twice each, and asked five times in each boot."""
    stage = Stage(Aim(2), costs(2, 100, frozenset({1})))
    taken = rehearse(stage, {0: F, 1: P})
    assert (taken.booted, taken.boots) == ((0, 1), 4)
    assert taken.seconds == 100 + 4 * (150 + 5 * 2)


def test_builds_on_disk_are_preferred_and_save_time() -> None:
    """What is there is tested first of near-equals."""
    nothing, much = (
        foreseen(Stage(Aim(20), costs(20, there=frozenset(there))))
        for there in ((), range(0, 20, 2))
    )
    assert much.seconds_mean < nothing.seconds_mean


MADE = {f"60.{n}": Behaviour(fail_rate={"chat": 1.0}) if n < 4 else Behaviour() for n in range(7)}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Seven releases, fixed in the fifth."""
    with PackageIndex(world(tmp_path_factory.mktemp("planned"), MADE)) as served:
        yield served


def test_a_plan_and_its_run(
    command: Callable[..., Vbisect], index: PackageIndex, tmp_path: Path
) -> None:
    """The whole command foretells at least what the whole run takes, and starts nothing itself."""
    vbisect = command(index)
    asked = ("--from", "60.0", "--to", "60.6", "--skip", "60.2", "--confidence", "0.6")
    done = vbisect("plan", *CPU, *asked, "--json", "--results", vbisect.results)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["testable"], plan["missing"], plan["there"]) == (6, [], [])
    assert (plan["fetch"], plan["boot"], plan["learnt_from"]) == (60, 150, 0)
    assert not list(vbisect.results.iterdir())
    ran = vbisect.run(*asked)
    assert ran.json["answer"]["first_after"] == "60.4"
    assert 2 <= len(ran.trials) <= plan["boots_worst"]
    words = vbisect("plan", *CPU, *asked, "--results", vbisect.results).stdout
    assert "candidates: 7, 60.0 to 60.6, 1 left out" in words
    tested = sorted(ran.trials)
    assert f"tested:     {', '.join(tested)} by earlier runs" in words
    assert (
        "tested:"
        not in vbisect("plan", *CPU, *asked, "--fresh", "--results", vbisect.results).stdout
    )
    assert f"as {len(ran.trials)} earlier trials took here" in words


def test_a_plan_reckons_with_this_hosts_times(
    command: Callable[..., Vbisect], index: PackageIndex
) -> None:
    """As learnt from earlier runs of the same model, runtime and device."""
    vbisect = command(index)
    vbisect.cache.mkdir(parents=True, exist_ok=True)
    (vbisect.cache / "host").write_text("this-host")
    elsewhere = timed("1.0", fetch=7, boot=7, request=7)
    write(vbisect.results, "sent", elsewhere, elsewhere, host="another-host")
    write(vbisect.results, "before", timed("1.0", fetch=30, boot=1000, request=3), host="this-host")
    asked = ("--from", "60.0", "--to", "60.1", "--json", "--results", vbisect.results)
    plan = json.loads(vbisect("plan", *CPU, *asked).stdout)
    assert (plan["fetch"], plan["boot"], plan["request"]) == (30, 1000, 3)
    assert plan["learnt_from"] == 1
    # a passing end is asked 14 times where it is asked first
    boots = 2 * 30 + 4 * 1000
    assert boots + 4 * 5 * 3 <= plan["seconds_mean"] <= boots + (3 * 5 + 14) * 3
