"""A child process under guard: started once, ended once, never left behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_GUARD = Path(__file__).with_name("guard.py")


class Guarded:
    """A command in its own session, its output appended to ``log``.

    ``environment`` replaces the whole environment; ``grace`` is the time in seconds between
    SIGTERM and SIGKILL. Raises ``OSError`` when the command cannot be started at all.
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
        self._result: int | str | None = None
        self._lock = threading.Lock()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", str(_GUARD), str(grace), str(log.absolute()), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )

    @property
    def guard_pid(self) -> int:
        """Process id of the guard, the ancestor of everything the command starts."""
        return self._guard.pid

    def poll(self) -> int | None:
        """The command's return code (negative: ended by that signal), ``None`` while it runs."""
        if self._guard.poll() is None and self._result is None:
            return None
        return self._read_result()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to ``timeout`` seconds for the end; as ``poll``."""
        try:
            self._guard.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return self._read_result()

    def stop(self) -> int:
        """End the command and everything it started; returns its return code."""
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            self._guard.stdin.close()
        self._guard.wait()
        return self._read_result()

    def __enter__(self) -> Guarded:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _read_result(self) -> int:
        with self._lock:
            if self._result is None:
                assert self._guard.stdout is not None
                line = self._guard.stdout.read().decode(errors="replace").strip()
                self._guard.stdout.close()
                # a guard that was killed itself took the command with it and printed nothing
                self._result = int(line) if line.lstrip("-").isdigit() else (line or -9)
        if isinstance(self._result, str):
            raise OSError(self._result)
        return self._result
