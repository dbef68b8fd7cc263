"""Which images vbisect has pulled into an engine, so that it removes those only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from vbisect.errors import HostError
from vbisect.files import write_whole
from vbisect.locks import file_lock
from vbisect.paths import cache_root


class Entry(BaseModel):
    """When an image was pulled, and as what."""

    model_config = ConfigDict(frozen=True)

    reference: str
    at: datetime

    def carries(self, versions: tuple[str, ...]) -> bool:
        """Whether its tag is that of one of ``versions``, in whatever variant."""
        tag = self.reference.rpartition(":")[2]
        return any(tag == f"v{version}" or tag.startswith(f"v{version}-") for version in versions)


class _Content(BaseModel):
    images: dict[str, Entry]


class Ledger:
    """A file for each engine: image names by digest, with when they were pulled.

    A pull is entered before it begins, so that one finished by the engine after vbisect was killed
    is known too. Raises ``HostError`` when the cache directory cannot be written.
    """

    def __init__(self, engine_identity: str) -> None:
        digest = hashlib.sha256(engine_identity.encode()).hexdigest()[:16]
        self._path = cache_root() / "images" / f"{digest}.json"

    def enter(self, name: str, reference: str) -> None:
        """``name`` (``repository@sha256:…``) is about to be pulled, and was not there before.

        ``reference`` is what it was asked for as, ``repository:tag``.
        """
        entry = Entry(reference=reference, at=datetime.now(UTC))
        with self._changed() as entries:
            entries.setdefault(name, entry)

    def strike(self, name: str) -> None:
        """``name`` is gone."""
        with self._changed() as entries:
            entries.pop(name, None)

    def entries(self) -> dict[str, Entry]:
        """What was entered by name, the oldest first."""
        return dict(sorted(self._read().items(), key=lambda item: item[1].at))

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Entry]]:
        try:
            with file_lock(self._path.with_suffix(".lock"), wait=lambda: True):
                entries = self._read()
                yield entries
                content = _Content(images=entries).model_dump_json(indent=1)
                write_whole(self._path, content, durable=True)
        except OSError as error:
            raise HostError(f"Cannot write {self._path}: {error.strerror}.") from error

    def _read(self) -> dict[str, Entry]:
        try:
            return _Content.model_validate_json(self._path.read_text(encoding="utf-8")).images
        except FileNotFoundError:
            return {}
        except ValueError:
            # a damaged ledger must not make vbisect forget what it pulled
            raise HostError(f"{self._path} is damaged; remove it.") from None
