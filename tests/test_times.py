"""What fetching, booting and asking take is learnt from trials that took place here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made import passed, releases, settings, skipped
from test_earlier import write_run
from vbisect.probes import NChoicesSettings
from vbisect.releases import Device
from vbisect.run.records import Build, Seconds, Tally, TrialRecord
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState
from vbisect.run.times import Times, learn

RECORDED = Path(__file__).parents[1] / "results" / "20261122-183104-0.27.1-0.32.0"
MANY = tuple(f"1.{number}" for number in range(30))


def timed(
    version: str,
    fetch: float = 0.0,
    boot: float = 100.0,
    request: float = 1.0,
    first: float = 0.0,
    **changed: Any,
) -> TrialRecord:
    """A pass of 18 requests, the first of which took ``first`` seconds longer."""
    seconds = Seconds(fetch=fetch, boot=boot, probe=18 * request + first)
    build = Build(kind="venv", ref="~/e", digest="sha256:aa")
    told = {"build": build, "seconds": seconds, "measured": {"latency_median": request}}
    return passed(version).model_copy(update=told | changed)


def learnt(results: Path, *own: TrialRecord, **changed: Any) -> Times:
    """What a run with these trials of its own has learnt."""
    made = settings(run_id="own", candidates=releases(MANY), **changed)
    return learn(results, made, RunState(made, records={r.version: r for r in own}))


def write(results: Path, name: str, *records: TrialRecord, **changed: Any) -> Path:
    """The directory of an earlier run with these trials."""
    return write_run(results, name, records, candidates=releases(MANY), **changed)


@pytest.mark.parametrize(
    ("runtime", "device", "fetch"),
    [
        ("docker", Device.CUDA, 480),
        ("docker", Device.CPU, 90),
        ("venv", Device.CUDA, 180),
        ("venv", Device.CPU, 60),
        ("to come", Device.CPU, 180),
    ],
)
def test_what_is_reckoned_with_before_anything_is_known(
    tmp_path: Path, runtime: str, device: Device, fetch: float
) -> None:
    """The figures of a declared world; less to fetch where there is less to fetch."""
    assert learnt(tmp_path / "none", runtime=runtime, device=device) == Times(fetch, 150, 2)


def test_an_observation_of_several_requests_takes_as_long_as_all_of_them(tmp_path: Path) -> None:
    """Three values of n, a second each: a trial is as long as its whole observations."""
    own = timed("1.0", request=3.0, measured={"latency_median": 1.0, "observation_median": 3.0})
    asked = NChoicesSettings(n=(1, 2, 4))
    assert learnt(tmp_path, own, n_choices=asked).request == 3.0
    assert learnt(tmp_path, n_choices=asked).request == 6, "two seconds each, unless known better"


@pytest.mark.parametrize(("wrote", "asks"), [("there", "here"), (None, "here"), (None, None)])
def test_another_host_tells_nothing(tmp_path: Path, wrote: str | None, asks: str | None) -> None:
    """Nor does a run that does not say where it was, as those that are sent about."""
    write(tmp_path, "a", timed("1.0", boot=7.0), host=wrote)
    assert learnt(tmp_path, host=asks).boot == 150
    write(tmp_path, "b", timed("1.0", boot=9.0))
    assert learnt(tmp_path, host="here").boot == 9


def test_the_median_of_what_was_measured(tmp_path: Path) -> None:
    """One odd trial moves nothing; each of the three is learnt by itself."""
    times = learnt(
        tmp_path,
        timed("1.0", fetch=50, boot=80, request=0.5),
        timed("1.1", fetch=0.4, boot=90, request=0.6),
        timed("1.2", fetch=4000, boot=9000, request=60),
    )
    assert (times.boot, times.request) == (90, pytest.approx(0.6))
    assert times.fetch == (50 + 4000) / 2, "0.4 s is no fetching"


def test_what_tells_nothing_is_left_out(tmp_path: Path) -> None:
    """A build that never came, a server that never got ready, a trial carried out elsewhere."""
    usual = Times(60, 150, 2)
    never = skipped("1.0", "s").model_copy(update={"seconds": Seconds(fetch=300, boot=0)})
    unready = timed("1.1", boot=600, observations=Tally())
    elsewhere = timed("1.2", fetch=30, earlier_run="original")
    assert learnt(tmp_path, never, unready, elsewhere) == usual
    write(tmp_path, "a", never, unready, elsewhere)
    times = learnt(tmp_path)
    assert (times.fetch, times.boot, times.request) == (60, 150, 2)
    unready_fetched = timed("1.1", fetch=20, boot=600, observations=Tally())
    assert learnt(tmp_path, unready_fetched).fetch == 20


def test_earlier_runs_fill_up_what_this_one_does_not_know(tmp_path: Path) -> None:
    """The fewer trials a run has, the more earlier ones count; with nine none does."""
    write(tmp_path, "a", *(timed(version, boot=200) for version in MANY))
    assert learnt(tmp_path).boot == 200
    own = [timed(version, boot=20) for version in MANY]
    assert [learnt(tmp_path, *own[:count]).boot for count in (4, 5, 9)] == [200, 20, 20]
    assert learnt(tmp_path, *own[:5]) == learnt(tmp_path).after(
        RunState(settings(), records={record.version: record for record in own[:5]})
    )


def test_of_earlier_trials_the_latest_count(tmp_path: Path) -> None:
    """The last of a run, and no more runs than it takes."""
    write(tmp_path, "a", *(timed(v, fetch=9, boot=10 + i) for i, v in enumerate(MANY)))
    assert learnt(tmp_path).boot == 35, "the median of the last nine, 31 to 39"
    os.utime(tmp_path / "a" / "journal.jsonl", (1e9, 1e9))
    write(tmp_path, "b", timed("1.0", fetch=9, boot=500))
    assert learnt(tmp_path).boot == 36, "one more counts, and one less of the older ones"


def test_observations_of_an_interrupted_boot_take_no_time_here(tmp_path: Path) -> None:
    """They are counted in the trial that went on, though not in its seconds."""
    record = timed("1.0", boot=90, request=0.5).model_copy(
        update={"seconds": Seconds(boot=90, probe=1)}
    )
    assert learnt(tmp_path, record) == Times(60, 90, 0.5)


def test_only_runs_alike_are_learnt_from(tmp_path: Path) -> None:
    """Of the same runtime, device and model; not this run itself, nor a damaged one."""
    others = {"model": {"model": "m"}, "device": {"device": Device.CUDA}}
    others |= {"runtime": {"runtime": "docker"}, "own": {}}
    for name, changed in others.items():
        write(tmp_path, name, timed("1.0", boot=7), **changed)
    damaged = write(tmp_path, "damaged", timed("1.0", boot=7)) / "journal.jsonl"
    damaged.write_bytes(b"{\n" + damaged.read_bytes())
    assert learnt(tmp_path).boot == 150
    write(tmp_path, "alike", timed("1.0", boot=7), confidence=0.5)
    assert learnt(tmp_path).boot == 7
    assert learnt(tmp_path, model="m").boot == 7


def test_what_is_there_costs_no_fetching() -> None:
    """One number for each candidate, in their order."""
    arrived = {MANY[1]: 1.0, MANY[2]: 0.75, "9.9": 1.0}
    costs = Times(480, 150, 2).costs(releases(MANY[:3]), arrived)
    assert (list(costs.fetch), costs.boot, costs.request) == ([480, 0, 120], 150, 2)
    assert list(Times(4.9, 150, 2).costs(releases(MANY[:3]), arrived).fetch) == [0, 0, 0]


Seconds_ = st.floats(0, 1000).map(lambda seconds: round(seconds, 3))


@given(boot=Seconds_.filter(bool), request=Seconds_, first=Seconds_)
def test_a_trial_costs_what_it_took(boot: float, request: float, first: float) -> None:
    """However the first request's slowness is counted, the sum is the time that was spent."""
    nowhere = Path("/nowhere")
    record = timed("1.0", boot=boot, request=request, first=first)
    times = learnt(nowhere, record)
    spent = record.seconds.boot + record.seconds.probe
    assert times.boot + 18 * times.request == pytest.approx(spent, abs=0.02)
    assert times.request == pytest.approx(request, abs=0.001)
    assert times.request > 0, "it is divided by"
    told_less = learnt(nowhere, record.model_copy(update={"measured": {}}))
    assert told_less.request == pytest.approx(record.seconds.probe / 18, abs=0.001)
    assert told_less.boot + 18 * told_less.request == pytest.approx(spent, abs=0.02)


