"""The user's login at a registry, as Docker's own configuration holds it."""

from __future__ import annotations

import threading
import time
import warnings
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vbisect.registry.credential_helper import HelperFailed, ask_helper
from vbisect.registry.reference import DOCKER_HUB, login_command

_LEFT_ALONE_SECONDS = 300.0


class _Said(NamedTuple):
    """Why a helper failed, and until when, by the monotonic clock, it is not asked again."""

    words: str
    until: float


_said: dict[str, _Said] = {}
"""By registry."""

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

    def for_engine(self, registry: str) -> dict[str, str]:
        """As an engine takes it, in ``X-Registry-Auth``.

        https://docs.docker.com/reference/api/engine/version/v1.41/#section/Authentication
        """
        login = {"username": self.username, "password": self.password}
        token = {"identitytoken": self.identity_token}
        return {**(token if self.identity_token else login), "serveraddress": registry}

    @staticmethod
    def kept(username: str, secret: str) -> Credentials | None:
        """As a helper has it: the name ``<token>`` is for an identity token."""
        if username == "<token>":
            return Credentials(identity_token=secret)
        return Credentials(username, secret) if username and secret else None


def credentials_for(registry: str) -> Credentials | None:
    """What ``docker login`` stored for ``registry``; ``None`` when there is nothing to be had.

    A credential helper that fails counts as nothing: most images need no login at all. What it
    said is in ``login_advice``, for whoever is refused.
    """
    import docker.auth

    with _lock, warnings.catch_warnings():  # the filters of warnings are shared by all threads
        warnings.simplefilter("ignore")
        try:
            configuration = docker.auth.load_config()
            name = configuration.get_credential_store(registry)
            server = docker.auth.INDEX_URL if registry == DOCKER_HUB else registry
            found = _kept_by(name, server, registry) if name else None
            if found is None:
                in_the_file = docker.auth.AuthConfig({"auths": configuration.auths})
                found = _read(in_the_file.resolve_authconfig(registry) or {})
            return found
        # the SDK lets through whatever a broken configuration sets off
        except Exception:
            return None


def login_advice(registry: str) -> str:
    """What a user types to log in at ``registry``, and what keeps the login there is from use."""
    command = f"`{login_command(registry)}`"
    said = _said.get(registry)
    return f"{command} ({said.words})" if said else command


def _kept_by(name: str, server: str, registry: str) -> Credentials | None:
    """What a credential helper has; one that failed is left alone for a while."""
    said = _said.get(registry)
    if said is not None and time.monotonic() < said.until:
        return None
    try:
        found = ask_helper(name, server)
    except HelperFailed as failed:
        _said[registry] = _Said(str(failed), time.monotonic() + _LEFT_ALONE_SECONDS)
        return None
    _said.pop(registry, None)
    return found and Credentials.kept(*found)


def _read(found: Mapping[str, Any]) -> Credentials | None:
    if token := found.get("IdentityToken"):
        return Credentials(identity_token=str(token))
    if (username := found.get("username")) and (password := found.get("password")):
        return Credentials(username=str(username), password=str(password))
    return None
