"""Find and end what an earlier vbisect left behind when even its guards were killed."""

from __future__ import annotations

from pathlib import Path

OWNER_VARIABLE = "VBISECT_OWNER"
"""Set, to the run directory, in the environment of every process a run starts."""


def end_orphans(run_dir: Path) -> list[int]:
    """Kill processes marked as belonging to ``run_dir``; returns their ids.

    Call it only while holding the run directory's lock: then no living vbisect owns them.
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
    return [process.pid for process in left]