@given(st.lists(Seconds_, min_size=1, max_size=30), st.lists(Seconds_, max_size=30))
def test_a_time_lies_within_what_was_measured(own: list[float], later: list[float]) -> None:
    """Whatever was measured, nothing takes no time at all, or more than was ever seen."""
    nowhere = Path("/nowhere")
    before = learnt(nowhere, *(timed(v, boot=s) for v, s in zip(MANY, own, strict=False)))
    assert before.boot == 150 or min(own) - 1e-6 <= before.boot <= max(own) + 1e-6
    assert before.boot > 0
    made = RunState(
        settings(), records={v: timed(v, boot=s) for v, s in zip(MANY, later, strict=False)}
    )
    assert before.after(made).boot > 0


def test_the_recorded_run_of_real_servers(tmp_path: Path) -> None:
    """A small model's first answer takes seconds there, every further one a tenth of a second."""
    shutil.copytree(RECORDED, tmp_path / RECORDED.name)  # beside it may lie runs of another host
    recorded = RunSettings.read(RECORDED)
    made = recorded.model_copy(update={"run_id": "own", "host": "here"})
    assert learn(tmp_path, made, RunState(made)).earlier == (), "it is from elsewhere"
    recorded.model_copy(update={"host": "here"}).write(tmp_path / RECORDED.name)
    times = learn(tmp_path, made, RunState(made))
    assert 0.05 < times.request < 0.2
    assert 50 < times.boot < 150
