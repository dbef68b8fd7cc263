"""A launched server, and everything that decides how one is started."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict


class LaunchSpec(BaseModel):
    """How a server is started, whatever runs it; ``boot_timeout`` in seconds.

    ``model`` may begin with ``~``, ``owner`` is the run directory the server belongs to. ``gpus``
    are those it may use, by index (or UUID, of a MIG instance); none named: as for all servers.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    model: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    boot_timeout: float
    log: Path
    owner: Path
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a server ended: its exit status, negative for a signal.

    ``out_of_memory`` when it is known that the kernel ended it, or one of its processes, for that.
    """

    code: int
    out_of_memory: bool = False

    def __str__(self) -> str:
        return f"signal {-self.code}" if self.code < 0 else f"exit status {self.code}"


@dataclass(frozen=True)
class Server:
    """A launched, ready server. ``boot_seconds`` is the time from start to ready,
    ``log_bytes`` the length of its log at that moment.

    ``wait`` gives how the server ended if it ends within so many seconds, else ``None``.
    """

    base_url: str
    model: str
    reported_version: str
    command: tuple[str, ...]
    boot_seconds: float
    log_bytes: int
    wait: Callable[[float], Ended | None]

    def listens(self) -> bool:
        """Whether it can still be connected to."""
        address = urlsplit(self.base_url)
        try:
            socket.create_connection((address.hostname, address.port), 5).close()
        except OSError:
            return False
        return True
