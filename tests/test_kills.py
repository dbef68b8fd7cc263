"""Whatever is killed beside vbisect, one process at a time: the answer is that of a quiet run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import CPU, Done, Started, Vbisect, counts, events, processes, settle, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from standin.running import alive, wait

BAD = Behaviour(
    fail_rate={"chat": 1.0},
    boot_seconds=0.5,
    request_seconds=0.2,
    spawn_engine=True,
    engine_own_session=True,
)
RELEASES = {
    "78.0": BAD,
    "78.1": Behaviour(),
    "78.2": Behaviour(),
    "77.0": Behaviour(fault="exit_before_ready", fault_log="KeyError: 'a layer'"),
    "77.1": Behaviour(),
    "77.2": Behaviour(),
}
QUICK = ("--n", "4", "--confidence", "0.8")  # one boot of each
RUN = ("--from", "78.0", "--to", "78.2", *QUICK)
TESTED = {"78.0": 1, "78.1": 1, "78.2": 1}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases."""
    with PackageIndex(world(tmp_path_factory.mktemp("kills"), RELEASES)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("kills-cache")


@pytest.fixture
def vbisect(command: Callable[..., Vbisect], index: PackageIndex, cache: Path) -> Vbisect:
    """The command over them."""
    return command(index, cache)


def came(kind: str, version: str = "78.0") -> Callable[[list[dict[str, Any]]], bool]:
    """Whether the journal has this event of this version."""
    return lambda journal: any(e["event"] == kind and e.get("version") == version for e in journal)


def server_ready(event: dict[str, Any]) -> bool:
    """Whether it tells of a server of the first release."""
    return bool(event["event"] == "server_ready" and event["version"] == "78.0")


def kill(found: Callable[[], dict[int, str]], like: Callable[[str], bool]) -> dict[int, str]:
    """SIGKILL the processes with such a command line; all that were there then."""

    def struck() -> dict[int, str]:
        return {pid: line for pid, line in found().items() if like(line)}

    assert wait(struck), found()
    there = found()
    for pid in struck():
        os.kill(pid, signal.SIGKILL)
    return there


def owned(run_dir: Path) -> dict[int, str]:
    """Processes that carry the mark of this run."""
    return processes(f"VBISECT_OWNER={run_dir.absolute()}\0".encode())


def as_undisturbed(started: Started) -> Done:
    """It ends with the answer of a quiet run, and nothing was tested twice."""
    done = started.end()
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("78.0", "78.1")
    assert counts(done.run_dir, "trial_finished") == TESTED
    return done


@pytest.mark.parametrize("moment", ["build_ready", "server_ready", "observation"])
def test_a_server_that_was_killed_is_booted_again(vbisect: Vbisect, moment: str) -> None:
    """It says nothing of its release, which is an end of the range here."""
    started = vbisect.start(*RUN)
    run_dir = started.until(came(moment))
    kill(lambda: owned(run_dir), lambda line: " serve " in line and "guard.py" not in line)
    done = as_undisturbed(started)
    assert any("The server was lost: killed" in note for note in done.json["notes"])
    assert counts(run_dir, "trial_started") == {**TESTED, "78.0": 2}
    told = sum(e["event"] == "observation" and e["version"] == "78.0" for e in events(run_dir))
    assert done.trials["78.0"]["observations"]["fail"] == told


ASKS = """
import os, time, urllib.request
time.sleep(1)
urllib.request.urlopen(os.environ["VBISECT_BASE_URL"] + "/health")
"""


def test_a_command_says_nothing_of_a_server_that_was_killed(vbisect: Vbisect) -> None:
    """It fails then, and would pass."""
    ends = ("--from", "78.1", "--to", "78.2", "--confidence", "0.6", "--probe", "command")
    started = vbisect.start(*ends, "--", sys.executable, "-c", ASKS)
    run_dir = started.until(came("server_ready", "78.1"))
    kill(lambda: owned(run_dir), lambda line: " serve " in line and "guard.py" not in line)
    done = started.end()
    assert (done.returncode, done.json["status"]) == (1, "none"), done.stderr
    assert counts(run_dir, "trial_started")["78.1"] == 2
    assert done.trials["78.1"]["observations"]["fail"] == 0


def test_a_server_that_is_killed_each_time_is_a_skip(vbisect: Vbisect) -> None:
    """Its end may have been tested with more memory: that there is no change is not known."""
    started = vbisect.start("--from", "78.0", "--to", "78.2", *QUICK, "--sweep")
    run_dir = started.run_dir
    struck = 0
    while started.process.poll() is None:
        for pid, line in owned(run_dir).items():
            if "-78.0/bin/vllm serve" in line and "guard.py" not in line:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                struck += 1
        wait(lambda: started.process.poll() is not None, 0.1)
    done = started.end()
    assert (done.returncode, done.json["status"]) == (3, "inconclusive"), done.stderr
    assert struck >= 2
    trial = done.trials["78.0"]
    assert (trial["outcome"], trial["reason"]) == ("skip", "killed")
    assert "78.0 (killed) may be tested another time" in done.json["message"]


def test_no_change_is_not_known_beyond_an_end_that_may_be_tested_yet(vbisect: Vbisect) -> None:
    """The end moved for a reason that can pass, so a change may be there."""
    done = vbisect.run("--from", "77.0", "--to", "77.2", *QUICK)
    assert (done.returncode, done.json["status"]) == (3, "inconclusive"), done.stderr
    assert "77.0 (exited before ready) may be tested another time" in done.json["message"]
    assert any("THE LOWER END MOVED from 77.0 to 77.1" in w for w in done.json["warnings"])


@pytest.mark.parametrize("moment", ["build_ready", "observation"])
def test_a_lost_guard_is_no_lost_server(vbisect: Vbisect, moment: str) -> None:
    """What it guarded is ended, an engine that left the group too, and the trial begins again."""
    started = vbisect.start(*RUN)
    run_dir = started.until(came(moment))
    engine = "EngineCore"
    assert wait(lambda: any(engine in line for line in owned(run_dir).values()))
    there = kill(lambda: owned(run_dir), lambda line: "guard.py" in line)
    engines = [pid for pid, line in there.items() if engine in line]
    assert wait(lambda: not any(map(alive, engines)))
    done = as_undisturbed(started)
    assert any("The guard of vllm was killed" in note for note in done.json["notes"])
    assert counts(run_dir, "trial_started") == {**TESTED, "78.0": 2}


def test_what_a_killed_run_left_is_ended_by_whatever_name_it_is_resumed(
    vbisect: Vbisect, tmp_path: Path
) -> None:
    """Begun by a link, gone on with by its own name."""
    (tmp_path / "link").symlink_to(vbisect.results)
    own = ("--device", "cpu", "--results", tmp_path / "link", "--json", "--fresh")
    started = vbisect.launch("run", *RUN, *own)
    run_dir = started.until(came("observation"))
    left = processes(f"VBISECT_CACHE_DIR={vbisect.cache}\0".encode())
    engines = [pid for pid, line in left.items() if "EngineCore" in line]
    os.kill(started.process.pid, signal.SIGSTOP)
    for pid, line in left.items():
        if "guard.py" in line:
            os.kill(pid, signal.SIGKILL)
    started.kill()
    assert any(map(alive, engines))
    assert vbisect.resume(run_dir).returncode == 0
    assert not any(map(alive, engines))


def test_a_lost_guard_is_not_counted_as_a_kill(vbisect: Vbisect) -> None:
    """A server that is killed after it, once, is booted again all the same."""
    started = vbisect.start(*RUN)
    run_dir = started.until(came("observation"))
    kill(lambda: owned(run_dir), lambda line: "guard.py" in line)
    started.until(lambda journal: sum(map(server_ready, journal)) == 2)
    kill(lambda: owned(run_dir), lambda line: " serve " in line and "guard.py" not in line)
    as_undisturbed(started)
    assert counts(run_dir, "trial_started") == {**TESTED, "78.0": 3}


@pytest.mark.parametrize("guard", [False, True])
def test_a_killed_install_is_made_again(
    command: Callable[..., Vbisect], index: PackageIndex, guard: bool
) -> None:
    """Whether it is uv that is killed or its guard: that says nothing of the release."""
    vbisect = command(index)  # with an empty cache of its own
    started = vbisect.start(*RUN)
    run_dir = started.until(came("trial_started"))
    index.delay = 1.0
    try:
        kill(
            lambda: processes(f"VBISECT_CACHE_DIR={vbisect.cache}\0".encode()),
            lambda line: "pip install" in line and ("guard.py" in line) is guard,
        )
    finally:
        index.delay = 0.0
    as_undisturbed(started)
    assert counts(run_dir, "trial_started") == {**TESTED, "78.0": 2}


def test_nothing_is_left_of_an_install_that_was_killed(
    command: Callable[..., Vbisect], index: PackageIndex
) -> None:
    """The next vbisect removes what the one that was killed could not, whatever it tests."""
    vbisect = command(index)  # with an empty cache of its own
    started = vbisect.start(*RUN)
    started.until(came("trial_started"))
    index.delay = 1.0
    try:
        assert wait(lambda: any("pip install" in line for line in vbisect.left()))
        started.kill()
    finally:
        index.delay = 0.0
    settle(10.0, lambda: not vbisect.left())
    assert list(vbisect.temporary.iterdir())
    assert vbisect.run(*RUN).returncode == 0
    assert not list(vbisect.temporary.iterdir())


def test_the_pips_of_a_start_end_with_it(vbisect: Vbisect, index: PackageIndex) -> None:
    """One that waits for an index would go on until that answers, or never does."""
    shutil.rmtree(vbisect.cache / "hour", ignore_errors=True)  # what answered before is not asked
    index.delay = 20.0
    try:
        started = vbisect.start(*RUN)
        assert wait(lambda: any("index versions" in line for line in vbisect.left()))
        started.kill()
        settle(10.0, lambda: not vbisect.left())
    finally:
        index.delay = 0.0


def test_a_tiny_model_that_was_removed_is_made_again(vbisect: Vbisect) -> None:
    """It says nothing of the releases that were to serve it."""
    started = vbisect.start(*RUN)
    started.until(came("observation"))
    shutil.rmtree(vbisect.cache / "models")
    as_undisturbed(started)


@pytest.mark.parametrize("live", [True, False])
def test_a_closed_terminal_interrupts_resumably(vbisect: Vbisect, live: bool) -> None:
    """The kernel tells of it by SIGHUP, and nothing can be written there any more."""
    ours, theirs = pty.openpty()
    words = ["run", *RUN, *CPU, "--fresh", "--results", str(vbisect.results)]
    process = subprocess.Popen(
        [sys.executable, "-m", "vbisect", *words],
        env=vbisect.env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs if live else subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)

    def probed() -> bool:
        while select.select([ours], [], [], 0)[0]:  # what is not read holds it up
            os.read(ours, 65536)
        return any(came("observation")(events(run)) for run in vbisect.results.iterdir())

    assert wait(probed, 60)
    os.close(ours)
    assert process.wait(60) == 130
    (run_dir,) = vbisect.results.iterdir()
    assert events(run_dir)[-1]["finding"]["status"] == "interrupted"
    assert {"report.md", "report.html", "table.csv"} <= {path.name for path in run_dir.iterdir()}
    assert vbisect.resume(run_dir).returncode == 0
    assert counts(run_dir, "trial_finished") == TESTED


def test_a_run_goes_on_when_nobody_reads_its_progress(vbisect: Vbisect) -> None:
    """It was told to find an answer, and keeps that in its directory."""
    started = vbisect.start(*RUN)
    started.until(came("observation"))
    assert started.process.stderr is not None
    started.process.stderr.close()
    started.process.stderr = None
    as_undisturbed(started)


def test_of_two_hangups_one_interrupts(vbisect: Vbisect) -> None:
    """The shell tells its jobs, and then the kernel tells them too; the reports are written."""
    started = vbisect.start(*RUN)
    run_dir = started.until(came("observation"))
    while started.process.poll() is None:
        started.process.send_signal(signal.SIGHUP)
        wait(lambda: started.process.poll() is not None or (run_dir / "report.html").exists(), 0.05)
        if (run_dir / "report.html").exists():
            break
    done = started.end()
    assert (done.returncode, done.json["status"]) == (130, "interrupted")
