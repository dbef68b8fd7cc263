"""The log of an image build: every line as it comes, without secrets."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vbisect.errors import HostError
from vbisect.text import without_secrets

_STEP = "Step "
_CHATTER = re.compile(r"\s*--->|Removing intermediate container ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # the builder's, around every piece of stderr
_TELLING_LINES = 20


class BuildLog:
    """Appends to the file at ``path``; raises ``HostError`` when that cannot be done.

    ``tail`` holds the last lines that the command of the present step printed.
    """

    def __init__(self, path: Path) -> None:
        self.tail: deque[str] = deque(maxlen=_TELLING_LINES)
        self._path = path
        self._begun = ""
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Write nothing more."""
        self.end_line()
        self._handle.close()

    def write(self, text: str) -> None:
        """Add ``text``, which may begin or end anywhere in a line."""
        *lines, self._begun = _COLOUR.sub("", self._begun + text).split("\n")
        for line in filter(str.strip, lines):
            if line.startswith(_STEP):
                self.tail.clear()
            elif not _CHATTER.match(line):
                self.tail.append(line)
            with self._writing():
                self._handle.write(without_secrets(line) + "\n")
        if lines:
            with self._writing():
                self._handle.flush()

    def end_line(self) -> None:
        """What comes next is on a line of its own."""
        if self._begun:
            self.write("\n")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HostError(f"Cannot write {self._path}: {error.strerror}.") from error
