"""An ``ssh://`` address names a login whose machine has an engine's socket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

DEFAULT_SOCKET = "/var/run/docker.sock"

_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[^/]*)@)?(?P<host>\[[^\]/@]+\]|[^:/@\[\]]+)(?::(?P<port>\d{1,5}))?"
    r"(?P<socket>/.*)?",
    re.IGNORECASE | re.DOTALL,
)
# What ssh itself refuses on its command line since 9.6, because a ProxyCommand's shell sees it:
# https://www.openssh.com/txt/release-9.6
_UNSAFE = re.compile(r"[\s\x00-\x20\x7f'\"`$\\;&<>|(){}]|^-")
# ssh expands % and ${…} in the paths of sockets, and ends them at a colon
_UNSAFE_PATH = re.compile(r"[\s\x00-\x20\x7f:%$]")


@dataclass(frozen=True)
class Destination:
    """Where ssh has to log in; ``socket`` is the engine's on that machine.

    ``host`` keeps its case: it may be an alias of the user's ssh configuration.
    """

    host: str
    user: str | None = None
    port: int | None = None
    socket: str = DEFAULT_SOCKET

    @property
    def arguments(self) -> list[str]:
        """The end of an ssh command line: all options are before it."""
        user = ["-l", self.user] if self.user else []
        port = ["-p", str(self.port)] if self.port else []
        return [*user, *port, "--", self.host]


def parse_destination(url: str) -> Destination:
    """The destination that ``ssh://[user@]host[:port][/path/to/docker.sock]`` names.

    Raises ``ValueError``, saying what is wrong without repeating the address.
    """
    match = _ADDRESS.fullmatch(url)
    if match is None:
        raise ValueError("expected ssh://[user@]host[:port][/path/to/docker.sock]")
    user = unquote(match["user"]) if match["user"] is not None else None
    host = match["host"].strip("[]")
    port = int(match["port"]) if match["port"] else None
    socket = match["socket"] if match["socket"] not in (None, "/") else DEFAULT_SOCKET
    if user is not None and ":" in user:
        raise ValueError("a password cannot be given here; use a key")
    if user == "" or any(_UNSAFE.search(word) for word in (user or "", host)):
        raise ValueError("the user or the host is no name that ssh takes")
    if port is not None and not 0 < port < 65536:
        raise ValueError("the port is out of range")
    if _UNSAFE_PATH.search(socket):
        raise ValueError("the path of the socket has characters that ssh does not take")
    return Destination(host, user, port, socket)
