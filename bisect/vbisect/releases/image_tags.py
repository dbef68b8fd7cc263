"""The images a repository has for releases: digest, size and date, without pulling anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from vbisect.errors import UsageError
from vbisect.registry import (
    HubTag,
    ImageMissing,
    ImageReference,
    Registry,
    TagsCutOff,
    hub_tags,
)
from vbisect.registry.reference import DOCKER_HUB

_AT_ONCE = 8


class TaggedImage(BaseModel):
    """One tag of a repository; ``size`` is in compressed bytes."""

    model_config = ConfigDict(frozen=True)

    reference: str
    digest: str | None
    size: int
    created: datetime | None


def tagged_images(repository: str, versions: Iterable[str]) -> Mapping[str, TaggedImage]:
    """The images called ``v<version>`` by version; versions without one are left out.

    Raises ``HostError`` when the registry does not answer, ``UsageError`` for no repository.
    """
    parsed = ImageReference.parse(repository)
    wanted = {f"v{version}": version for version in versions}
    try:
        return _tagged(parsed, wanted)
    except ImageMissing as missing:
        raise UsageError(f"--image-repo {repository}: {missing}") from None


def _tagged(repository: ImageReference, wanted: Mapping[str, str]) -> Mapping[str, TaggedImage]:
    """The images whose tags are ``wanted``, by what those stand for."""
    if repository.registry == DOCKER_HUB:
        return {
            wanted[tag.name]: _of_hub(repository, tag)
            for tag in listed(repository)
            if tag.name in wanted
        }
    with Registry() as registry, ThreadPoolExecutor(_AT_ONCE) as pool:
        there = [tag for tag in registry.tags(repository) if tag in wanted]
        images = pool.map(lambda tag: registry.image(repository.with_tag(tag)), there)
        return {
            wanted[tag]: TaggedImage(
                reference=image.reference,
                digest=image.digest,
                size=image.size,
                created=image.created,
            )
            for tag, image in zip(there, images, strict=True)
        }


def listed(repository: ImageReference) -> tuple[HubTag, ...]:
    """Docker Hub's own listing, which does not count as pulling; as much as may be seen.

    Raises ``ImageMissing`` for no such repository, ``HostError``.
    """
    try:
        return hub_tags(repository.repository)
    except TagsCutOff as cut:
        return cut.tags


def _of_hub(repository: ImageReference, tag: HubTag) -> TaggedImage:
    return TaggedImage(
        reference=str(repository.with_tag(tag.name)),
        digest=tag.digest,
        size=tag.size,
        created=tag.updated,
    )
