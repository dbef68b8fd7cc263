"""Releases that fail now and then: both sides of the change are booted again before the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driving import Done, Vbisect, counts, events, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex

# Fixed in 94.4, and each release flakes in its own way.
FLAKY = {
    f"94.{i}": Behaviour(fail_rate={"chat": 0.4} if i < 4 else {}, seed=i, boot_seconds=0.1)
    for i in range(7)
}
# Fixed in 95.2, and the good releases fail now and then too: 95.3 at its 18th request.
NOISY = {
    f"95.{i}": Behaviour(fail_rate={"chat": 1.0 if i < 2 else 0.04}, seed={2: 4, 3: 14}.get(i, 1))
    for i in range(4)
}
# Broken in 96.3, fixed in 96.6.
CHANGING = {
    f"96.{i}": Behaviour(fail_rate={"chat": 1.0} if i in (3, 4, 5) else {}) for i in range(9)
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases."""
    releases = FLAKY | NOISY | CHANGING
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
    assert done.trials["95.3"]["observations"]["fail"] == 1
    assert done.json["warnings"] == [
        "95.3 failed 1 of 18 times: reckoned as a good release that flakes"
    ]


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
    assert counts(third.run_dir, "trial_started").total() == 3


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
        assert len(tested) == 4


def test_a_hint_has_to_be_a_candidate(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "96.0", "--to", "96.5", "--hint", "95.0")
    assert done.returncode == 2
    assert "--hint 95.0: it is not among the 6 candidates." in done.stderr
