"""Several servers at once: the same answers, sooner, and nothing left behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import Done, Vbisect, counts, events, wait, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex

BAD = Behaviour(
    fail_rate={"chat": 1.0}, boot_seconds=0.5, spawn_engine=True, engine_own_session=True
)
GOOD = Behaviour(boot_seconds=0.5, spawn_engine=True, engine_own_session=True)
CRASH = Behaviour(fault="crash_on_request", fault_exit=3)
# Fixed in 90.4. 91.2 hangs: it is given up once a later release is known to fail.
FIXED = {f"90.{i}": BAD if i < 4 else GOOD for i in range(7)}
HANGING = {f"91.{i}": BAD if i < 4 else GOOD for i in range(7)} | {"91.2": Behaviour(fault="hang")}
# The second release crashes sooner than the lower end shows the bug.
CRASHING = {"92.0": BAD, "92.1": CRASH, "92.2": GOOD, "92.3": GOOD}
QUICK = ("--n", "4", "--confidence", "0.6")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases."""
    releases = FIXED | HANGING | CRASHING
    with PackageIndex(world(tmp_path_factory.mktemp("jobs"), releases)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("jobs-cache")


@pytest.fixture
def vbisect(command: Callable[..., Vbisect], index: PackageIndex, cache: Path) -> Vbisect:
    """The command over them."""
    return command(index, cache)


def right(done: Done, last_before: str, first_after: str) -> None:
    """It found just this boundary."""
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["change"], answer["exact"]) == ("fix", True)
    assert (answer["last_before"], answer["first_after"]) == (last_before, first_after)


def at_once(run_dir: Path) -> int:
    """The most trials that were under way at one time."""
    under_way, most = set[str](), 0
    for event in events(run_dir):
        if event["event"] == "trial_started":
            under_way.add(event["version"])
        elif event["event"] == "trial_finished":
            under_way.discard(event["record"]["version"])
        elif event["event"] == "trial_given_up":
            under_way.discard(event["version"])
        most = max(most, len(under_way))
    return most


def started(run_dir: Path) -> list[str]:
    """The versions in the order their trials began."""
    return [e["version"] for e in events(run_dir) if e["event"] == "trial_started"]


@pytest.mark.parametrize("jobs", [1, 2, 3, 8])
def test_any_number_at_once_finds_the_same(vbisect: Vbisect, jobs: int) -> None:
    done = vbisect.run("--from", "90.0", "--to", "90.6", *QUICK, "--jobs", str(jobs))
    right(done, "90.3", "90.4")
    assert at_once(done.run_dir) == min(jobs, 7)
    if jobs > 1:
        # trials that begin at the same moment say so in any order
        assert {"90.0", "90.6"} <= set(started(done.run_dir)[:jobs])
    for version, trial in done.trials.items():
        assert trial["outcome"] == ("fail" if version < "90.4" else "pass")
    assert max(counts(done.run_dir, "trial_started").values()) == 1
    assert vbisect.left() == []


def test_what_can_no_longer_matter_is_given_up(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "91.0", "--to", "91.6", *QUICK, "--jobs", "7", timeout=60)
    right(done, "91.3", "91.4")
    assert counts(done.run_dir, "trial_given_up")["91.2"] == 1
    assert "91.2" not in done.trials
    assert "91.2: no longer needed" in done.stderr
    assert vbisect.left() == []


def test_the_lower_end_says_what_the_bug_is(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "92.0", "--to", "92.3", *QUICK, "--jobs", "4")
    crashed = done.trials["92.1"]
    assert (crashed["outcome"], crashed["reason"]) == ("skip", "different failure")
    assert done.returncode == 3
    assert done.json["answer"]["suspects"] == ["92.1", "92.2"]


def test_a_failure_waits_for_no_end_once_the_bug_is_known(vbisect: Vbisect, tmp_path: Path) -> None:
    """The upper end is still under trial when a release between the ends has failed."""
    gate = tmp_path / "gate"
    script = f"[ $VBISECT_VERSION = 90.6 ] || exit 1; until [ -e {gate} ]; do sleep 0.05; done"
    ends = ("--from", "90.0", "--to", "90.6", "--jobs", "2", "--confidence", "0.6")
    run = vbisect.start(*ends, "--", "sh", "-c", script)
    try:
        run_dir = run.run_dir
        assert wait(lambda: counts(run_dir, "trial_finished").total() >= 2, 120), events(run_dir)
        assert "90.6" not in counts(run_dir, "trial_finished")
    finally:
        gate.touch()
    assert run.end().returncode == 0


def probing(journal: list[dict[str, Any]]) -> bool:
    """Whether two servers are being asked."""
    return sum(event["event"] == "server_ready" for event in journal) >= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_of_them_and_the_run_goes_on_later(
    vbisect: Vbisect, tmp_path: Path, number: signal.Signals
) -> None:
    gate = tmp_path / "gate"
    rest = ("--", "sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done; [ $VBISECT_VERSION = x ]")
    ends = ("--from", "90.0", "--to", "90.6", "--jobs", "2", "--confidence", "0.6")
    run = vbisect.start(*ends, *rest)
    run_dir = run.until(probing)
    run.process.send_signal(number)
    done = run.end(30)
    assert done.returncode == 130, done.stderr
    assert done.json["status"] == "interrupted"
    assert vbisect.left() == []
    gate.touch()
    again = vbisect.resume(run_dir)
    assert again.returncode == 1, again.stderr  # the command fails everywhere
    assert again.json["message"].startswith("fails in every tested release")


def test_an_error_in_one_ends_the_others(vbisect: Vbisect) -> None:
    script = "[ $VBISECT_VERSION = 90.6 ] && exit 130; sleep 60"
    ends = ("--from", "90.0", "--to", "90.6", "--jobs", "2", "--confidence", "0.6")
    done = vbisect.run(*ends, "--", "sh", "-c", script, timeout=50)
    assert done.returncode == 4, done.stderr
    assert done.json["status"] == "failed"
    assert "130" in done.json["message"]
    assert vbisect.left() == []


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_less_than_one_at_once_is_wrong(vbisect: Vbisect, jobs: str) -> None:
    done = vbisect.run("--from", "90.0", "--to", "90.6", "--jobs", jobs)
    assert done.returncode == 2
    assert f"--jobs {jobs}: it must be above 0." in done.stderr
