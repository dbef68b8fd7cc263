"""The user's token for GitHub, wherever it is kept."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field

from vbisect.errors import UsageError

_VARIABLES = ("GITHUB_TOKEN", "GH_TOKEN")
_GH_SECONDS = 10


@dataclass(frozen=True)
class Token:
    """A token and where it is from; its value is never shown."""

    value: str = field(repr=False)
    source: str


def find_token(host: str) -> Token | None:
    """The token in ``GITHUB_TOKEN`` or ``GH_TOKEN``, else what ``gh`` has for ``host``.

    Raises ``UsageError`` when a variable holds something that can be no token.
    """
    for name in _VARIABLES:
        if value := os.environ.get(name, "").strip():
            if not re.fullmatch(r"[\x21-\x7e]{1,1000}", value):
                raise UsageError(f"{name} holds something that cannot be a token.")
            return Token(value, name)
    return _from_gh(host)


def _from_gh(host: str) -> Token | None:
    """https://cli.github.com/manual/gh_auth_token; a missing ``gh`` is no fault."""
    try:
        told = subprocess.run(
            ["gh", "auth", "token", "--hostname", host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GH_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    value = told.stdout.strip()
    usable = told.returncode == 0 and re.fullmatch(r"[\x21-\x7e]{1,1000}", value)
    return Token(value, "gh auth token") if usable else None
