"""Where vbisect keeps what outlives a run."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """The user's cache directory for vbisect; ``VBISECT_CACHE_DIR`` overrides it."""
    from platformdirs import user_cache_path

    configured = os.environ.get("VBISECT_CACHE_DIR")
    return (Path(configured) if configured else user_cache_path("vbisect")).absolute()
