"""The JSON documents of an image, as the OCI and Docker formats have them.

https://github.com/opencontainers/image-spec/blob/main/manifest.md (image-index.md, config.md);
Docker's older formats have the same fields: https://distribution.github.io/distribution/spec/
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from vbisect.registry.reference import DIGEST

ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
"""The ``Accept`` header for manifests; without it, registries convert to formats of long ago."""

Digest = Annotated[str, Field(pattern=DIGEST)]

_TIME: TypeAdapter[datetime] = TypeAdapter(datetime)


def _known_time(value: Any) -> datetime | None:
    """``None`` for no time at all, and for year 1, Go's zero."""
    try:
        time = _TIME.validate_python(value)
    except ValidationError:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return time if time.year > 1 else None


def _none_is_empty(value: Any) -> Any:
    return value or ()


class Platform(BaseModel):
    """``os/architecture``, and ``/variant`` where there are several."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        """``os/architecture``."""
        return f"{self.os}/{self.architecture}"

    def fits(self, asked: str) -> bool:
        """Whether this is the platform ``asked`` for; what is not said fits anything."""
        mine = (self.os, self.architecture, self.variant)
        return all(
            not has or has == wants for has, wants in zip(mine, asked.split("/"), strict=False)
        )


class Descriptor(BaseModel):
    """A reference to other content; ``size`` in bytes."""

    digest: Digest
    size: int = Field(ge=0)
    platform: Platform | None = None


class Manifest(BaseModel):
    """An index, which has ``manifests``, or one image, which has ``config`` and ``layers``."""

    manifests: tuple[Descriptor, ...] | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None


class RootFilesystem(BaseModel):
    """The digests of the uncompressed layers, lowest first."""

    diff_ids: Annotated[tuple[Digest, ...], BeforeValidator(_none_is_empty)] = ()


class RunConfig(BaseModel):
    """How a container of the image is started."""

    labels: dict[str, str] | None = Field(default=None, alias="Labels")
    entrypoint: tuple[str, ...] | None = Field(default=None, alias="Entrypoint")
    variables: tuple[str, ...] | None = Field(default=None, alias="Env")


class ImageConfig(Platform):
    """What Docker shows of an image; its digest is the image's ID."""

    created: Annotated[datetime | None, BeforeValidator(_known_time)] = None
    config: RunConfig | None = None
    rootfs: RootFilesystem
