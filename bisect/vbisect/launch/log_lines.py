"""The lines of a server's log as they are written, whatever they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_LONGEST = 64 * 1024
"""Bytes of a line that are looked at; the rest of a longer one is passed over."""


class LogLines:
    """Reads ``log`` from byte ``start`` on, a little at a time; it may grow meanwhile."""

    def __init__(self, log: Path, start: int = 0) -> None:
        self._log = log
        self._position = start
        self._within_line = False

    def new(self) -> Iterator[str]:
        """The lines that were finished since the last call, none while there is no log.

        Bytes that are no UTF-8 are replaced. A line that is being written comes the next time.
        """
        try:
            with self._log.open("rb") as handle:
                handle.seek(self._position)
                while piece := handle.readline(_LONGEST):
                    ends = piece.endswith(b"\n")
                    if not ends and len(piece) < _LONGEST:
                        return
                    begins, self._within_line = not self._within_line, not ends
                    self._position += len(piece)
                    if begins:
                        yield piece.decode("utf-8", errors="replace").rstrip("\r\n")
        except OSError:
            return
