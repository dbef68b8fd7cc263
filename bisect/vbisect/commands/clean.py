"""``vbisect clean``: give back the disk that environments take."""

from __future__ import annotations

from vbisect.builds.eviction import evict


def remove_environments(versions: tuple[str, ...]) -> None:
    """Remove environments and say how much that freed."""
    done = evict(versions)
    for item in done:
        print(f"{item.name}: in use, kept" if item.in_use else f"{item.name}: removed")
    freed = sum(item.freed for item in done)
    removed = sum(not item.in_use for item in done)
    print(f"{removed} environments removed, {freed / 1e9:.2f} GB freed (uv's own cache is kept)")
