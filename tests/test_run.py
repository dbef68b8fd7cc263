"""What `vbisect run` says is what is true of the releases it ran."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driving import Done, Vbisect, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from standin.wheels import build_wheel

ENDS = ("--from", "0.27.1", "--to", "0.32.0")
GENERATE = (*ENDS, "--endpoint", "generate", "--n", "4")
SERVED = ("--serve-arg", "--enable-scale-out; >=0.30")
QUICK = ("--confidence", "0.6")
BAD = Behaviour(fail_rate={"chat": 1.0})
GOOD = Behaviour()
# Oldest to newest: broken, good, broken, good; and an argument that 50.4 alone refuses.
MADE = {"50.0": BAD, "50.1": GOOD, "50.2": GOOD, "50.3": BAD, "50.4": GOOD, "50.5": GOOD}


@pytest.fixture(scope="module")
def made_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """Releases with more than one change."""
    known = {
        version: Behaviour(
            fail_rate=behaviour.fail_rate,
            known_arguments=() if version == "50.4" else ("--wanted",),
        )
        for version, behaviour in MADE.items()
    }
    with PackageIndex(world(tmp_path_factory.mktemp("made"), known)) as index:
        yield index


@pytest.fixture(scope="module")
def made_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("made-cache")


@pytest.fixture
def made(command: Callable[..., Vbisect], made_index: PackageIndex, made_cache: Path) -> Vbisect:
    """The command over these releases."""
    return command(made_index, made_cache)


@pytest.fixture(scope="module")
def found(
    family_index: PackageIndex, family_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Done]:
    """The run that the project is about."""
    results = tmp_path_factory.mktemp("found")
    vbisect = Vbisect(family_index, family_cache, family_cache / "vbisect", results)
    try:
        yield vbisect.run(*GENERATE, *SERVED)
    finally:
        assert not vbisect.close()


def test_the_fix_of_52398_is_found(found: Done) -> None:
    assert found.returncode == 0, found.stderr
    told = found.json
    assert (told["schema"], told["status"]) == (1, "found")
    assert told["answer"] == {
        "change": "fix",
        "last_before": "0.28.0",
        "first_after": "0.29.0",
        "exact": True,
        "suspects": ["0.29.0"],
        "confidence": told["answer"]["confidence"],
    }
    assert 0.95 <= told["answer"]["confidence"] < 1
    asked = {end: (value["asked"], value["tested"]) for end, value in told["range"].items()}
    assert asked == {"from": ("0.27.1", "0.27.1"), "to": ("0.32.0", "0.32.0")}
    releases = ["0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0"]
    assert told["candidates"] == releases
    assert told["run_id"] == Path(told["run_dir"]).name
    assert told["seconds"] > 0
    assert {"0.28.0", "0.29.0"} <= set(found.trials) <= set(releases)
    assert len(told["trials"]) == len(found.trials) <= 5
    for version, trial in found.trials.items():
        assert trial["outcome"] == ("fail" if version < "0.29.0" else "pass")
        assert trial["reported_version"] == version
        assert trial["reason"] is None
        assert trial["build"]["kind"] == "venv"
        assert Path(trial["build"]["ref"]).is_dir()
        assert trial["build"]["digest"].startswith("sha256:")
        assert {"fetch", "boot", "probe"} <= set(trial["seconds"])
    flaky, clean = found.trials["0.28.0"], found.trials["0.29.0"]
    # 0.28.0 loses choices in some answers only: it takes as many looks as a clean release.
    assert flaky["observations"]["pass"] > 0 < flaky["observations"]["fail"]
    assert clean["observations"]["fail"] == 0 < clean["observations"]["pass"]
    assert "of 4 choices" in flaky["signature"]
    assert clean["signature"] is None


def test_a_run_directory_holds_the_evidence(found: Done, vbisect: Vbisect) -> None:
    run_dir = found.run_dir
    for name in ("run.toml", "journal.jsonl", "table.csv", "report.md", "report.html"):
        assert (run_dir / name).stat().st_size > 0
    for version, trial in found.trials.items():
        folder = run_dir / "trials" / version
        request = json.loads((folder / "request.json").read_text())
        assert request["path"] == "/inference/v1/generate"
        assert request["body"]["sampling_params"]["n"] == 4
        responses = (folder / "responses.jsonl").read_text().splitlines()
        assert len(responses) == sum(trial["observations"].values())
        assert all(json.loads(line)["status"] == 200 for line in responses)
        assert f"vLLM API server version {version}" in (folder / "server.log").read_text()
        environment = json.loads((folder / "environment.json").read_text())
        assert ("--enable-scale-out" in environment["command"]) == (version >= "0.30")
    with (run_dir / "table.csv").open() as table:
        rows = {row["version"]: row for row in csv.DictReader(table)}
    assert list(rows) == found.json["candidates"]
    assert {v: r["outcome"] for v, r in rows.items() if r["outcome"] != "untested"} == {
        version: trial["outcome"] for version, trial in found.trials.items()
    }
    reported = vbisect("report", run_dir, "--format", "json")
    assert (reported.returncode, reported.json) == (0, found.json)
    assert vbisect("report", run_dir).stdout == (run_dir / "report.md").read_text()
    page = vbisect("report", run_dir, "--format", "html")
    assert page.stdout == (run_dir / "report.html").read_text()


def test_an_unserved_endpoint_is_a_skip_and_moves_the_end(vbisect: Vbisect) -> None:
    done = vbisect.run(*GENERATE)
    assert done.returncode == 0, done.stderr
    # 0.30.0 lies beyond the end that was found, and the change is on the other side of that
    assert "0.30.0" not in done.trials
    for version in ("0.31.0", "0.32.0"):
        trial = done.trials[version]
        assert (trial["outcome"], trial["reason"]) == ("skip", "endpoint not served")
        assert "--serve-arg" in trial["advice"]
    assert "Scale-out endpoints are disabled" in done.trials["0.32.0"]["detail"]
    assert done.json["range"]["to"]["tested"] == "0.29.0"
    assert any("UPPER END" in line and "0.29.0" in line for line in done.json["warnings"])
    assert "THE UPPER END MOVED from 0.32.0 to 0.29.0" in done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("0.28.0", "0.29.0")
    assert answer["exact"]


def test_no_change_is_said(vbisect: Vbisect) -> None:
    done = vbisect.run(*ENDS, *QUICK)
    assert done.returncode == 1
    assert (done.json["status"], done.json["answer"]) == ("none", None)
    assert done.json["message"].startswith("passes in every tested release")
    assert set(done.trials) == {"0.27.1", "0.32.0"}


def test_a_bug_that_is_there_throughout_is_said(vbisect: Vbisect) -> None:
    ends = ("--from", "0.27.0", "--to", "0.27.1")
    done = vbisect.run(*ends, "--endpoint", "generate", *QUICK, "--n", "1", "--n", "2", "--n", "4")
    assert done.returncode == 1
    assert done.json["message"].startswith("fails in every tested release")
    # Every count is asked in turn, and the first that fails is named.
    assert done.trials["0.27.1"]["signature"] == "n=2: returned 1 of 2 choices"
    responses = (done.run_dir / "trials" / "0.27.1" / "responses.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in responses] == [1, 2]


def test_a_range_without_nightly_or_cpu_wheels_ends_truthfully(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "0.7.3", "--to", "nightly", *QUICK)
    assert done.returncode == 1, done.stderr
    assert len(done.json["candidates"]) == 51
    assert done.json["message"].startswith("passes in every tested release")
    # The family has CPU wheels from 0.8.5 to 0.32.0 only.
    ends = {name: (end["asked"], end["tested"]) for name, end in done.json["range"].items()}
    assert ends == {"from": ("0.7.3", "0.8.5"), "to": ("nightly", "0.32.0")}
    assert {done.trials[v]["reason"] for v in ("0.7.3", "0.8.4", "0.33.0")} == {"not published"}
    assert "NO NIGHTLY" in done.stderr
    assert "using the newest release, 0.33.0, instead" in done.stderr
    assert "THE LOWER END MOVED from 0.7.3 to 0.8.5" in done.stderr
    assert any("NO NIGHTLY" in note for note in done.json["notes"])


def test_a_rebuilt_wheel_stands_for_its_release(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "0.8.5", "--to", "0.9.1", "--env", "VLLM_USE_V1=0", *QUICK)
    assert done.returncode == 1, done.stderr
    trial = done.trials["0.8.5"]
    assert (trial["outcome"], trial["reported_version"]) == ("pass", "0.8.5.post2")


def test_latest_is_the_newest_release(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "0.31.0", "--to", "latest", *QUICK)
    assert "latest is 0.33.0" in done.stderr
    assert done.json["range"]["to"]["asked"] == "latest"
    assert done.json["candidates"] == ["0.31.0", "0.32.0", "0.33.0"]


class NightlyIndex(PackageIndex):
    """Serves its wheels where vLLM's nightly index has those for the CPU."""

    def _answer(self, path: str, wants_json: bool) -> tuple[int, str, bytes]:
        return super()._answer(path.replace("/nightly/cpu/", "/simple/"), wants_json)


