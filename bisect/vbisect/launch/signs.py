"""Signs of life of a server that boots: its log, the data it moves, the processors it uses."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

_SLOWEST = 16 * 2**10
"""Bytes a second that count as moving data: less is heartbeats and polling."""

_BUSIEST_IDLE = 0.1
"""Processors in use that count as working: a server that only waits uses less."""

SPINNING = 3
"""A server that does nothing but compute is waited for so many times the boot timeout: what
compiles may be silent for long, and so is what spins for ever."""


@dataclass(frozen=True)
class Counters:
    """What all processes of a server did so far: bytes moved from and to disks and networks,
    seconds of processors."""

    moved: int = 0
    computed: float = 0.0


def tree_counters(root: int) -> Counters:
    """What the process ``root`` and all below it did.

    What a process reads through a mapping is only among the bytes from disk, what it gets from a
    network only among those it writes then
    (https://www.kernel.org/doc/html/latest/filesystems/proc.html, /proc/<pid>/io).
    """
    import psutil

    moved, computed = 0, 0.0
    with suppress(psutil.Error):
        parent = psutil.Process(root)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error, OSError):
                io = process.io_counters()
                moved += io.read_chars + io.write_chars + io.read_bytes
                computed += sum(process.cpu_times()[:4])  # those of its children that ended too
    return Counters(moved, computed)


class Patience:
    """How long a server is waited for; moments in seconds of any one clock.

    A line of log and data that moves begin the ``boot_timeout`` anew. So does computing, but only
    ``SPINNING`` times since the last of the others.
    """

    def __init__(self, boot_timeout: float, now: float, log_size: int) -> None:
        self._boot_timeout = boot_timeout
        self._alive = self._progressed = now
        self._log_size = log_size
        self._counters = Counters()

    def take(self, now: float, log_size: int, counters: Counters) -> None:
        """What the server has logged, and done, by ``now``."""
        before = self._counters
        if counters.moved < before.moved or counters.computed < before.computed:
            # processes ended and took their counts along
            self._counters = before = counters
        moved = counters.moved - before.moved >= _SLOWEST * self._boot_timeout
        computed = counters.computed - before.computed >= _BUSIEST_IDLE * self._boot_timeout
        if log_size != self._log_size or moved:
            self._progressed = now
        elif not computed:
            return
        self._alive, self._log_size, self._counters = now, log_size, counters

    def over(self, now: float) -> str | None:
        """Why the server is waited for no longer, if it is so."""
        if now - self._alive > self._boot_timeout:
            return f"silent for {self._boot_timeout:.0f} s"
        if now - self._progressed > SPINNING * self._boot_timeout:
            return f"busy without a word for {SPINNING * self._boot_timeout:.0f} s"
        return None
