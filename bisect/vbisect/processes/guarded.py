"""A child process under guard: started once, ended once, never left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from vbisect.errors import EngineLost
from vbisect.processes.orphans import end_marked

_GUARD = Path(__file__).with_name("guard.py")

_MARK = "VBISECT_GUARD"
"""Set in the environment of all below a guard, by which they are found when it is gone."""

_KEEP_MARKS = {"SPT_NOENV": "1"}
"""Keeps setproctitle, which vLLM uses, from writing titles over the environment that the kernel
shows of a process, and so over the marks."""


_PATIENCE = 30.0
"""Seconds, beside the grace, that a guard may take to end what it guards; it needs ten at most."""


class Guarded:
    """A command in its own session, its output appended to ``log``.

    ``environment`` replaces the whole environment; ``grace`` is the time in seconds between
    SIGTERM and SIGKILL. ``poll`` and ``wait`` raise ``OSError`` when the command could not be
    started, and ``EngineLost`` when the guard was killed, which says nothing of the command: it and
    all it started have been ended then.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        directory: Path | None = None,
        grace: float = 10.0,
    ) -> None:
        self._result: int | Exception | None = None
        self._lock = threading.Lock()
        self._mark = uuid4().hex
        self._command = command[0]
        self._grace = grace
        self._guard = subprocess.Popen(
            [sys.executable, "-I", str(_GUARD), str(grace), str(log.absolute()), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, **_KEEP_MARKS, _MARK: self._mark},
            cwd=directory,
            start_new_session=True,
        )

    @property
    def guard_pid(self) -> int:
        """Process id of the guard, the ancestor of everything the command starts."""
        return self._guard.pid

    def poll(self) -> int | None:
        """The command's return code (negative: ended by that signal), ``None`` while it runs."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to ``timeout`` seconds for the end; as ``poll``."""
        try:
            self._guard.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return self._told()

    def stop(self) -> int:
        """End the command and everything it started; returns its return code.

        Raises ``OSError`` when it could not be started.
        """
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            self._guard.stdin.close()
        try:
            self._guard.wait(self._grace + _PATIENCE)
        except subprocess.TimeoutExpired:  # it was stopped: nobody else would end it
            self._guard.kill()
            self._guard.wait()
        try:
            return self._told()
        except EngineLost:
            return -signal.SIGKILL

    def __enter__(self) -> Guarded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As ``stop``; whoever wanted to know how it ended has asked."""
        with suppress(OSError):
            self.stop()

    def _told(self) -> int:
        """What the guard, which has ended, told of the command."""
        with self._lock:
            if self._result is None:
                self._result = self._read_result()
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    def _read_result(self) -> int | Exception:
        assert self._guard.stdout is not None
        line = self._guard.stdout.read().decode(errors="replace").strip()
        self._guard.stdout.close()
        if line.lstrip("-").isdigit():
            return int(line)
        if line:
            return OSError(line)
        end_marked(_MARK, self._mark)
        name = Path(self._command).name
        return EngineLost(f"The guard of {name} was killed; what it guarded has been ended.")
