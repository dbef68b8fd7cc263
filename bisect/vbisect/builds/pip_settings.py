"""The user's pip settings, handed on to uv, which does not read them.

pip itself reads its configuration files and environment (``pip config list``); what concerns
where packages come from becomes the ``UV_…`` variable with the same meaning
(https://docs.astral.sh/uv/reference/environment/). A ``UV_…`` variable the user has set wins.
Environment variables, not arguments, carry the addresses: they may hold credentials.
"""

from __future__ import annotations

import ast
import os
import subprocess
from functools import cache
from pathlib import Path

from vbisect.processes import pip_command

_SECTIONS = ("global", "install", ":env:")  # later ones win, as in pip


@cache
def pip_settings() -> dict[str, str]:
    """pip's effective settings by option name, such as ``find-links``."""
    listing = subprocess.run(
        pip_command("config", "list", "--disable-pip-version-check"),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    ).stdout
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in found:
            found[section][option] = str(ast.literal_eval(value))
    return {
        option: value for section in _SECTIONS for option, value in found[section].items() if value
    }


def uv_environment() -> dict[str, str]:
    """The environment uv runs in: this process's, with pip's settings translated."""
    environment = dict(os.environ)
    for name, value in _translate(pip_settings()).items():
        environment.setdefault(name, value)
    return environment


def _place(link: str) -> str:
    """A link as it is from anywhere: uv is run in another directory than vbisect."""
    return link if "://" in link else str(Path(link).expanduser().absolute())


def _translate(settings: dict[str, str]) -> dict[str, str]:
    words = {option: value.split() for option, value in settings.items()}
    translated = {
        "UV_DEFAULT_INDEX": settings.get("index-url", ""),
        "UV_INDEX": " ".join(words.get("extra-index-url", ())),
        "UV_FIND_LINKS": ",".join(map(_place, words.get("find-links", ()))),
        "UV_INSECURE_HOST": " ".join(words.get("trusted-host", ())),
        "UV_NO_INDEX": "1" if settings.get("no-index", "").lower() in ("1", "true", "yes") else "",
        "UV_HTTP_TIMEOUT": settings.get("timeout", settings.get("default-timeout", "")),
        "SSL_CERT_FILE": settings.get("cert", ""),
        "HTTPS_PROXY": settings.get("proxy", ""),
        "HTTP_PROXY": settings.get("proxy", ""),
    }
    if translated["UV_INDEX"]:
        # pip looks at all its indexes together; uv's default would stop at the first
        translated["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in translated.items() if value}
