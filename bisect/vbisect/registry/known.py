"""What images are made of, asked once in an hour: a registry may count each answer as a pull."""

from __future__ import annotations

from pydantic import ValidationError

from vbisect.hour_cache import keep, recall
from vbisect.registry.answer import ImageMissing
from vbisect.registry.client import Registry
from vbisect.registry.image import RemoteImage
from vbisect.registry.reference import ImageReference


def known_image(registry: Registry, reference: ImageReference, platform: str) -> RemoteImage:
    """As ``Registry.image``, by digest: what a tag points at is asked each time, by HEAD."""
    digest = reference.digest or registry.digest(reference)
    if digest is None:
        raise ImageMissing(f"{reference.registry} has no {reference}.")
    pinned = reference.with_digest(digest)
    question = ("image", str(pinned), platform)
    try:
        image = RemoteImage.model_validate(recall(question))
    except ValidationError:
        image = registry.image(pinned, platform)
        keep(question, image.model_dump(mode="json"))
    return image.model_copy(update={"reference": str(reference)})
