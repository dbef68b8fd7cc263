"""With a control model, vbisect tells a model's own bug from everyone's."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import Done, Vbisect, counts, events, settle, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex

MODEL, CONTROL = "tiny:qwen2_5_vl", "tiny:qwen2"
BAD: dict[str, Any] = {"fail_rate": {"chat": 1.0}}
NOT_SERVED: dict[str, Any] = {
    "fault": "exit_before_ready",
    "fault_log": "ValueError: Model architectures ['X'] are not supported for now.",
}


FINE: dict[str, Any] = {}


def release(model: dict[str, Any] = FINE, control: dict[str, Any] = FINE) -> Behaviour:
    """A release that behaves so while it serves either of them."""
    return Behaviour(by_model={"tiny-qwen2_5_vl": model, "tiny-qwen2": control})


# One range for each truth, of three releases; the model is always fixed in the second.
RELEASES = {
    # the model's own bug; the control takes a while to boot
    "90.0": release(BAD, {"boot_seconds": 1.0}),
    "90.1": release(),
    "90.2": release(),
    # everyone's
    "91.0": release(BAD, BAD),
    "91.1": release(),
    "91.2": release(),
    # the control is fixed later
    "92.0": release(BAD, BAD),
    "92.1": release(FINE, BAD),
    "92.2": release(),
    # no release that fails serves the control
    "93.0": release(BAD, NOT_SERVED),
    "93.1": release(),
    "93.2": release(),
    # the control fails in another way
    "94.0": release(BAD, {"fault": "wrong_indices"}),
    "94.1": release(),
    "94.2": release(),
    # the model fails now and then, so releases are booted again
    "96.0": release({"fail_rate": {"chat": 0.5}}),
    "96.1": release(),
    "96.2": release(),
    # nothing is wrong, but one release serves only the control, and one neither
    "95.0": release(),
    "95.1": release(NOT_SERVED),
    "95.2": Behaviour(fault="exit_before_ready", fault_log="ImportError: cannot import name 'X'"),
    "95.3": release(),
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases."""
    with PackageIndex(world(tmp_path_factory.mktemp("control"), RELEASES)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("control-cache")


@pytest.fixture
def vbisect(command: Callable[..., Vbisect], index: PackageIndex, cache: Path) -> Vbisect:
    """The command over them."""
    return command(index, cache)


def both(start: str, end: str, *more: str) -> tuple[str, ...]:
    """The words of a short run with a control."""
    ends = ("--from", start, "--to", end, "--n", "4", "--confidence", "0.75")
    return (*ends, "--model", MODEL, "--control-model", CONTROL, *more)


def outcomes(done: Done) -> dict[str, tuple[str, str | None]]:
    """The outcomes of both, by version."""
    return {
        version: (trial["outcome"], trial["control"] and trial["control"]["outcome"])
        for version, trial in done.trials.items()
    }


def test_a_bug_of_the_model_alone(vbisect: Vbisect) -> None:
    done = vbisect.run(*both("90.0", "90.2"))
    assert done.returncode == 0, done.stderr
    told = done.json
    assert told["answer"]["first_after"] == "90.1"
    assert told["control"] == CONTROL
    assert told["scope"] == {
        "scope": "model",
        "message": f"fails with {MODEL}, passes with {CONTROL}, in 90.0",
    }
    assert outcomes(done) == {
        "90.0": ("fail", "pass"),
        "90.1": ("pass", "pass"),
        "90.2": ("pass", "pass"),
    }
    assert f"--control-model {CONTROL}" in told["replay"]
    assert "now the control" in done.stderr
    for version, trial in done.trials.items():
        control = trial["control"]
        assert (control["model"], control["reason"]) == (CONTROL, None)
        assert control["observations"] == {"pass": 2, "fail": 0, "other": 0}
        folder = done.run_dir / "trials" / version
        asked = [json.loads((f / "request.json").read_text()) for f in (folder, folder / "control")]
        pictured, plain = (body["body"]["messages"][0]["content"] for body in asked)
        assert pictured[0]["type"] == "image_url"
        assert isinstance(plain, str), "the control takes no picture"
        assert {body["body"]["n"] for body in asked} == {4}
        assert len((folder / "control" / "responses.jsonl").read_text().splitlines()) == 2
        for name, served in (("", "tiny-qwen2_5_vl"), ("control", "tiny-qwen2")):
            facts = json.loads((folder / name / "environment.json").read_text())
            assert served in facts["command"]
            assert (
                f"'served_model_name': ['{served}']" in (folder / name / "server.log").read_text()
            )
    with (done.run_dir / "table.csv").open() as table:
        rows = {row["version"]: row for row in csv.DictReader(table)}
    assert (rows["90.0"]["outcome"], rows["90.0"]["control_outcome"]) == ("fail", "pass")
    assert rows["90.0"]["control_passes"] == "2"
    report = (done.run_dir / "report.md").read_text()
    assert "**MODEL** – fails with tiny:qwen2" in report
    line = next(line for line in report.splitlines() if line.startswith("| 90.0"))
    seen = ("fail | 0 / 3 | returned 1 of 4 choices", "pass | 2 / 0 | as asked")
    assert line.startswith(f"| 90.0 | {' | received n=4 | '.join(seen)} | received n=4 | ")


def test_a_bug_of_every_model_in_words(vbisect: Vbisect) -> None:
    """And without ``--json``: both models are in the one table."""
    results = ("--results", str(vbisect.results), "--device", "cpu", "--fresh")
    done = vbisect("run", *both("91.0", "91.2"), *results)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("FOUND: fixed in 91.1")
    assert (
        f"  EVERYONE: fails with {MODEL} and with {CONTROL} in 91.0, and passes with both in "
        "91.1, 91.2"
    ) in lines
    head = next(i for i, line in enumerate(lines) if line.split() == [MODEL, CONTROL])
    table = [line.split() for line in lines[head + 1 : head + 4]]
    received = ["(received", "n=4)"]
    missing = ["fail", "0/3", "returned", "1", "of", "4", "choices", *received]
    asked = ["pass", "2/0", "as", "asked", *received]
    assert table == [
        ["91.0", *missing, *missing],
        ["91.1", *asked, *asked],
        ["91.2", *asked, *asked],
    ]


@pytest.mark.parametrize(
    ("release", "scope", "words"),
    [
        ("92", "different", f"{CONTROL} fails in 92.0, 92.1 and {MODEL} in 92.0"),
        ("93", "unknown", f"no release that fails with {MODEL} could be tested with both"),
        ("94", "different", f"{CONTROL} fails otherwise than {MODEL} in 94.0"),
    ],
)
def test_other_truths(vbisect: Vbisect, release: str, scope: str, words: str) -> None:
    """The control never changes what is found of the model."""
    done = vbisect.run(*both(f"{release}.0", f"{release}.2"))
    assert done.returncode == 0, done.stderr
    assert done.json["answer"]["first_after"] == f"{release}.1"
    assert done.json["scope"]["scope"] == scope
    assert words in done.json["scope"]["message"]
    if scope == "unknown":
        assert done.trials["93.0"]["control"]["reason"] == "model not supported"


def test_a_release_that_cannot_serve_the_model_may_serve_the_control(vbisect: Vbisect) -> None:
    """Unless no model could be served by that build on this host."""
    done = vbisect.run(*both("95.0", "95.3", "--sweep"))
    assert done.returncode == 1, done.stderr
    assert outcomes(done) == {
        "95.0": ("pass", "pass"),
        "95.1": ("skip", "pass"),
        "95.2": ("skip", None),
        "95.3": ("pass", "pass"),
    }
    assert done.json["scope"]["scope"] == "unknown"
    assert "neither does tiny:qwen2 in 95.0, 95.3" in done.json["scope"]["message"]


def test_killed_while_the_control_boots(vbisect: Vbisect) -> None:
    """What was observed of the model is kept, and its server is not booted again."""
    started = vbisect.start(*both("90.0", "90.2"))

    def begun(journal: list[dict[str, Any]]) -> bool:
        return any(e["event"] == "control_started" and e["version"] == "90.0" for e in journal)

    run_dir = started.until(begun)
    started.kill()
    settle(30, lambda: not vbisect.left())
    before = events(run_dir)
    done = vbisect.resume(run_dir)
    assert done.returncode == 0, done.stderr
    assert events(run_dir)[: len(before)] == before
    assert done.json["scope"]["scope"] == "model"
    every = {"90.0": 1, "90.1": 1, "90.2": 1}
    assert counts(run_dir, "server_ready") == every
    assert counts(run_dir, "trial_finished") == every
    assert counts(run_dir, "observation")["90.0"] == 3
    assert done.trials["90.0"]["observations"] == {"pass": 0, "fail": 3, "other": 0}
    assert done.trials["90.0"]["control"]["observations"] == {"pass": 2, "fail": 0, "other": 0}


def test_further_boots_need_no_control_once_it_is_known(vbisect: Vbisect) -> None:
    done = vbisect.run(*both("96.0", "96.2", "--confidence", "0.9"))
    boots = counts(done.run_dir, "server_ready")
    controls = counts(done.run_dir, "control_ready")
    assert boots["96.0"] > 1
    assert all(1 <= controls[version] <= boots[version] for version in boots)
    for version, (_, control) in outcomes(done).items():
        assert control == "pass"
        told = done.trials[version]["control"]
        assert len(told["boots"]) == controls[version]
        assert told["observations"]["pass"] == sum(boot["pass"] for boot in told["boots"])


def test_several_servers_at_once(vbisect: Vbisect) -> None:
    done = vbisect.run(*both("91.0", "91.2", "--jobs", "2"))
    assert done.returncode == 0, done.stderr
    assert done.json["answer"]["first_after"] == "91.1"
    assert done.json["scope"]["scope"] == "everyone"


def test_only_a_trial_with_the_same_control_counts_again(vbisect: Vbisect) -> None:
    first = vbisect.run(*both("91.0", "91.2"))
    again = vbisect.run(*both("91.0", "91.2"), fresh=False)
    assert {t["earlier_run"] for t in again.json["trials"]} == {first.json["run_id"]}
    assert outcomes(again) == outcomes(first)
    assert again.json["scope"] == first.json["scope"]
    alone = both("91.0", "91.2")[:-2]
    assert alone[-1] == MODEL
    without = vbisect.run(*alone, fresh=False)
    assert {t["earlier_run"] for t in without.json["trials"]} == {None}
    assert without.json["scope"] is None


def test_a_command_is_told_which_model_it_asks(vbisect: Vbisect) -> None:
    check = 'test "$VBISECT_MODEL" = tiny-qwen2 || test "$VBISECT_VERSION" != 91.0'
    done = vbisect.run(*both("91.0", "91.2"), "--", "sh", "-c", check)
    assert done.returncode == 0, done.stderr
    assert done.json["scope"]["scope"] == "model"
    assert outcomes(done)["91.0"] == ("fail", "pass")


@pytest.mark.parametrize(
    ("model", "control", "words"),
    [
        (CONTROL, CONTROL, f"--control-model {CONTROL}: that is the model itself"),
        (CONTROL, "tiny:none", "--control-model tiny:none: the tiny models are"),
        (CONTROL, "not a model", "--control-model not a model is neither"),
    ],
)
def test_wrong_controls(vbisect: Vbisect, model: str, control: str, words: str) -> None:
    done = vbisect.run(
        "--from", "90.0", "--to", "90.2", "--model", model, "--control-model", control
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"vbisect: {words}")
    assert len(done.stderr.splitlines()) == 1


def test_a_plan_counts_both_boots(vbisect: Vbisect) -> None:
    def boots(*more: str) -> int:
        ends = ("--from", "90.0", "--to", "90.2", "--device", "cpu", "--json", "--model", MODEL)
        return int(vbisect("plan", *ends, *more).json["boots_worst"])

    assert boots("--control-model", CONTROL) == 2 * boots()