@pytest.mark.parametrize("honest", [True, False])
def test_a_nightly_build_is_used_and_its_version_checked(
    vbisect: Vbisect, tmp_path: Path, honest: bool
) -> None:
    reported = None if honest else "0.33.1.dev41+g0ther"
    nightly = "0.33.1.dev42+g1a2b3c4.cpu" if honest else "0.33.1.dev43+g1a2b3c4.cpu"
    # dev40 is older: "nightly" means the newest
    for version in ("0.33.1.dev40+g0000000.cpu", nightly):
        build_wheel(tmp_path / "nightly", "vllm", version, Behaviour(reported_version=reported))
    with NightlyIndex(tmp_path / "nightly") as index:
        done = vbisect.run(
            *("--from", "0.31.0", "--to", "nightly", *QUICK),
            VBISECT_NIGHTLY_INDEX=f"{index.base}/nightly",
        )
    assert f"nightly is {nightly}" in done.stderr
    assert done.json["candidates"][-1] == nightly
    trial = done.trials[nightly]
    if honest:
        assert (trial["outcome"], trial["reported_version"]) == ("pass", nightly)
        assert done.json["range"]["to"]["tested"] == nightly
    else:
        assert (trial["outcome"], trial["reason"]) == ("skip", "wrong version")
        assert "0.33.1.dev41" in trial["detail"]


