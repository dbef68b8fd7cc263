"""An image in a registry: what it is made of, before anything is pulled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict

_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_COMMIT_LABELS = (
    "vbisect.commit",
    "ai.vllm.build.commit",
    "org.opencontainers.image.revision",  # last: it is inherited from a base image that has it
)


def commit_of(labels: Mapping[str, str]) -> str | None:
    """The commit an image was built from, by its labels."""
    named = (labels.get(name, "") for name in _COMMIT_LABELS)
    return next((value.lower() for value in named if _COMMIT.fullmatch(value)), None)


class RemoteLayer(BaseModel):
    """One layer as it is stored and sent: ``size`` is its compressed bytes."""

    model_config = ConfigDict(frozen=True)

    digest: str
    size: int


class RemoteImage(BaseModel):
    """One image for one platform.

    ``digest`` is what the reference points at, which is the index where there is one.
    ``diff_ids`` are the digests of the uncompressed layers, in the order of ``layers``.
    ``variables`` are those that its containers begin with.
    """

    model_config = ConfigDict(frozen=True)

    reference: str
    digest: str
    layers: tuple[RemoteLayer, ...]
    diff_ids: tuple[str, ...]
    created: datetime | None
    labels: dict[str, str]
    entrypoint: tuple[str, ...]
    variables: dict[str, str] = {}

    @property
    def size(self) -> int:
        """Compressed bytes of all layers, a layer that occurs twice counted once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())

    @property
    def commit(self) -> str | None:
        """The commit the image was built from, by its labels."""
        return commit_of(self.labels)

    @property
    def layer_sizes(self) -> dict[str, int]:
        """Compressed bytes by diff id."""
        sizes = (layer.size for layer in self.layers)
        return dict(zip(self.diff_ids, sizes, strict=True))
