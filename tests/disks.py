"""Small disks, which tests fill."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of this size at `place`, or a skip where none can be mounted; in CI, a failure."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "vbisect-test", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode and os.environ.get("VBISECT_CI"):
        pytest.fail(f"{done.stderr}, and VBISECT_CI is set")
    if done.returncode:
        pytest.skip(done.stderr)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leaving: int = 0) -> Path:
    """A file that leaves so many bytes for anything else."""
    path = disk / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as handle:
        while True:
            handle.write(b"x" * (1 << 20))
    os.truncate(path, path.stat().st_size - leaving)
    return path
