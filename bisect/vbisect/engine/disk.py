"""The disk that an engine's images fill."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CONTAINERD = "/var/lib/containerd"
_SIZES = re.compile(r"\s(\d+)\s+\d+\s+(\d+)\s+\d+%\s")


@dataclass(frozen=True)
class Disk:
    """A file system: its size, what is free on it for this user; in bytes."""

    total: int
    free: int


def image_folders(info: Mapping[str, Any]) -> list[str]:
    """Where an engine with this ``/info`` may keep its images; the first that exists is it.

    An engine with containerd's image store (the default of new installations from 29.0) keeps
    them outside its own directory: https://docs.docker.com/engine/storage/containerd/
    """
    folders = [str(info.get("DockerRootDir", ""))]
    status = {str(row[0]): str(row[1]) for row in info.get("DriverStatus") or ()}
    if status.get("driver-type", "").startswith("io.containerd.snapshotter"):
        folders.insert(0, _CONTAINERD)
    return [folder for folder in folders if folder.startswith("/")]


def local_disk(info: Mapping[str, Any]) -> Disk | None:
    """The disk of the engine behind a socket of this machine, ``None`` when it cannot be known."""
    # behind the socket can be a virtual machine whose paths mean nothing here
    if info.get("KernelVersion") != os.uname().release:
        return None
    for folder in image_folders(info):
        try:
            usage = shutil.disk_usage(folder)
        except OSError:
            continue
        return Disk(usage.total, usage.free)
    return None


def disk_of_df(text: str) -> Disk | None:
    """The disk that ``df -Pk FOLDER`` printed, in kibibytes; ``None`` when that is not there."""
    sizes = _SIZES.search(text.rstrip().rpartition("\n")[2])
    return Disk(int(sizes[1]) * 1024, int(sizes[2]) * 1024) if sizes else None
