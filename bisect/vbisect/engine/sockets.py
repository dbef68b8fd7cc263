"""Sockets of engines that nobody named, where they usually are: they are told of, never taken.

Docker's command line takes none of them either: which engine's disk is filled is for its user to
say.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def usual_sockets() -> list[Path]:
    """Where engines listen beside Docker's own default: that of rootless Docker
    (https://docs.docker.com/engine/security/rootless/), those of Podman
    (podman-system-service(1))."""
    own = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    podman = Path("podman") / "podman.sock"
    return [own / "docker.sock", own / podman, "/run" / podman]


def other_engines() -> str:
    """A sentence on the sockets among them that this user may use; empty where there are none."""
    found = [f"--docker-host unix://{path}" for path in usual_sockets() if _is_usable(path)]
    return f"Another engine's socket is there: pass {' or '.join(found)}." if found else ""


def _is_usable(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode) and os.access(path, os.R_OK | os.W_OK)
    except OSError:
        return False
