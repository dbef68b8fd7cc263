"""Run one command and outlive vbisect just long enough to end it; a script, never imported.

Usage: ``python -I guard.py GRACE_SECONDS LOG COMMAND [ARG…]``. The command gets its own session,
no standard input, and ``LOG`` (appended) for its output. It is ended (TERM to its group, KILL after
the grace, then KILL to every descendant that left the group) when the guard's standard input
closes, which the kernel does for any end of vbisect, SIGKILL included. The guard prints one line,
the command's return code as ``subprocess`` gives it, and ends.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_SECONDS = 10  # how long killed processes are waited for


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_guard() -> None:
    """In the child: a guard that is itself killed takes the command with it."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _adopted() -> list[int]:
    """Processes below this one, those that started their own session included (subreaper)."""
    found: list[int] = []
    todo = [os.getpid()]
    while todo:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{todo[0]}/task/{todo[0]}/children").read_text()
            children = [int(word) for word in text.split()]
            found += children
            todo += children
        del todo[0]
    return found


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _reap() -> None:
    """Let go of children that have ended; only once the command's own end is known."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _group_alive(group: int) -> bool:
    """Whether any process of the group is left that is not a zombie of ours."""
    _reap()
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _end(child: "subprocess.Popen[bytes]", grace: float) -> int:
    code = child.poll()
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        code = child.poll() if code is None else code
        if code is not None and not _group_alive(child.pid):
            break
        time.sleep(0.02)
    _signal_group(child.pid, signal.SIGKILL)
    code = child.wait() if code is None else code
    deadline = time.monotonic() + _KILL_SECONDS
    while (left := _adopted()) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        _reap()
        time.sleep(0.005)
    return code


def main() -> None:
    grace, log, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # vbisect alone decides when the command ends
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        with Path(log).open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_start_child,
            )
    except OSError as error:
        where = "" if error.filename == command[0] else f"{error.filename}: "
        print(f"cannot start {command[0]}: {where}{error.strerror}", flush=True)
        return
    while child.poll() is None:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 512)
        if 0 in ready:  # vbisect never writes here: readable means closed
            break
    code = _end(child, grace)
    with contextlib.suppress(BrokenPipeError):  # vbisect may not be there any more to hear it
        os.write(1, f"{code}\n".encode())


def _start_child() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _die_with_guard()


if __name__ == "__main__":
    main()
