"""Commands under guard: told how they ended, and never left behind by any end of vbisect."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from vbisect.errors import EngineLost
from vbisect.processes import (
    OWNER_VARIABLE,
    Guarded,
    end_orphans,
    guarded,
    pip_command,
    scratch_directory,
)
from vbisect.processes.scratch import remove_abandoned

MARK = "VBISECT_TEST_MARK"
LEAVE = "import os, time; os.setsid(); print('away', flush=True); time.sleep(600)"
AWAY = f'{sys.executable} -c "{LEAVE}"'
DEAF = "trap '' TERM; echo deaf; while :; do sleep 0.05; done"
Start = Callable[..., Guarded]


def marked(mark: str) -> list[psutil.Process]:
    """The living processes that carry the mark in their environment, guards included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def until(condition: Callable[[], object], seconds: float = 8) -> None:
    """Wait for ``condition``; fail if it does not come about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def said(directory: Path) -> str:
    """What the command has written so far."""
    log = directory / "log"
    return log.read_text() if log.exists() else ""


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    """A mark for the processes of one test; whatever is left at its end is a failure."""
    name = str(tmp_path)
    yield name
    left = marked(name)
    for process in left:
        process.kill()
    assert not left, "processes were left behind"


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Iterator[Start]:
    """Starts commands under guard, with their output in ``log``."""
    started: list[Guarded] = []

    def run(*command: str, grace: float = 0.3, **environment: str) -> Guarded:
        variables = {"PATH": os.environ["PATH"], MARK: mark, **environment}
        process = Guarded(command, log=tmp_path / "log", environment=variables, grace=grace)
        started.append(process)
        return process

    yield run
    for process in started:
        process.stop()


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 125", 125), ("exit 255", 255), ("kill -9 $$", -9), ("kill $$", -15)],
)
def test_a_command_ends_with_its_own_code(start: Start, script: str, code: int) -> None:
    """An exit status is passed on; a signal is its negative number; both can be asked again."""
    process = start("sh", "-c", script)
    assert process.wait(10) == code
    assert process.poll() == process.wait() == process.stop() == code


def test_output_is_appended_in_order(start: Start, tmp_path: Path) -> None:
    """Both streams go to the log, after what was there."""
    (tmp_path / "log").write_text("before\n")
    process = start("sh", "-c", "echo one; echo two >&2; echo three; cat; echo $WORD", WORD="four")
    assert process.wait(10) == 0
    assert (tmp_path / "log").read_text() == "before\none\ntwo\nthree\nfour\n"


def test_a_running_command_has_no_code_yet(start: Start) -> None:
    """Asking does not wait, and waiting ends at its time."""
    process = start("sleep", "600")
    assert process.poll() is None
    began = time.monotonic()
    assert process.wait(0.1) is None
    assert time.monotonic() - began < 60
    assert process.stop() == -signal.SIGTERM


def test_the_environment_is_the_one_given(start: Start, tmp_path: Path) -> None:
    """Nothing of vbisect's own environment gets through; the mark by which it is found is new."""
    assert start("env", ONLY="this").wait(10) == 0
    names = {line.partition("=")[0] for line in (tmp_path / "log").read_text().splitlines()}
    assert names - {"LC_CTYPE"} == {"PATH", MARK, "ONLY", "VBISECT_GUARD", "SPT_NOENV"}


def test_a_command_may_end_itself_within_the_grace(start: Start, tmp_path: Path) -> None:
    """TERM comes first, and a clean end is waited for."""
    script = "trap 'sleep 0.2; echo cleaned up; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    process = start("sh", "-c", script, grace=60)
    until(lambda: "up" in said(tmp_path))
    began = time.monotonic()
    assert process.stop() == 3
    assert time.monotonic() - began < 30, "the grace is a limit, not a wait"
    assert "cleaned up" in (tmp_path / "log").read_text()


def test_after_the_grace_a_command_is_killed(start: Start, tmp_path: Path, mark: str) -> None:
    """A command deaf to TERM lives for the grace and no longer."""
    process = start("sh", "-c", DEAF, grace=0.4)
    until(lambda: "deaf" in said(tmp_path))
    began = time.monotonic()
    assert process.stop() == -signal.SIGKILL
    assert time.monotonic() - began > 0.35
    assert not marked(mark)


@pytest.mark.parametrize("ending", ["stopped", "ends by itself"])
def test_nothing_a_command_started_stays(
    start: Start, tmp_path: Path, mark: str, ending: str
) -> None:
    """Children in the background go, and so do those that left for a session of their own."""
    script = f"sleep 600 & {AWAY} & ({DEAF}) & while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
    process = start("sh", "-c", script)
    until(lambda: {"away", "deaf"} <= set(said(tmp_path).split()))
    assert len(marked(mark)) >= 5
    if ending == "stopped":
        process.stop()
    else:
        (tmp_path / "go").touch()
        assert process.wait(10) == 0
    assert not marked(mark)


