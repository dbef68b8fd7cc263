"""A free port on loopback, and the proof that our own server listens there."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port that was free on 127.0.0.1 a moment ago.

    Nothing can reserve it for a server that binds by itself; ``listens_on`` settles the race.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens_on(port: int, ancestor: int) -> bool:
    """Whether a process below process ``ancestor`` is the one listening on ``port``."""
    import psutil

    try:
        family = psutil.Process(ancestor).children(recursive=True)
    except psutil.NoSuchProcess:
        return False
    for process in family:
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
            return True
    return False
