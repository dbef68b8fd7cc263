"""Facts about this machine that belong to the evidence, and that decide what it can run."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

from vbisect.releases.cuda import Card
from vbisect.releases.fitness import COMPILER, HEADERS, LIBNUMA, Host, Part
from vbisect.run.gpus import OUTSIDE, Gpu, GpuListing, list_gpus


@cache
def host_facts() -> dict[str, Any]:
    """Operating system, C library, processors, memory in bytes, and GPUs with their driver."""
    import psutil

    listing = list_gpus()
    return {
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "cpus": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "gpus": [gpu_line(gpu, listing.driver) for gpu in listing.gpus if not gpu.instance],
    }


def gpu_line(gpu: Gpu, driver: str | None) -> str:
    """A GPU's name, memory and driver version, as ``NVIDIA H20, 97871 MiB, 565.57.01``."""
    memory = f"{gpu.memory_total // 2**20} MiB" if gpu.memory_total else "memory not told"
    return ", ".join([gpu.name or "unknown GPU", memory, driver or "driver not told"])


def gpu_host(listing: GpuListing) -> Host:
    """What decides which releases the GPUs of ``listing`` can run, but for those left to others."""
    seen = {gpu.index for gpu in listing.gpus if gpu.busy != OUTSIDE}
    cards = dict.fromkeys(
        Card(gpu.name, gpu.brand, gpu.capability)
        for gpu in listing.gpus
        if not gpu.instance and gpu.uuid and gpu.index in seen
    )
    return Host(listing.driver, listing.cuda, tuple(cards), platform.machine())


def missing_parts() -> frozenset[Part]:
    """What this machine lacks of the system's parts that servers on processors may need.

    Compilers look where ``CXX`` and ``CPATH`` say, and for the headers of the Python that
    environments are made from, which is that of vbisect.
    """
    compiler = next(iter(os.environ.get("CXX", "").split()), "g++")
    named = filter(None, os.environ.get("CPATH", "").split(os.pathsep))
    folders = [sysconfig.get_path("include"), *named]
    there = {
        LIBNUMA: _can_load(LIBNUMA.name),
        COMPILER: shutil.which(compiler) is not None,
        HEADERS: any(Path(folder, HEADERS.name).exists() for folder in folders),
    }
    return frozenset(part for part, found in there.items() if not found)


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
