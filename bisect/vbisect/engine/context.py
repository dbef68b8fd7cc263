"""The current Docker context is chosen as Docker's own command line chooses it.

Docker's SDK (``docker.context``) is not asked. Where ``DOCKER_CONFIG`` has no ``config.json`` it
takes the contexts of the home directory, or of the working directory, and a context that is not
there becomes the default engine without a word: containers would start on the wrong machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.errors import TLSParameterError
from docker.tls import TLSConfig

from vbisect.errors import UsageError


@dataclass(frozen=True)
class Endpoint:
    """An engine as a context names it; ``host`` is empty for the default socket."""

    context: str
    host: str
    tls: TLSConfig | None


def current_endpoint() -> Endpoint | None:
    """The endpoint of the current context, ``None`` where that is the default one.

    Raises ``UsageError`` for a context that is not there, or that cannot be read.
    """
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    named = os.environ.get("DOCKER_CONTEXT")
    if not named:
        config = folder / "config.json"
        named = _read(config).get("currentContext") if config.exists() else None
    if not named or named == "default":
        return None
    # https://github.com/docker/cli/blob/v28.2.2/cli/context/store/store.go
    identity = hashlib.sha256(str(named).encode()).hexdigest()
    metadata = folder / "contexts" / "meta" / identity / "meta.json"
    if not metadata.exists():
        raise UsageError(
            f"The Docker context {named!r} is not in {folder}; "
            "'docker context ls' lists those that are there."
        )
    try:
        endpoint = _read(metadata)["Endpoints"]["docker"]
        host, verify = str(endpoint.get("Host", "")), not endpoint.get("SkipTLSVerify", False)
    except (KeyError, TypeError, AttributeError):
        raise UsageError(f"The Docker context {named!r} names no Docker engine.") from None
    certificates = folder / "contexts" / "tls" / identity / "docker"
    return Endpoint(str(named), host, _tls(certificates, verify))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is damaged: it holds no JSON object.")
    return content


def _tls(folder: Path, verify: bool) -> TLSConfig | None:
    """The TLS material of a context, any part of which may be missing."""
    parts = [folder / name for name in ("ca.pem", "cert.pem", "key.pem")]
    ca, certificate, key = (str(part) if part.exists() else None for part in parts)
    if not (ca or certificate or key):
        return None
    client = (certificate, key) if certificate and key else None
    try:
        return TLSConfig(client_cert=client, ca_cert=ca, verify=verify)
    except TLSParameterError:
        raise UsageError(f"The certificates in {folder} cannot be read.") from None
