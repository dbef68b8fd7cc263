"""Log lines as vLLM and uvicorn write them."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO


class Log:
    """Writes lines in one of the three styles that releases have used."""

    def __init__(self, style: str) -> None:
        self._style = style

    def info(self, where: str, text: str, engine_pid: int | None = None) -> None:
        """One line of vLLM's own logger, on stdout; from the engine when its pid is given."""
        self._line("INFO", where, text, engine_pid, sys.stdout)

    def error(self, text: str) -> None:
        """An error with its traceback's last line bare, on stderr, as a dying vLLM leaves it."""
        self._line("ERROR", "core.py:700", text, os.getpid(), sys.stderr)
        _write(f"{self._prefix()}{text}", sys.stderr)

    def uvicorn(self, text: str, stream: TextIO | None = None) -> None:
        """One line of uvicorn's logger."""
        _write(f"{self._prefix()}INFO:     {text}", stream or sys.stdout)

    def _prefix(self) -> str:
        return f"(APIServer pid={os.getpid()}) " if self._style == "process" else ""

    def _line(
        self, level: str, where: str, text: str, engine_pid: int | None, stream: TextIO
    ) -> None:
        prefix = self._prefix()
        if prefix and engine_pid is not None:
            prefix = f"(EngineCore pid={engine_pid}) "
        place = f"{where}]" if self._style == "plain" else f"[{where}]"
        _write(f"{prefix}{level} {time.strftime('%m-%d %H:%M:%S')} {place} {text}", stream)


def _write(line: str, stream: TextIO) -> None:
    # One write for the whole line: threads would interleave print's text and newline.
    stream.write(line + "\n")
    stream.flush()
