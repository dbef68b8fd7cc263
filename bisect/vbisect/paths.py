"""Where vbisect keeps what outlives a run."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """The user's cache directory for vbisect; ``VBISECT_CACHE_DIR`` overrides it."""
    from platformdirs import user_cache_path

    configured = os.environ.get("VBISECT_CACHE_DIR")
    return (Path(configured) if configured else user_cache_path("vbisect")).absolute()


def with_tilde(path: Path) -> str:
    """``path`` as it is recorded: ``~`` for the user's home directory, and nothing else changed."""
    home = Path.home()
    return (
        f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)
    )
