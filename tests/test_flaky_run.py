"""Releases that fail now and then: both sides of the change are booted again before the answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import Done, Vbisect, counts, events, processes, wait, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex

# Fixed in 94.4, and each release flakes in its own way.
FLAKY = {
    f"94.{i}": Behaviour(fail_rate={"chat": 0.4} if i < 4 else {}, seed=i, boot_seconds=0.1)
    for i in range(7)
}
# Fixed in 95.2, and the good releases fail now and then too: 95.3 at its 4th request.
NOISY = {
    f"95.{i}": Behaviour(fail_rate={"chat": 1.0 if i < 2 else 0.04}, seed={2: 39, 3: 234}.get(i, 1))
    for i in range(4)
}
# Broken in 96.3, fixed in 96.6.
CHANGING = {
    f"96.{i}": Behaviour(fail_rate={"chat": 1.0} if i in (3, 4, 5) else {}) for i in range(9)
}
# Broken in 97.3; the requests of the low end take long enough to end its server during one.
CRASHING = {
    f"97.{i}": Behaviour(
        fail_rate={"chat": 1.0} if i > 2 else {}, request_seconds=0.0 if i else 0.7
    )
    for i in range(5)
}
# Both ends fail, each in its own way.
UNLIKE = {
    "98.0": Behaviour(fault="duplicate_index"),
    "98.1": Behaviour(),
    "98.2": Behaviour(),
    "98.3": Behaviour(fail_rate={"chat": 1.0}),
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases."""
    releases = FLAKY | NOISY | CHANGING | CRASHING | UNLIKE
    with PackageIndex(world(tmp_path_factory.mktemp("flaky"), releases)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("flaky-cache")


@pytest.fixture
def vbisect(command: Callable[..., Vbisect], index: PackageIndex, cache: Path) -> Vbisect:
    """The command over them."""
    return command(index, cache)


def right(done: Done, last_before: str, first_after: str) -> None:
    """The boundary with the confidence asked for, from two boots at least of either side."""
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == (last_before, first_after)
    assert answer["exact"]
    assert 0.95 <= answer["confidence"] < 1
    finished = counts(done.run_dir, "trial_finished")
    for version, trial in done.trials.items():
        # a boot that was interrupted after an observation is one more
        assert len(trial["boots"]) >= finished[version]
        for kind, number in trial["observations"].items():
            assert number == sum(boot[kind] for boot in trial["boots"])
    assert len(done.trials[last_before]["boots"]) >= 2
    assert len(done.trials[first_after]["boots"]) >= 2


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_flaky_bug_is_found(vbisect: Vbisect, jobs: str) -> None:
    done = vbisect.run("--from", "94.0", "--to", "94.6", "--n", "4", "--jobs", jobs)
    right(done, "94.3", "94.4")
    flaked = done.trials["94.3"]["observations"]
    assert flaked["pass"] > 0 < flaked["fail"]
    assert "releases flake: going on until 0.95 is reached" in done.stderr


def test_a_clean_boot_is_kept_whatever_the_release_counts_as(
    vbisect: Vbisect, tmp_path: Path
) -> None:
    """96.3 fails two of its first three requests and none later: all that was asked counts."""
    calls = tmp_path / "calls"
    script = (
        f'echo $VBISECT_VERSION >>{calls}; n=$(grep -cx "$VBISECT_VERSION" {calls}); '
        "case $VBISECT_VERSION in 96.[456]) exit 0;; 96.3) [ $n -gt 3 ] && exit 0;; esac; "
        "exit $((n % 2))"
    )
    done = vbisect.run("--from", "96.0", "--to", "96.6", "--", "sh", "-c", script)
    trial = done.trials["96.3"]
    assert trial["outcome"] != "skip"
    asked = calls.read_text().split().count("96.3")
    assert sum(boot["pass"] + boot["fail"] for boot in trial["boots"]) == asked
    assert len(trial["boots"]) >= 2
    assert all(boot["pass"] for boot in trial["boots"][1:])
    assert not any("could not be tested" in note for note in trial["notes"])


def test_a_good_release_may_fail_now_and_then(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "95.0", "--to", "95.3", "--n", "4")
    right(done, "95.1", "95.2")
    flaked = done.trials["95.3"]
    assert (flaked["outcome"], flaked["observations"]["fail"]) == ("pass", 1)
    assert done.json["warnings"] == []


def test_a_run_that_was_killed_in_a_second_boot_loses_nothing(vbisect: Vbisect) -> None:
    def booted_again(journal: list[dict[str, str]]) -> bool:
        return sum(e["event"] == "server_ready" and e["version"] == "94.3" for e in journal) == 2

    started = vbisect.start("--from", "94.0", "--to", "94.6", "--n", "4")
    run_dir = started.until(booted_again)
    started.kill()
    before = counts(run_dir, "trial_finished")
    done = vbisect.resume(run_dir)
    right(done, "94.3", "94.4")
    finished = [e["record"]["version"] for e in events(run_dir) if e["event"] == "trial_finished"]
    assert finished[: before.total()] == list(before.elements())


def test_what_an_earlier_run_tested_is_not_tested_again(vbisect: Vbisect) -> None:
    ends = ("--from", "96.2", "--to", "96.4", "--n", "4")
    first = vbisect.run(*ends)
    second = vbisect.run(*ends, fresh=False)
    assert second.json["answer"] == first.json["answer"]
    assert counts(second.run_dir, "trial_started").total() == 0
    assert {t["earlier_run"] for t in second.json["trials"]} == {first.json["run_id"]}
    assert "--fresh tests again" in second.json["warnings"][0]
    assert first.json["run_id"] in second.json["warnings"][0]
    third = vbisect.run(*ends, "--max-tokens", "8", fresh=False)
    assert third.json["answer"] == first.json["answer"]
    assert counts(third.run_dir, "trial_started") == {"96.2": 2, "96.3": 2, "96.4": 1}


def test_every_change_is_found(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "96.0", "--to", "96.8", "--n", "4", "--find-all")
    found = [(c["change"], c["last_before"], c["first_after"]) for c in done.json["changes"]]
    assert found == [("break", "96.2", "96.3"), ("fix", "96.5", "96.6")]
    assert any("--sweep" in warning for warning in done.json["warnings"])


@pytest.mark.parametrize("hint", ["96.3", "v96.3", "96.1"])
def test_a_hint_comes_first_and_decides_nothing(vbisect: Vbisect, hint: str) -> None:
    done = vbisect.run("--from", "96.0", "--to", "96.5", "--n", "4", "--hint", hint)
    assert done.json["answer"]["first_after"] == "96.3"
    tested = [e["version"] for e in events(done.run_dir) if e["event"] == "trial_started"]
    near = {hint.removeprefix("v"), f"96.{int(hint[-1]) - 1}"}
    assert tested[2] in near
    if hint.endswith("96.3"):
        assert counts(done.run_dir, "trial_started") == {
            "96.0": 1,
            "96.2": 2,
            "96.3": 2,
            "96.5": 1,
        }


def test_a_hint_has_to_be_a_candidate(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "96.0", "--to", "96.5", "--hint", "95.0")
    assert done.returncode == 2
    assert "--hint 95.0: it is not among the 6 candidates." in done.stderr


def by_boot(folder: Path, *cases: str) -> tuple[str, ...]:
    """A command that knows in which boot ($boot) of its release and in which call ($call) it is."""
    boots = f"{folder}/boots-$VBISECT_VERSION"
    calls = f"{folder}/calls-$VBISECT_VERSION"
    script = (
        f'grep -qxF "$VBISECT_BASE_URL" {boots} || echo "$VBISECT_BASE_URL" >>{boots}; '
        f"echo >>{calls}; boot=$(wc -l <{boots}); call=$(wc -l <{calls}); "
    )
    return ("--", "sh", "-c", script + "; ".join(cases))


@pytest.mark.parametrize("clean", [1, 2])
def test_a_bad_release_may_boot_into_health(vbisect: Vbisect, tmp_path: Path, clean: int) -> None:
    """The bug shows in four of five boots: in all requests of those, and in none of the fifth."""
    command = by_boot(
        tmp_path,
        "case $VBISECT_VERSION in 96.[012]) exit 0;; esac",
        f"[ $((boot % 5)) = {clean} ] && exit 0",
        "exit 1",
    )
    done = vbisect.run("--from", "96.0", "--to", "96.6", *command)
    right(done, "96.2", "96.3")
    assert done.json["answer"]["change"] == "break"
    boots = done.trials["96.3"]["boots"]
    assert [boot["pass"] > 0 for boot in boots][:2] == [clean == 1, clean == 2]
    for boot in boots:
        assert not (boot["pass"] and boot["fail"])
    assert done.trials["96.3"]["outcome"] == "fail"


def end_one_server(run_dir: Path, version: str) -> None:
    """Let the server of ``version`` die as of a segmentation fault, while it is being asked."""

    def asked() -> bool:
        return any(
            e["event"] == "server_ready" and e["version"] == version for e in events(run_dir)
        )

    assert wait(asked, 60), events(run_dir)
    marked = processes(f"VBISECT_OWNER={run_dir.absolute()}\0".encode())
    [server] = [pid for pid, line in marked.items() if "serve" in line and "guard" not in line]
    os.kill(server, signal.SIGSEGV)


def test_one_crash_of_the_low_end_is_not_the_bug(vbisect: Vbisect) -> None:
    ends = ("--from", "97.0", "--to", "97.4", "--n", "4", "--confidence", "0.8")
    started = vbisect.start(*ends)
    run_dir = started.run_dir
    end_one_server(run_dir, "97.0")
    done = started.end()
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["change"], answer["last_before"]) == ("break", "97.2")
    assert (answer["first_after"], answer["exact"]) == ("97.3", True)
    first = done.trials["97.0"]
    assert (first["outcome"], first["signature"]) == ("pass", None)
    crashed, whole = first["boots"]
    assert crashed == {"pass": 0, "fail": 0, "other": 1}
    assert whole["pass"] > 0 == whole["fail"] == whole["other"]
    assert counts(run_dir, "trial_finished")["97.0"] == 2
    assert done.json["range"]["from"]["tested"] == "97.0"