def test_a_stream_that_breaks_off_has_its_own_boundary(vbisect: Vbisect) -> None:
    done = vbisect.run(*GENERATE, *SERVED, *QUICK, "--stream")
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("0.31.0", "0.32.0")
    assert "list index out of range" in done.trials["0.31.0"]["signature"]
    request = (done.run_dir / "trials" / "0.32.0" / "request.json").read_text()
    assert json.loads(request)["body"]["stream"] is True


def test_a_break_is_found(made: Vbisect) -> None:
    done = made.run("--from", "50.1", "--to", "50.3", *QUICK, "--find", "break")
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["change"], answer["last_before"], answer["first_after"]) == (
        "break",
        "50.2",
        "50.3",
    )
    assert "broken in 50.3" in done.json["message"]


def test_only_the_asked_change_is_an_answer(made: Vbisect) -> None:
    done = made.run("--from", "50.1", "--to", "50.3", *QUICK, "--find", "fix")
    assert done.returncode == 1
    assert (done.json["status"], done.json["answer"]) == ("none", None)
    assert done.json["message"] == "no fix in range: it passes in 50.1 and fails in 50.3"


def test_a_sweep_reports_every_change(made: Vbisect) -> None:
    done = made.run("--from", "50.0", "--to", "50.5", *QUICK, "--sweep")
    assert set(done.trials) == set(MADE)
    changes = [(c["change"], c["last_before"], c["first_after"]) for c in done.json["changes"]]
    assert changes == [
        ("fix", "50.0", "50.1"),
        ("break", "50.2", "50.3"),
        ("fix", "50.3", "50.4"),
    ]
    assert done.json["answer"]["first_after"] == "50.4"
    assert "the outcome changes 3 times in this range" in done.json["warnings"]


def test_skips_between_leave_suspects(made: Vbisect) -> None:
    done = made.run("--from", "50.3", "--to", "50.5", *QUICK, "--serve-arg", "--wanted")
    assert done.returncode == 3
    assert done.json["status"] == "inconclusive"
    trial = done.trials["50.4"]
    assert (trial["outcome"], trial["reason"]) == ("skip", "argument not known")
    assert "unrecognized arguments: --wanted" in trial["detail"]
    answer = done.json["answer"]
    assert (answer["exact"], answer["suspects"]) == (False, ["50.4", "50.5"])
    assert (answer["last_before"], answer["first_after"]) == ("50.3", "50.5")


def test_left_out_releases_are_not_started(made: Vbisect) -> None:
    done = made.run("--from", "50.0", "--to", "50.5", *QUICK, "--skip", "50.1..50.4")
    assert done.returncode == 3
    assert set(done.trials) == {"50.0", "50.5"}
    assert done.json["left_out"] == ["50.1", "50.2", "50.3", "50.4"]
    assert done.json["answer"]["suspects"] == ["50.1", "50.2", "50.3", "50.4", "50.5"]
    one = made.run("--from", "50.2", "--to", "50.5", *QUICK, "--skip", "50.5")
    assert one.json["range"]["to"]["tested"] == "50.4"
    assert any("50.5 to 50.4" in warning for warning in one.json["warnings"])


def test_the_answer_for_people_names_the_release(made: Vbisect) -> None:
    done = made(
        *("run", "--from", "50.3", "--to", "50.5", "--device", "cpu", *QUICK),
        *("--results", made.results),
    )
    assert done.returncode == 0
    first, *rest = done.stdout.splitlines()
    assert first == "FOUND: fixed in 50.4; 50.3 is the last failing release"
    [repeat] = [line for line in rest if line.startswith("repeat:")]
    words = repeat.removeprefix("repeat:").split()[1:]
    again = made(*words, "--results", made.results)
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, first)
