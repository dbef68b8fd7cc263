"""The user's login at a registry, as Docker's own configuration holds it."""

from __future__ import annotations

import threading
import warnings
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_lock = threading.Lock()


@dataclass(frozen=True)
class Credentials:
    """A user name with a password, or an identity token alone; never shown."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The header for HTTP Basic authentication (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {b64encode(pair).decode()}"


def credentials_for(registry: str) -> Credentials | None:
    """What ``docker login`` stored for ``registry``; ``None`` when there is nothing to be had.

    A credential helper that fails counts as nothing: most images need no login at all.
    """
    import docker.auth

    with _lock, warnings.catch_warnings():  # the filters of warnings are shared by all threads
        warnings.simplefilter("ignore")  # a missing helper is warned of, on the screen
        try:
            configuration = docker.auth.load_config()
            found = docker.auth.resolve_authconfig(configuration, registry)
            return _read(found or {})
        # the SDK lets through whatever a broken configuration or a helper's output sets off
        except Exception:
            return None


def _read(found: Mapping[str, Any]) -> Credentials | None:
    """The entry's names are capitalised when it comes from a helper."""
    entry = {name.lower(): value for name, value in found.items()}
    if token := entry.get("identitytoken"):
        return Credentials(identity_token=str(token))
    if (username := entry.get("username")) and (password := entry.get("password")):
        return Credentials(username=str(username), password=str(password))
    return None
