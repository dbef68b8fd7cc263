"""How the packages of an image are reached: this machine's settings, as its build needs them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vbisect.builds.pip_settings import uv_environment
from vbisect.errors import HostError

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_ADDRESSES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
_CHOICES = ("UV_NO_INDEX", "UV_INDEX_STRATEGY")
_REACHING = ("ALL_PROXY", "UV_HTTP_TIMEOUT", "UV_INSECURE_HOST")
_CREDENTIALS = re.compile(r"://[^/\s\"']*@")


def index_settings() -> dict[str, str]:
    """What decides which packages there are: part of what an image is made of."""
    environment = uv_environment()
    return {name: environment[name] for name in (*_ADDRESSES, *_CHOICES) if environment.get(name)}


def refuse_credentials(texts: Iterable[str]) -> None:
    """Raise ``HostError`` when one of ``texts`` holds an address with a user and password."""
    if any(_CREDENTIALS.search(text) for text in texts):
        raise HostError(
            "An address of a package index holds a user name or password. Images are not built "
            "with it, because it would stay readable inside them: use an address without, or "
            "--runtime venv."
        )


def certificates() -> bytes | None:
    """The bundle of certificate authorities that the user has chosen over the built-in one.

    Raises ``HostError`` when it cannot be read.
    """
    path = uv_environment().get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise HostError(f"The certificates in {path} cannot be read: {error.strerror}.") from None


def build_arguments(files_address: str) -> dict[str, str]:
    """Build arguments for all that neither an image nor its layers' identity may depend on.

    Docker keeps just these names out of both (docs.docker.com, "Predefined ARGs"). FTP_PROXY is
    none: it carries what ``images/inside/install.py`` reads.
    """
    environment = uv_environment()
    found = {name: _setting(environment, name) for name in _PROXIES}
    arguments = {name: value for name, value in found.items() if value}
    if arguments:
        arguments["NO_PROXY"] = ",".join(filter(None, (found["NO_PROXY"], "127.0.0.1")))
    arguments |= {name.lower(): value for name, value in arguments.items()}
    reaching = {name: environment[name] for name in _REACHING if environment.get(name)}
    told = {"files": files_address, "environment": reaching}
    return {**arguments, "FTP_PROXY": json.dumps(told)}


def _setting(environment: Mapping[str, str], name: str) -> str:
    """Tools differ in which case they read; most take both."""
    return environment.get(name) or environment.get(name.lower()) or ""
