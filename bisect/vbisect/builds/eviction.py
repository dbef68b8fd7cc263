"""Find and remove environments that vbisect made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vbisect.builds.environment import MARKER, environments_root
from vbisect.files import remove_below
from vbisect.locks import Locked, file_lock
from vbisect.paths import cache_root


@dataclass(frozen=True)
class Evicted:
    """What ``evict`` did with one environment; ``freed`` in bytes, 0 when it is in use."""

    name: str
    freed: int
    in_use: bool


def evict(versions: tuple[str, ...] = ()) -> Iterator[Evicted]:
    """Remove the environments of ``versions`` (all when empty), except those that a run holds.

    Each is told once it is gone: there may be many gigabytes of them.
    """
    root = environments_root()
    for lock in sorted(root.glob("*.lock")):
        path = lock.with_suffix("")
        if versions and not any(_carries(path.name, version) for version in versions):
            continue
        try:
            with file_lock(lock):
                if path.exists():
                    freed = _own_bytes(path)
                    (path / MARKER).unlink(missing_ok=True)  # half of it is none of it
                    remove_below(root, path.name)
                    freed += _remove_kernels(path.name)
                    yield Evicted(path.name, freed, in_use=False)
        except Locked:
            yield Evicted(path.name, 0, in_use=True)


def _remove_kernels(name: str) -> int:
    """Remove what servers compiled where vbisect kept it once; returns the bytes that gave back."""
    above = cache_root() / "inductor"
    freed = _own_bytes(above / name)
    if (above / name).exists():
        remove_below(above, name)
    return freed


def _carries(name: str, version: str) -> bool:
    """Whether an environment of this name holds ``version`` or a rebuild of it."""
    installed = name.removesuffix("-latest-deps").rpartition("-")[2]
    return installed == version or installed.startswith(f"{version}.post")


def _own_bytes(path: Path) -> int:
    """Bytes that removing ``path`` gives back: files also linked from uv's cache stay."""
    stats = (file.lstat() for file in path.rglob("*"))
    return sum(stat.st_blocks * 512 for stat in stats if stat.st_nlink == 1)
