"""The images that vbisect built, told by their labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from docker import DockerClient
from docker.errors import APIError, ImageNotFound
from docker.models.images import Image

from vbisect.builds.image_lock import Resolution
from vbisect.builds.image_request import BuiltImage, ImageBuildRequest
from vbisect.builds.image_template import LAYER_LABEL, template_digest

_BUILT = "vbisect.built"
_INPUTS = "vbisect.inputs"


@dataclass(frozen=True)
class StoredImage:
    """A built image on an engine; ``size`` in bytes, with all layers that it shares."""

    id: str
    tag: str
    size: int
    version: str


@dataclass(frozen=True)
class RemovedImage:
    """What became of a built image; ``in_use`` when a container kept it from being removed."""

    image: StoredImage
    in_use: bool


def labels_for(request: ImageBuildRequest, inputs: str, resolution: Resolution) -> dict[str, str]:
    """The labels of a finished image; ``inputs`` is the digest (hex) of what it is made of."""
    packages = sorted(f"{name}=={number}" for name, number in resolution.release.packages.items())
    labels = {
        _BUILT: "1",
        "vbisect.version": request.version,
        "vbisect.device": str(request.device),
        "vbisect.template": template_digest(request.template),
        _INPUTS: inputs,
        "vbisect.packages": " ".join(packages),
        "vbisect.notes": json.dumps(resolution.notes),
    }
    return labels | ({"vbisect.commit": request.commit} if request.commit else {})


def find_built(client: DockerClient, inputs: str) -> BuiltImage | None:
    """The finished image that was made of exactly ``inputs``, where the engine has it."""
    for image in client.images.list(filters={"label": [_BUILT, f"{_INPUTS}={inputs}"]}):
        if image.tags:
            return _built(image, reused=True, seconds=0.0)
    return None


def describe(client: DockerClient, id: str, seconds: float) -> BuiltImage:
    """The image that has just been built; ``seconds`` is what that took."""
    return _built(client.images.get(id), reused=False, seconds=seconds)


def built_images(client: DockerClient) -> list[StoredImage]:
    """All images that vbisect built and nobody has removed."""
    return [
        StoredImage(
            id=str(image.id),
            tag=image.tags[0] if image.tags else str(image.short_id),
            size=int(image.attrs["Size"]),
            version=_labels(image).get("vbisect.version", ""),
        )
        for image in client.images.list(filters={"label": _BUILT})
    ]


def remove_built_images(client: DockerClient, versions: tuple[str, ...] = ()) -> list[RemovedImage]:
    """Remove the built images of ``versions`` (all when empty), except those in use.

    When all go, so does what builds that failed or were given up have left.
    """
    removed = []
    for image in built_images(client):
        if not versions or image.version in versions:
            removed.append(RemovedImage(image, in_use=not _remove(client, image.id)))
    if not versions:
        # an image without a name and without children; its own layers go with it
        filters = {"label": LAYER_LABEL, "dangling": True}
        for left in client.images.list(filters=filters):
            _remove(client, str(left.id))
    return removed


def _remove(client: DockerClient, id: str) -> bool:
    """Whether it is gone now; a container, also a stopped one, keeps its image."""
    try:
        for tag in client.images.get(id).tags or [id]:
            client.images.remove(tag)
    except ImageNotFound:
        return True
    except APIError as error:
        if error.status_code != 409:
            raise
        return False
    return True


def _labels(image: Image) -> Mapping[str, str]:
    return image.labels or {}


def _built(image: Image, *, reused: bool, seconds: float) -> BuiltImage:
    labels = _labels(image)
    return BuiltImage(
        id=str(image.id),
        tag=image.tags[0],
        reused=reused,
        seconds=round(seconds, 3),
        packages=tuple(labels.get("vbisect.packages", "").split()),
        notes=tuple(json.loads(labels.get("vbisect.notes", "[]"))),
    )
