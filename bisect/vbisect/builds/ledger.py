"""Which images vbisect has pulled into an engine, so that it removes those only."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from vbisect.errors import HostError
from vbisect.locks import file_lock
from vbisect.paths import cache_root


class Ledger:
    """A file for each engine: image names by digest, with when they were pulled.

    A pull is entered before it begins, so that one finished by the engine after vbisect was killed
    is known too. Raises ``HostError`` when the cache directory cannot be written.
    """

    def __init__(self, engine_identity: str) -> None:
        digest = hashlib.sha256(engine_identity.encode()).hexdigest()[:16]
        self._path = cache_root() / "images" / f"{digest}.json"

    def enter(self, name: str) -> None:
        """``name`` (``repository@sha256:…``) is about to be pulled, and was not there before."""
        with self._changed() as names:
            names.setdefault(name, datetime.now(UTC).isoformat())

    def strike(self, name: str) -> None:
        """``name`` is gone."""
        with self._changed() as names:
            names.pop(name, None)

    def names(self) -> dict[str, str]:
        """Every name entered, with the time, oldest first."""
        return dict(sorted(self._read().items(), key=lambda item: item[1]))

    @contextmanager
    def _changed(self) -> Iterator[dict[str, str]]:
        try:
            with file_lock(self._path.with_suffix(".lock"), wait=lambda: True):
                names = self._read()
                yield names
                unfinished = self._path.with_suffix(".part")
                with unfinished.open("w", encoding="utf-8") as handle:
                    json.dump({"images": names}, handle, indent=1)
                    handle.flush()
                    os.fsync(handle.fileno())
                unfinished.rename(self._path)
        except OSError as error:
            raise HostError(f"Cannot write {self._path}: {error.strerror}.") from error

    def _read(self) -> dict[str, str]:
        try:
            content: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            # a damaged ledger must not make vbisect forget what it pulled
            raise HostError(f"{self._path} is damaged; remove it.") from None
        return dict(content["images"])
