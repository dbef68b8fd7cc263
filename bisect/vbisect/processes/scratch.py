"""Temporary directories that go with the vbisect that made them, however it ends.

Each is locked while it is in use. The kernel drops the lock of a vbisect that was killed, by which
the next one knows what was left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "vbisect-tmp-"


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A temporary directory for the block; its path is short, as unix sockets need it."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with suppress(FileNotFoundError):
            handle = _open(path)
            if _lock(handle) is not False and path.exists():
                break  # else another vbisect took it for left behind just now
            os.close(handle)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def remove_abandoned() -> None:
    """Remove the directories of this user's that no living vbisect holds."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, or a file or link of that name
            handle = _open(path)
            try:
                if os.fstat(handle).st_uid == os.getuid() and _lock(handle):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _lock(handle: int) -> bool | None:
    """Whether it was free; ``None`` where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
