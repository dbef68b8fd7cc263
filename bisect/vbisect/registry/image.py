"""An image in a registry: what it is made of, before anything is pulled."""

from __future__ import annotations

import re
from datetime import datetime

from pydantic import BaseModel, ConfigDict

_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")


class RemoteLayer(BaseModel):
    """One layer as it is stored and sent: ``size`` is its compressed bytes."""

    model_config = ConfigDict(frozen=True)

    digest: str
    size: int


class RemoteImage(BaseModel):
    """One image for one platform.

    ``digest`` is what the reference points at, which is the index where there is one.
    ``diff_ids`` are the digests of the uncompressed layers, in the order of ``layers``.
    """

    model_config = ConfigDict(frozen=True)

    reference: str
    digest: str
    layers: tuple[RemoteLayer, ...]
    diff_ids: tuple[str, ...]
    created: datetime | None
    labels: dict[str, str]
    entrypoint: tuple[str, ...]

    @property
    def size(self) -> int:
        """Compressed bytes of all layers, a layer that occurs twice counted once."""
        return sum({layer.digest: layer.size for layer in self.layers}.values())

    @property
    def commit(self) -> str | None:
        """The commit the image was built from, by its labels.

        vLLM's own label goes first: the general one is inherited from a base image that has it.
        """
        for name in ("ai.vllm.build.commit", "org.opencontainers.image.revision"):
            if _COMMIT.fullmatch(self.labels.get(name, "")):
                return self.labels[name].lower()
        return None
