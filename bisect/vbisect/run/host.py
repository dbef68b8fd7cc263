"""Facts about this machine that belong to the evidence."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from typing import Any

from vbisect.text import one_line


@cache
def host_facts() -> dict[str, Any]:
    """Operating system, C library, processors, memory in bytes, and GPUs with their driver."""
    import psutil

    return {
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "cpus": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "gpus": gpus(),
    }


@cache
def gpus() -> list[str]:
    """One line for each GPU that nvidia-smi lists: name, memory, driver version."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listing = subprocess.run(
            [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if listing.returncode:
        return []
    return [one_line(line) for line in listing.stdout.splitlines() if line.strip()]
