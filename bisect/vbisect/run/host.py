"""Facts about this machine that belong to the evidence, and that decide what it can run."""

from __future__ import annotations

import os
import platform
from functools import cache
from typing import Any

from vbisect.releases.cuda import Card
from vbisect.releases.fitness import Host
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
