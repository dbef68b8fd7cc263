"""Find and end what an earlier vbisect left behind when even its guards were killed."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNER_VARIABLE = "VBISECT_OWNER"
"""Set, to the run directory, in the environment of every process a run starts."""


def end_orphans(run_dir: Path) -> list[int]:
    """Kill processes marked as belonging to ``run_dir``; returns their ids.

    Their scratch directories go too. Call it only while holding the run directory's lock: then no
    living vbisect owns them.
    """
    import psutil

    owner = str(run_dir.absolute())
    left: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(OWNER_VARIABLE) == owner:
                left.append(process)
        except (psutil.Error, OSError):
            continue
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=10)
    for folder in Path(tempfile.gettempdir()).glob(f"{_scratch_prefix(run_dir)}*"):
        shutil.rmtree(folder, ignore_errors=True)
    return [process.pid for process in left]


@contextmanager
def scratch_directory(run_dir: Path) -> Iterator[Path]:
    """A temporary directory for what a run starts; its path is short, as unix sockets need it."""
    prefix = _scratch_prefix(run_dir)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as path:
        yield Path(path)


def _scratch_prefix(run_dir: Path) -> str:
    return f"vbisect-{hashlib.sha256(str(run_dir.absolute()).encode()).hexdigest()[:8]}-"
