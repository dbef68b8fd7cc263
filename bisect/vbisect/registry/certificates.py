"""The certificates that engines have for a registry: those of its authority, and the user's own.

https://docs.docker.com/engine/security/certificates/ (rootless, below ``XDG_CONFIG_HOME``: moby's
``registry.CertsDir``); Podman's folders are those of containers-certs.d(5).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from vbisect.connections import new_context
from vbisect.errors import HostError
from vbisect.text import one_line

CERTIFICATES = Path("/etc/docker/certs.d")


def context_for(registry: str, *, direct: bool) -> ssl.SSLContext:
    """What HOST[:PORT] is trusted by: what the system trusts, and the engine's own for it.

    ``direct`` leaves the environment's settings out. Raises ``HostError`` for certificates that
    cannot be used.
    """
    context = new_context(direct=direct)
    context.load_default_certs()
    for path in _files(registry):
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(cafile=path)
            elif path.suffix == ".cert":
                context.load_cert_chain(path, path.with_suffix(".key"), _no_password)
        except OSError as error:  # ssl's own among them
            words = error.strerror or str(error)
            raise HostError(f"{path} cannot be used for {registry}: {one_line(words)}.") from None
    return context


def _files(registry: str) -> Iterator[Path]:
    own = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    for base in (Path(own).expanduser(), CERTIFICATES.parents[1]):
        for engine in ("docker", "containers"):
            folder = base / engine / "certs.d" / registry
            if folder.is_dir():
                yield from sorted(folder.iterdir())


def _no_password() -> str:
    """Without this, OpenSSL asks on the terminal."""
    return ""
