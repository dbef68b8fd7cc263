"""All variations in one boot: what each came to, and which of them an answer is about."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import Done, Vbisect, counts, events, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex

QUICK = ("--suite", "--confidence", "0.6")
GOOD = Behaviour()
STREAM = Behaviour(stream_error=("chat",))
RELEASES = {
    # n=8 is fixed in 60.1, the stream in 60.3
    "60.0": Behaviour(stream_error=("chat",), quirks={"n=8": "fewer"}),
    "60.1": STREAM,
    "60.2": STREAM,
    "60.3": GOOD,
    "60.4": GOOD,
    # two bugs, one at each end
    "61.0": Behaviour(quirks={"n=2": "fewer"}),
    "61.1": GOOD,
    "61.2": Behaviour(quirks={"logprobs": "bare"}),
    # a seed alone makes 62.1 answer with an error
    "62.0": Behaviour(quirks={"n=2": "fewer"}),
    "62.1": Behaviour(quirks={"seed": "500"}),
    "62.2": GOOD,
    # values that are not refused, or not cleanly
    "63.0": Behaviour(quirks={"n=0": "crash"}),
    "63.1": Behaviour(quirks={"n=0": "answered", "greedy": "500"}),
    "63.2": GOOD,
    # refuses everything
    "64.0": Behaviour(quirks={"n=1": "400"}),
    "64.1": GOOD,
    # only from 0.19 on there is a limit
    "0.18.5": GOOD,
    "0.19.5": GOOD,
    "0.20.5": Behaviour(quirks={"n=16385": "answered"}),
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases."""
    with PackageIndex(world(tmp_path_factory.mktemp("suite"), RELEASES)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("suite-cache")


@pytest.fixture
def vbisect(command: Callable[..., Vbisect], index: PackageIndex, cache: Path) -> Vbisect:
    """The command over them."""
    return command(index, cache)


def outcomes(trial: dict[str, Any]) -> dict[str, str]:
    """What each variation came to."""
    return {variation["name"]: variation["outcome"] for variation in trial["variations"]}


def of(trial: dict[str, Any], name: str) -> dict[str, Any]:
    """The record of one variation."""
    [found] = [variation for variation in trial["variations"] if variation["name"] == name]
    return found


def boundary(done: Done) -> tuple[str, str, str]:
    """The change that was found."""
    answer = done.json["answer"]
    return answer["change"], answer["last_before"], answer["first_after"]


def test_a_release_fails_as_long_as_any_variation_fails(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "60.0", "--to", "60.4", *QUICK)
    assert done.returncode == 0, done.stderr
    assert boundary(done) == ("fix", "60.2", "60.3")
    assert "60.2 is the last failing release (stream)" in done.json["message"]
    assert any("n=8 fails at the failing end too" in line for line in done.json["warnings"])
    names = done.json["variations"]
    assert names[:4] == ["n=1", "n=2", "n=8", "n=16"]
    first, fixed = done.trials["60.0"], done.trials["60.3"]
    bad = {"n=8": "fail", "stream": "fail"}
    assert outcomes(first) == dict.fromkeys(names, "pass") | bad
    assert outcomes(fixed) == dict.fromkeys(names, "pass")
    assert "n=8: returned 1 of 8 choices; stream: the stream broke off" in first["signature"]
    assert of(first, "n=8")["failure_kind"] == "choices missing"
    assert {v["observations"]["pass"] for v in fixed["variations"]} == {2}
    folder = done.run_dir / "trials" / "60.3"
    asked = [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]
    assert {line["variation"].partition(",")[0] for line in asked} == set(names)
    assert json.loads((folder / "request-seed.json").read_text())["body"]["seed"]
    assert json.loads((folder / "request-n=0.json").read_text())["body"]["n"] == 0
    assert json.loads((folder / "request-n=0, then n=1.json").read_text())["body"]["n"] == 1
    # the same in every report
    with (done.run_dir / "table.csv").open() as table:
        rows = {row["version"]: row for row in csv.DictReader(table)}
    assert rows["60.0"]["variation stream"].startswith("fail 0/")
    assert rows["60.3"]["variation n=0"] == "pass 2/0"
    report = (done.run_dir / "report.md").read_text()
    assert "| version | n=1 | n=2 | n=8 |" in report
    assert "all of them decide" in report
    shown = vbisect("run", "--resume", done.run_dir).stdout
    assert "n=16385" in shown
    assert "60.0: n=8: returned 1 of 8 choices" in shown
    assert done.json["replay"].count("--suite") == 1


def test_one_variation_can_decide(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "60.0", "--to", "60.4", *QUICK, "--bisect-on", "n=8")
    assert done.returncode == 0, done.stderr
    assert boundary(done) == ("fix", "60.0", "60.1")
    assert done.json["bisect_on"] == "n=8"
    # the others are asked along, and do not decide
    assert outcomes(done.trials["60.1"])["stream"] == "fail"
    assert done.trials["60.1"]["outcome"] == "pass"
    assert all(v["observations"]["pass"] for v in done.trials["60.4"]["variations"])
    assert "n=8 decides" in (done.run_dir / "report.md").read_text()


def test_another_variation_that_fails_is_another_bug(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "61.0", "--to", "61.2", *QUICK)
    assert boundary(done) == ("fix", "61.0", "61.1")
    other = done.trials["61.2"]
    assert (other["outcome"], other["reason"]) == ("skip", "different failure")
    assert "logprobs: 8 of 8 choices have no logprobs" in other["detail"]
    assert "(n=2: choices missing)" in other["detail"]
    assert any("61.2 fails in another way: logprobs" in line for line in done.json["warnings"])


def test_an_error_of_one_variation_is_no_pass(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "62.0", "--to", "62.2", *QUICK)
    assert done.returncode == 3
    trial = done.trials["62.1"]
    assert (trial["outcome"], trial["reason"]) == ("skip", "server error")
    assert trial["detail"].startswith("seed: HTTP 500: this kind of request has a quirk")
    assert outcomes(trial)["n=2"] == "pass"
    assert of(trial, "seed")["reason"] == "server error"
    assert done.json["answer"]["suspects"] == ["62.1", "62.2"]
    # where another variation decides, it is told and changes nothing
    alone = vbisect.run("--from", "62.0", "--to", "62.2", *QUICK, "--bisect-on", "n=2")
    assert boundary(alone) == ("fix", "62.0", "62.1")
    assert of(alone.trials["62.1"], "seed")["outcome"] == "skip"


def test_what_has_to_be_refused(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "63.1", "--to", "63.2", *QUICK)
    assert boundary(done) == ("fix", "63.1", "63.2")
    trial = done.trials["63.1"]
    assert of(trial, "n=0")["signature"] == "was answered, not refused (HTTP 200)"
    assert of(trial, "greedy")["failure_kind"] == "server error"
    assert of(trial, "n=16385")["outcome"] == "pass"
    crashed = vbisect.run("--from", "63.0", "--to", "63.2", *QUICK, "--bisect-on", "n=0")
    trial = crashed.trials["63.0"]
    assert (trial["outcome"], trial["failure_kind"]) == ("fail", "crashed")
    assert trial["signature"].startswith("n=0: the server died on the request")
    assert crashed.trials["63.1"]["reason"] == "different failure"


def test_a_server_that_refuses_everything_refuses_nothing_rightly(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "64.0", "--to", "64.1", *QUICK, "--bisect-on", "n=0")
    assert done.returncode == 3
    assert done.trials["64.0"]["reason"] == "request rejected"
    assert done.trials["64.1"]["outcome"] == "pass"


def test_a_release_that_was_not_asked_is_not_said_to_be_without_the_bug(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "0.18.5", "--to", "0.20.5", *QUICK)
    assert boundary(done) == ("break", "0.19.5", "0.20.5")
    trial = done.trials["0.18.5"]
    assert (trial["outcome"], trial["reason"]) == ("skip", "variation not asked")
    assert of(trial, "n=16385")["detail"] == "only versions >=0.19 are asked"
    assert any("LOWER END MOVED from 0.18.5 to 0.19.5" in line for line in done.json["warnings"])
    one = vbisect.run("--from", "0.18.5", "--to", "0.20.5", *QUICK, "--bisect-on", "n=16385")
    assert boundary(one) == ("break", "0.19.5", "0.20.5")
    assert one.trials["0.18.5"]["seconds"]["boot"] == 0


def test_a_killed_trial_goes_on_where_it_was(vbisect: Vbisect) -> None:
    def twice(journal: list[dict[str, Any]]) -> bool:
        return sum(e["event"] == "observation" and e["version"] == "60.4" for e in journal) >= 2

    started = vbisect.start("--from", "60.2", "--to", "60.4", "--suite", "--confidence", "0.9")
    run_dir = started.until(twice)
    started.kill()
    kept = counts(run_dir, "observation")["60.4"]
    done = vbisect.resume(run_dir)
    assert boundary(done) == ("fix", "60.2", "60.3")
    trial = done.trials["60.4"]
    rounds = trial["observations"]["pass"]
    assert rounds > kept >= 2
    assert {v["observations"]["pass"] for v in trial["variations"]} == {rounds}
    assert counts(run_dir, "observation")["60.4"] == rounds


def test_the_control_is_asked_the_same_variations(vbisect: Vbisect) -> None:
    control = ("--control-model", "tiny:qwen2_5_vl")
    done = vbisect.run("--from", "60.2", "--to", "60.3", *QUICK, *control)
    assert done.returncode == 0, done.stderr
    assert boundary(done) == ("fix", "60.2", "60.3")
    assert done.json["scope"]["scope"] == "everyone"
    for trial in done.trials.values():
        assert outcomes(trial["control"]) == outcomes(trial)


def test_an_earlier_run_counts_for_the_same_suite_only(vbisect: Vbisect) -> None:
    ends = ("--from", "60.2", "--to", "60.3")
    first = vbisect.run(*ends, *QUICK)
    again = vbisect.run(*ends, *QUICK, fresh=False)
    assert boundary(again) == boundary(first) == ("fix", "60.2", "60.3")
    assert counts(again.run_dir, "trial_started").total() == 0
    assert [t["variations"] for t in again.json["trials"]] == [
        t["variations"] for t in first.json["trials"]
    ]
    other = vbisect.run(*ends, *QUICK, "--bisect-on", "stream", fresh=False)
    assert counts(other.run_dir, "trial_started").total() == 2
    assert [e for e in events(other.run_dir) if e["event"] == "trial_finished"]
