"""What images an engine runs, and which registries it speaks plain http to."""

from __future__ import annotations

from collections.abc import Callable

from vbisect.engine.connection import Engine
from vbisect.registry import is_loopback


def platform_of(engine: Engine) -> str:
    """The platform of an engine's images, as registries call it."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    architecture = str(engine.facts()["architecture"])
    return f"linux/{names.get(architecture, architecture)}"


def plain_http_registries(engine: Engine) -> Callable[[str], bool]:
    """Says of a registry whether the engine speaks plain http to it."""
    configured = engine.client.info().get("RegistryConfig") or {}
    insecure = {
        name
        for name, index in (configured.get("IndexConfigs") or {}).items()
        if not index.get("Secure", True)
    }
    return lambda host: host in insecure or is_loopback(host)
