"""What a host has for servers that compute on its processors: processors, and free memory.

Processors are those that this process may use, and as many as its control groups allow; memory is
what is available without swapping, and what these groups leave of it
(https://docs.kernel.org/admin-guide/cgroup-v2.html, and cgroup-v1/ beside it).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vbisect.engine import Engine

_LARGEST = 64 * 1024
"""Bytes; these files have some hundreds, ``memory.stat`` and ``meminfo`` some thousands."""

_OF_ANOTHER_MACHINE = 0.5
"""How much of the memory of another machine is taken to be free: an engine tells only all of it."""


@dataclass(frozen=True)
class Capacity:
    """Processors, and bytes of memory; ``None`` where nothing tells them."""

    processors: int | None
    memory: int | None


def host_capacity(root: Path = Path("/")) -> Capacity:
    """That of this machine for what this process starts; ``root`` is where its files are."""
    groups = list(_groups(root))
    allowed = [len(os.sched_getaffinity(0)), *_allowed(groups)]
    return Capacity(min(allowed), min((*_available(root), *_left(groups)), default=None))


def engine_capacity(engine: Engine, root: Path = Path("/")) -> Capacity:
    """That of the host of ``engine``, whose containers are in no group of this process."""
    processors, memory = engine.processors, engine.memory
    if engine.remote:
        return Capacity(processors, int(memory * _OF_ANOTHER_MACHINE) if memory else None)
    return Capacity(processors, min((*_available(root), *filter(None, [memory])), default=None))


def _available(root: Path) -> Iterator[int]:
    """What the whole machine has available."""
    kilobytes = _table(root / "proc/meminfo").get("MemAvailable:")
    if kilobytes is not None:
        yield kilobytes * 1024


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the control groups that this process is in, in which files of theirs may be.

    In a container the kernel may name a group as it is called outside, and show it as the root of
    all: so each folder on the way counts, as far as it is there.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            if controller not in ("", "cpu", "memory"):
                continue
            at = root / "sys/fs/cgroup" / controller
            yield at
            for name in Path(path.lstrip("/")).parts:
                at = at / name
                yield at


def _allowed(groups: list[Path]) -> Iterator[int]:
    """Processors that each group may keep busy, those of a quota rounded down."""
    for group in groups:
        quota, period = [*_words(group / "cpu.max"), "", ""][:2]
        if not quota:
            quota = " ".join(_words(group / "cpu.cfs_quota_us"))
            period = " ".join(_words(group / "cpu.cfs_period_us"))
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield max(1, int(quota) // int(period))


def _left(groups: list[Path]) -> Iterator[int]:
    """Bytes that each group leaves of its limit; what is only cached there is as good as free."""
    names = (
        ("memory.max", "memory.current", ("active_file", "inactive_file")),
        (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            ("total_active_file", "total_inactive_file"),
        ),
    )
    for group in groups:
        for limit, usage, cached in names:
            most, used = " ".join(_words(group / limit)), " ".join(_words(group / usage))
            if most.isdecimal() and used.isdecimal():
                told = _table(group / "memory.stat")
                yield max(0, int(most) - int(used) + sum(told.get(name, 0) for name in cached))


def _table(path: Path) -> dict[str, int]:
    """The first two words of each line that has a number."""
    words = (line.split() for line in _lines(path))
    return {w[0]: int(w[1]) for w in words if len(w) > 1 and w[1].isdecimal()}


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    """A file of the kernel's; none where there is no such file."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(_LARGEST).decode("ascii", "replace").splitlines()
    return []
