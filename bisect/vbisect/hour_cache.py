"""Answers of others that hold for an hour: the next command need not ask again.

Kept in the cache directory, each below a digest of what was asked, which may hold secrets.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vbisect.files import Below, remove_below, write_whole
from vbisect.paths import cache_root

_SECONDS = 3600.0
_NAME = re.compile("[0-9a-f]{64}")
_LARGEST = 16 * 1024 * 1024  # bytes


def recall(question: Sequence[str]) -> Any:
    """The JSON value that answered ``question`` within the hour, ``None`` where there is none."""
    path = _path(question)
    try:
        age = time.time() - path.stat().st_mtime
        return json.loads(Below(path.parent, (path.name,)).read(_LARGEST)) if _new(age) else None
    except (OSError, ValueError, RecursionError):
        return None


def keep(question: Sequence[str], answer: Any) -> None:
    """Keep a JSON value for an hour; where that cannot be written, it is asked again."""
    path = _path(question)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.iterdir():
            ours = _NAME.fullmatch(other.name)
            if ours and not _new(time.time() - other.lstat().st_mtime):
                remove_below(path.parent, other.name)
        write_whole(path, json.dumps(answer))


def _path(question: Sequence[str]) -> Path:
    return cache_root() / "hour" / hashlib.sha256("\0".join(question).encode()).hexdigest()


def _new(age: float) -> bool:
    return 0 <= age < _SECONDS
