"""The user's token for GitHub, wherever it is kept."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field

from vbisect.connections import can_be_token
from vbisect.errors import UsageError

_VARIABLES = ("GITHUB_TOKEN", "GH_TOKEN")
_GH_SECONDS = 10
_LONGEST = 1000


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
            if not (len(value) <= _LONGEST and can_be_token(value)):
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
    usable = told.returncode == 0 and len(value) <= _LONGEST and can_be_token(value)
    return Token(value, "gh auth token") if usable else None
