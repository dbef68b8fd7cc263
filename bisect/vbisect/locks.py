"""Advisory file locks between vbisect processes; the kernel drops them when a process dies."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vbisect.files import Below, append_to


class Locked(Exception):
    """Somebody else holds the lock."""


@contextmanager
def file_lock(
    path: Path, *, shared: bool = False, wait: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Hold ``path`` locked. While it is taken, ``wait`` says whether to go on waiting.

    Raises ``Locked`` when it is taken and ``wait`` says no.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with append_to(path) as handle:
        while True:
            try:
                mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(handle, mode | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not wait():
                    raise Locked(str(path)) from None
                time.sleep(0.2)
        yield


def is_at_work(run_dir: Path) -> bool:
    """Whether a living vbisect holds the run; also when that cannot be told.

    Nothing is written: the run may be somebody else's.
    """
    try:
        with (Below(run_dir) / "lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True