@pytest.mark.parametrize("command", ["/nonesuch/command", "/etc/passwd", "/"])
def test_a_command_that_cannot_start_is_an_error(tmp_path: Path, command: str) -> None:
    """It is told apart from one that ended."""
    process = Guarded([command], log=tmp_path / "log", environment={})
    with pytest.raises(OSError, match=f"cannot start {command}"):
        process.wait(10)
    with pytest.raises(OSError, match="cannot start"):
        process.stop()


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A command is not started without a place for its output, and that is not its death."""
    process = Guarded(["true"], log=tmp_path / "nowhere" / "log", environment={})
    with pytest.raises(OSError, match="nowhere/log"):
        process.stop()


def test_interrupts_reach_vbisect_alone(start: Start, tmp_path: Path) -> None:
    """Ctrl-C in a terminal goes to its process group; guard and command are in others."""
    process = start("sh", "-c", "trap 'echo interrupted' INT HUP; echo up; sleep 600")
    until(lambda: "up" in said(tmp_path))
    assert os.getpgid(process.guard_pid) != os.getpgrp()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(process.guard_pid, number)
    assert process.wait(0.2) is None
    process.stop()
    assert (tmp_path / "log").read_text() == "up\n"


def test_a_killed_guard_takes_all_along(start: Start, tmp_path: Path, mark: str) -> None:
    """Even without its guard what a command started ends, and that is not the command's own end."""
    process = start("sh", "-c", f"{AWAY} & echo up; exec sleep 600")
    until(lambda: {"up", "away"} <= set(said(tmp_path).split()))
    os.kill(process.guard_pid, signal.SIGKILL)
    with pytest.raises(EngineLost, match="guard of sh was killed"):
        process.wait(10)
    assert not marked(mark)
    assert process.stop() == -signal.SIGKILL


def test_a_stopped_guard_is_not_waited_for_without_end(
    start: Start, tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is what it guards left behind."""
    monkeypatch.setattr(guarded, "_PATIENCE", 0.2)
    process = start("sh", "-c", f"{AWAY} & echo up; exec sleep 600")
    until(lambda: {"up", "away"} <= set(said(tmp_path).split()))
    os.kill(process.guard_pid, signal.SIGSTOP)
    assert process.stop() == -signal.SIGKILL
    assert not marked(mark)


def test_an_error_inside_a_guarded_block_is_the_one_that_is_told(tmp_path: Path) -> None:
    """A command that could not be started says so to whoever asks, not at the block's end too."""
    with pytest.raises(KeyError), Guarded(["/nonesuch"], log=tmp_path / "log", environment={}):
        raise KeyError


HOLDER = """
import os, sys, time
from pathlib import Path
from vbisect.processes import Guarded
log, command = Path(sys.argv[1]), ["sh", "-c", sys.argv[2]]
process = Guarded(command, log=log, environment=os.environ, grace=0.3)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_outlives_vbisect(tmp_path: Path, mark: str, number: signal.Signals) -> None:
    """However vbisect ends, the command and all it started end within the grace."""
    log = tmp_path / "log"
    script = f"{AWAY} & ({DEAF}) & wait"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(log), script], env={**os.environ, MARK: mark}
    )
    until(lambda: {"away", "deaf"} <= set(said(tmp_path).split()))
    assert len(marked(mark)) >= 5
    holder.send_signal(number)
    assert holder.wait(10) == -number
    until(lambda: not marked(mark))


def test_orphans_are_found_by_their_owner(tmp_path: Path, mark: str) -> None:
    """Only processes of this run directory are ended, whoever their parent is."""
    owners = [tmp_path / "run", tmp_path / "run-2"]
    ours, theirs = (
        subprocess.Popen(
            ["sleep", "600"],
            env={**os.environ, MARK: mark, OWNER_VARIABLE: str(owner)},
            start_new_session=True,
        )
        for owner in owners
    )
    try:
        until(lambda: len(marked(mark)) == 2)
        assert end_orphans(owners[0]) == [ours.pid]
        ours.wait(10)
        assert marked(mark) == [psutil.Process(theirs.pid)]
        assert theirs.poll() is None
        assert end_orphans(owners[0]) == []
    finally:
        theirs.kill()
        theirs.wait()


UNMARKED = """
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(sleep, env={}, start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_orphans_take_along_what_they_started(tmp_path: Path, mark: str) -> None:
    """An engine may show another environment than its server, as one that sets its title does."""
    marks = {MARK: mark, OWNER_VARIABLE: str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", UNMARKED], env={**os.environ, **marks}, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        engine = psutil.Process(int(server.stdout.readline()))
        try:
            assert set(end_orphans(tmp_path)) == {server.pid, engine.pid}
            until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                engine.kill()


def test_pip_takes_no_module_from_where_it_is_started(tmp_path: Path) -> None:
    """The current directory may have been sent by anybody."""
    (tmp_path / "ctypes.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    done = subprocess.run(pip_command("--version"), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pip ")
    assert not (tmp_path / "executed").exists()


SCRATCH = """
import time
from vbisect.processes import scratch_directory
with scratch_directory() as folder:
    (folder / "half").touch()
    print(folder, flush=True)
    time.sleep(600)
"""


def test_scratch_goes_with_whoever_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed vbisect had is removed by the next; what is in use, or another's, is not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere" / "kept").mkdir(parents=True)
    (tmp_path / "vbisect-tmp-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "vbisect-tmp-file").touch()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", SCRATCH], env=environment, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        theirs = Path(holder.stdout.readline().strip())
        with scratch_directory() as ours:
            remove_abandoned()
            assert (theirs / "half").exists()
            holder.kill()
            holder.wait()
            remove_abandoned()
            assert not theirs.exists()
            assert ours.is_dir()
        assert not ours.exists()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"elsewhere", "vbisect-tmp-link", "vbisect-tmp-file"}
    assert (tmp_path / "elsewhere" / "kept").is_dir()
