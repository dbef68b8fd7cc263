"""The address of an engine comes from an argument, the environment or a Docker context."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from docker.errors import DockerException
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env, parse_host

from vbisect.engine.context import current_endpoint
from vbisect.engine.destination import DEFAULT_SOCKET, Destination, parse_destination
from vbisect.errors import UsageError
from vbisect.text import one_line

UNNAMED = "Docker's default"
"""Who gave the address where nobody did."""


@dataclass(frozen=True)
class Address:
    """A well-formed address, as given; ``source`` says in words who gave it.

    ``host`` is that of an HTTP(S) address, ``ssh`` the destination of an SSH address; both are
    ``None`` for a socket of this machine.
    """

    url: str
    source: str
    host: str | None = None
    tls: TLSConfig | None = None
    ssh: Destination | None = None

    @property
    def where(self) -> str:
        """The address for messages, without user or password."""
        if self.host is None and self.ssh is None:
            return self.url
        return _without_credentials(self.url)

    @property
    def remote(self) -> bool:
        """Whether the engine is on another machine."""
        return self.ssh is not None or (self.host is not None and not _is_loopback(self.host))


def engine_address(docker_host: str | None = None) -> Address:
    """The address of the engine the user means: as Docker's command line finds it.

    ``docker_host`` is what ``--docker-host`` gave. Raises ``UsageError`` when what is given is
    malformed.
    """
    if docker_host is not None:
        return _parse(docker_host, "--docker-host")
    if named := os.environ.get("DOCKER_HOST"):
        return _parse(named, "DOCKER_HOST")
    default = f"unix://{DEFAULT_SOCKET}"
    endpoint = current_endpoint()
    if endpoint is None:
        return _parse(default, UNNAMED)
    source = f"the Docker context {endpoint.context!r}"
    parsed = _parse(endpoint.host or default, source, from_environment=False)
    return Address(parsed.url, source, parsed.host, endpoint.tls, parsed.ssh)


def _parse(given: str, source: str, *, from_environment: bool = True) -> Address:
    """``from_environment``: whether the environment's TLS settings are about this address."""
    url = given.strip()
    try:
        if not url:
            raise ValueError("it is empty")
        if url.lower().startswith("ssh:"):
            return Address(url, source, ssh=parse_destination(url))
        normal = _normal(url)
    except ValueError as error:
        shown = _without_credentials(url)
        raise UsageError(
            one_line(f"{source} gives no address of a Docker engine: {shown!r}: {error}.")
        ) from None
    host = urlsplit(normal).hostname if normal.startswith(("http://", "https://")) else None
    tls = _environment_tls() if host is not None and from_environment else None
    return Address(url, source, host, tls)


def _environment_tls() -> TLSConfig | None:
    """What DOCKER_TLS_VERIFY and DOCKER_CERT_PATH ask for."""
    try:
        return kwargs_from_env().get("tls")
    except DockerException:
        folder = os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker"
        raise UsageError(
            f"DOCKER_TLS_VERIFY or DOCKER_CERT_PATH asks for TLS, but {folder} has not all of "
            "ca.pem, cert.pem, key.pem."
        ) from None


def _normal(url: str) -> str:
    """The address in the SDK's own form. Raises ``ValueError``."""
    try:
        normal = str(parse_host(url))
    except (ValueError, DockerException) as error:
        # the SDK repeats the address, with its password
        raise ValueError("it is malformed" if "@" in url else str(error)) from None
    if not normal.startswith(("http+unix://", "http://", "https://")):
        raise ValueError("expected unix://, tcp:// or ssh://")
    return normal


def _without_credentials(url: str) -> str:
    return re.sub(r"^(\w*:/+|).*@", r"\1", url, flags=re.DOTALL)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
