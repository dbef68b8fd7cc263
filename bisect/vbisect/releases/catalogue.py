"""The catalogue of releases shipped with vbisect, for use offline."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict


class CataloguedWheel(BaseModel):
    """One upload of a distribution that carries a release; ``uploaded`` is ISO 8601, UTC."""

    model_config = ConfigDict(frozen=True)

    version: str
    uploaded: str


class CatalogueEntry(BaseModel):
    """What is known of one release without asking anybody.

    ``uploaded`` is ISO 8601 in UTC, ``cuda`` the default CUDA of the release's image.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    uploaded: str
    requires_python: str
    torch: str
    cuda: str
    cpu_wheels: tuple[CataloguedWheel, ...] = ()


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """The shipped releases by version, oldest first (0.7.3 … 0.33.0)."""
    text = resources.files(__package__).joinpath("catalogue.json").read_text(encoding="utf-8")
    entries = [CatalogueEntry.model_validate(entry) for entry in json.loads(text)["releases"]]
    return {entry.version: entry for entry in entries}