def test_a_failure_of_another_kind_leaves_a_pass(vbisect: Vbisect, tmp_path: Path) -> None:
    """The good release before the change fails once, and not as the bug does."""
    command = by_boot(
        tmp_path,
        "case $VBISECT_VERSION in 96.2) [ $call = 2 ] && exit 3; exit 0;; 96.[01]) exit 0;; esac",
        "exit 1",
    )
    ends = ("--from", "96.0", "--to", "96.6", "--confidence", "0.8")
    done = vbisect.run(*ends, "--failure", "exit status 1", *command)
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("96.2", "96.3")
    trial = done.trials["96.2"]
    assert (trial["outcome"], trial["reason"], trial["signature"]) == ("pass", None, None)
    assert trial["observations"] == {"pass": 3, "fail": 0, "other": 1}
    assert done.json["warnings"] == []


def test_ends_that_fail_in_different_ways(vbisect: Vbisect) -> None:
    ends = ("--from", "98.0", "--to", "98.3", "--n", "4", "--confidence", "0.8")
    done = vbisect.run(*ends)
    answer = done.json["answer"]
    assert (answer["change"], answer["first_after"]) == ("fix", "98.1")
    assert done.trials["98.3"]["reason"] == "different failure"
    [warning] = [line for line in done.json["warnings"] if "the ends fail" in line]
    assert warning == (
        "the ends fail in different ways, wrong indices and choices missing: this is about the "
        "first, which is steadier or older. --failure TEXT chooses by a piece of what a failure is "
        "told as"
    )
    chosen: list[dict[str, Any]] = []
    for text in ("1 of 4 choices", "choice indices"):
        one = vbisect.run(*ends, "--failure", text)
        assert one.returncode == 0, one.stderr
        assert not any("the ends fail" in line for line in one.json["warnings"])
        chosen.append(one.json["answer"])
    assert [(answer["change"], answer["first_after"]) for answer in chosen] == [
        ("break", "98.3"),
        ("fix", "98.1"),
    ]


def test_no_change_says_what_it_rules_out(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "96.0", "--to", "96.2", "--n", "4")
    assert (done.returncode, done.json["status"]) == (1, "none")
    for version in ("96.0", "96.2"):
        assert [boot["pass"] for boot in done.trials[version]["boots"]] == [20, 20]
        assert counts(done.run_dir, "server_ready")[version] == 2
    assert "96.1" not in done.trials
    excluded = done.json["excluded"]
    assert set(excluded) == {"per_request", "per_boot"}
    assert 0 < excluded["per_request"] < 0.2
    assert 0.2 < excluded["per_boot"] < 0.8
    assert done.json["left_out"] == []
    assert "; a failure would have shown if in 1 request of " in done.json["message"]
