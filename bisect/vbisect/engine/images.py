"""What images an engine runs, and which registries it speaks plain http to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from socket import getaddrinfo
from urllib.parse import urlsplit

from vbisect.engine.connection import Engine
from vbisect.registry import is_loopback
from vbisect.registry.reference import DOCKER_HUB


def platform_of(engine: Engine) -> str:
    """The platform of an engine's images, as registries call it."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    architecture = str(engine.facts()["architecture"])
    return f"linux/{names.get(architecture, architecture)}"


def plain_http_registries(engine: Engine) -> Callable[[str], bool]:
    """Says of a registry whether the engine speaks plain http to it.

    By name, or by an address in one of its networks, as dockerd does
    (https://docs.docker.com/reference/cli/dockerd/#insecure-registries).
    """
    configured = engine.client.info().get("RegistryConfig") or {}
    secure = {
        name: bool(index.get("Secure", True))
        for name, index in (configured.get("IndexConfigs") or {}).items()
    }
    networks = list(_networks(configured.get("InsecureRegistryCIDRs") or ()))

    @cache
    def plain_http(host: str) -> bool:
        if host in secure:
            return not secure[host]
        return is_loopback(host) or any(
            address in network for address in _addresses(host) for network in networks
        )

    return plain_http


def _networks(texts: Iterable[str]) -> Iterator[IPv4Network | IPv6Network]:
    for text in texts:
        with suppress(ValueError):
            yield ip_network(text, strict=False)


def _addresses(host: str) -> list[IPv4Address | IPv6Address]:
    """Those of HOST[:PORT], none where nobody knows any; Docker Hub is in nobody's network."""
    name = urlsplit(f"//{host}").hostname or ""
    if f".{name}".endswith(f".{DOCKER_HUB}"):
        return []
    try:
        found = getaddrinfo(name, None)
    except (OSError, UnicodeError):
        return []
    return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
