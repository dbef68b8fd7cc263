"""Where vbisect keeps what outlives a run."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from vbisect.errors import HostError, UsageError
from vbisect.files import write_whole
from vbisect.locks import file_lock


def cache_root() -> Path:
    """The user's cache directory for vbisect; ``VBISECT_CACHE_DIR`` overrides it."""
    from platformdirs import user_cache_path

    configured = os.environ.get("VBISECT_CACHE_DIR")
    return (Path(configured) if configured else user_cache_path("vbisect")).absolute()


def host_identity() -> str:
    """A name that only this host's cache directory has, made up when it is first asked for.

    Raises ``HostError`` when it cannot be written.
    """
    path = cache_root() / "host"
    try:
        if known := _content(path):
            return known
        with file_lock(path.with_suffix(".lock"), wait=lambda: True):
            if not _content(path):  # also of one whose disk was full, or that was killed
                write_whole(path, uuid4().hex, durable=True)
            return _content(path)
    except OSError as error:
        raise HostError(f"The cache {path.parent} cannot be written: {error.strerror}.") from error


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def expanded(text: str, option: str = "The path") -> Path:
    """``text`` as a path, with ``~`` as a shell has it; raises ``UsageError`` for nobody's.

    ``option`` is what its message begins with.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{option} {text}: there is no such user.") from None


def with_tilde(path: Path) -> str:
    """``path`` as it is recorded: ``~`` for the user's home directory, and nothing else changed."""
    home = Path.home()
    return (
        f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)
    )
