"""Find and end what an earlier vbisect left behind when even its guards were killed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vbisect.processes.scratch import remove_abandoned

if TYPE_CHECKING:
    import psutil

OWNER_VARIABLE = "VBISECT_OWNER"
"""Set, to the run directory, in the environment of every process a run starts."""


def end_orphans(run_dir: Path) -> list[int]:
    """Kill processes marked as belonging to ``run_dir``; returns their ids.

    What killed vbisects left in the temporary directory goes too. Call it only while holding the
    run directory's lock: then no living vbisect owns the processes.
    """
    ended = end_marked(OWNER_VARIABLE, str(run_dir.absolute()))
    remove_abandoned()
    return ended


def end_marked(variable: str, value: str) -> list[int]:
    """Kill all other processes with ``variable=value`` in their environment, and all below those.

    Returns their ids. What was started below may have another environment, or none that shows.
    """
    import psutil

    ended: list[int] = []
    while left := _marked(variable, value):
        for process in left:  # one of them may begin another meanwhile, which is marked too
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(left, timeout=10)
        ended += [process.pid for process in left]
        if alive:
            break
    return ended


def _marked(variable: str, value: str) -> list[psutil.Process]:
    import psutil

    everything = list(psutil.process_iter())
    children: dict[int, list[psutil.Process]] = {}
    for process in everything:
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                children.setdefault(process.ppid(), []).append(process)
    found = {p.pid: p for p in everything if _is_marked(p, variable, value)}
    todo = list(found)
    while todo:
        below = [p for p in children.get(todo.pop(), ()) if p.pid not in found]
        found |= {process.pid: process for process in below if process.pid != os.getpid()}
        todo += [process.pid for process in below if process.pid != os.getpid()]
    return list(found.values())


def _is_marked(process: psutil.Process, variable: str, value: str) -> bool:
    import psutil

    try:
        return process.pid != os.getpid() and process.environ().get(variable) == value
    except (psutil.Error, OSError):
        return False
