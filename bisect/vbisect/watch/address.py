"""Where a running server is, and how to name it without its password."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from vbisect.errors import UsageError
from vbisect.text import one_line


@dataclass(frozen=True)
class Address:
    """``base_url`` has no trailing ``/v1`` and may hold a password, ``shown`` never does.

    ``near`` for a server on this host, which no proxy stands before.
    """

    base_url: str = field(repr=False)
    shown: str
    near: bool

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read a URL as given, with or without ``/v1``; raises ``UsageError``."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise UsageError("The URL is none: write it as in http://127.0.0.1:8000.") from None
        if parts.scheme not in ("http", "https") or not host:
            shown = one_line(text.rpartition("@")[2], 80)
            raise UsageError(f"{shown} is no URL: write it as in http://127.0.0.1:8000.")
        if parts.query or parts.fragment:
            raise UsageError("The URL: leave out everything from the first ? or # on.")
        path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
        place = f"[{host}]" if ":" in host else host
        place += f":{port}" if port is not None else ""
        return cls(
            base_url=urlunsplit((parts.scheme, parts.netloc, path, "", "")),
            shown=one_line(urlunsplit((parts.scheme, place, path, "", ""))),
            near=_is_near(host),
        )


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
