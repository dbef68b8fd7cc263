"""A full disk is a fault of the host, wherever it is met and whatever it looks like there."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vbisect.errors import HostError
from vbisect.reasons import Untestable

WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|(?:os error|Errno) 28\b", re.IGNORECASE
)
"""What programs say of it; uv gives the system's number."""

_SHARED_MEMORY = re.compile(
    r"/dev/shm|shared[ _]memory|unable to write to file </torch_", re.IGNORECASE
)

_ENOUGH = 1 << 20
"""Bytes: the log of a server that boots is smaller, and so is all that a trial writes."""


def is_full(error: OSError) -> bool:
    """Whether it was for want of room that something could not be written."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def line_about(text: str) -> str | None:
    """The first line of ``text`` that tells of a full disk, if any.

    Shared memory is full in the same words (NCCL, torch), and how much a release needs is its own.
    In a traceback the place stands up to two lines above.
    """
    above: tuple[str, ...] = ()
    for line in text.split("\n") if WORDS.search(text) else ():
        if WORDS.search(line) and not any(map(_SHARED_MEMORY.search, (*above, line))):
            return line
        above = (*above[-1:], line)
    return None


@contextmanager
def with_room_in(*folders: Path) -> Iterator[None]:
    """A skip in the block stands only if there is room in ``folders``, as far as they exist.

    Raises ``HostError`` in its place where a mebibyte cannot be written: whatever wrote there may
    have failed for that alone.
    """
    try:
        yield
    except Untestable:
        for folder in folders:
            _look_at(folder)
        raise


def _look_at(folder: Path) -> None:
    """By writing: what the system calls free counts for nothing where there is a quota."""
    if not folder.exists():
        return
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as handle:  # it has no name to leave
            left = _ENOUGH
            while left:
                left -= handle.write(os.urandom(left))
    except OSError as error:
        raise HostError(
            f"Nothing can be written to {folder}: {error.strerror}. Free space there, then resume "
            "the run."
        ) from None
