"""The images an engine has: which of them vbisect pulled, and what each takes of the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, ImageNotFound, NotFound
from pydantic import BaseModel, ConfigDict
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

from vbisect.builds.ledger import Ledger
from vbisect.engine.faults import engine_faults
from vbisect.registry import commit_of

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.2

if TYPE_CHECKING:
    from docker.models.images import Image

    from vbisect.engine.connection import Engine


class LocalImage(BaseModel):
    """An image on the engine's host.

    ``reference`` is what was asked for, ``digest`` the registry's, or the image's own id where it
    never was in one. ``layers`` maps layers to their bytes when unpacked. ``unchecked`` means that
    the registry could not be asked what ``reference`` points at now.
    """

    model_config = ConfigDict(frozen=True)

    reference: str
    id: str
    digest: str
    entrypoint: tuple[str, ...]
    commit: str | None
    labels: dict[str, str]
    layers: dict[str, int]
    unchecked: bool = False

    @property
    def size(self) -> int:
        """Bytes of all its layers."""
        return sum(self.layers.values())


class ImageStore:
    """The engine's images, as seen and changed by several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._layers: dict[str, dict[str, int]] = {}
        self._lock = threading.RLock()
        self.ledger = Ledger(engine.identity)

    def find(self, reference: str) -> LocalImage | None:
        """The image called ``reference``, ``repository:tag`` or ``repository@sha256:…``."""
        with engine_faults(self._engine.title):
            try:
                image = _steadily(self._engine.client.images.get, reference)
            except ImageNotFound:
                return None
            return self._described(image, reference)

    def pulled_as(self, reference: str) -> LocalImage | None:
        """The image that vbisect last pulled as ``reference``: it has no tag to be found by."""
        for name, entry in reversed(self.ledger.entries().items()):
            image = self.find(name) if entry.reference == reference else None
            if image is not None:
                return image.model_copy(update={"reference": reference})
        return None

    def built(self, version: str, device: str) -> LocalImage | None:
        """The newest image vbisect built for a release."""
        labels = [f"vbisect.version={version}", f"vbisect.device={device}", "vbisect.built"]
        with engine_faults(self._engine.title):
            found = _steadily(self._engine.client.images.list, filters={"label": labels})
            found = [image for image in found if image.tags]
            if not found:
                return None
            newest = max(found, key=lambda image: str(image.attrs.get("Created", "")))
            return self._described(newest, newest.tags[0])

    def names(self) -> frozenset[str]:
        """What the images there are called, or were called when vbisect pulled them."""
        with engine_faults(self._engine.title):
            found = _steadily(self._engine.client.api.images)
        digests = {name for image in found for name in image["RepoDigests"] or ()}
        tags = {name for image in found for name in image["RepoTags"] or ()}
        pulled = {e.reference for name, e in self.ledger.entries().items() if name in digests}
        return frozenset(tags | pulled)

    def present_layers(self) -> frozenset[str]:
        """Every layer (by diff id) that some image has."""
        return frozenset(layer for image in self._all() for layer in self._layers_of(image))

    def own(self) -> dict[str, dict[str, int]]:
        """The images vbisect pulled, by name, the oldest first, each with its layers.

        A layer that an image of somebody else has too costs nothing and is left out.
        """
        names = self.ledger.entries()
        images = self._all()
        known = {digest: image for image, digests in images.items() for digest in digests}
        own = {name: known[name] for name in names if name in known}
        foreign = {
            layer for image in images.keys() - own.values() for layer in self._layers_of(image)
        }
        return {
            name: {layer: n for layer, n in self._layers_of(image).items() if layer not in foreign}
            for name, image in own.items()
        }

    def remove(self, name: str) -> bool:
        """Remove an image vbisect pulled; ``False`` when a container still needs it."""
        with engine_faults(self._engine.title):
            try:
                self._engine.client.images.remove(name)
            except (ImageNotFound, NotFound):
                pass
            except APIError as error:
                if error.status_code == 409:
                    return False
                raise
        self.ledger.strike(name)
        return True

    def _all(self) -> dict[str, list[str]]:
        """Every image by its id, with its names by digest."""
        with engine_faults(self._engine.title):
            # the SDK's own list looks at each image, and fails when one goes meanwhile
            found = _steadily(self._engine.client.api.images)
        return {str(image["Id"]): list(image["RepoDigests"] or ()) for image in found}

    def _described(self, image: Image, reference: str) -> LocalImage:
        config = image.attrs["Config"] or {}
        labels = {str(k): str(v) for k, v in (config.get("Labels") or {}).items()}
        name = reference.partition("@")[0].rpartition(":")[0] or reference
        digests = [
            digest.partition("@")[2]
            for digest in image.attrs["RepoDigests"] or ()
            if digest.startswith(f"{reference.partition('@')[0]}@") or digest.startswith(f"{name}@")
        ]
        asked = reference.partition("@")[2]
        return LocalImage(
            reference=reference,
            id=str(image.id),
            digest=asked or next(iter(digests), str(image.id)),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            commit=commit_of(labels),
            labels=labels,
            layers=self._layers_of(str(image.id)),
        )

    def _layers_of(self, identity: str) -> dict[str, int]:
        """Layers with their sizes: the history has the sizes, in the same order, without names.

        A layer of no bytes has no entry that could be told from a mere setting; it comes last.
        Where the history cannot be read, the uppermost layer counts for the whole image.
        """
        with self._lock:
            if identity not in self._layers:
                with engine_faults(self._engine.title), suppress(ImageNotFound, NotFound):
                    whole = _steadily(self._engine.client.images.get, identity)
                    names: Sequence[str] = whole.attrs["RootFS"].get("Layers") or ()
                    self._layers[identity] = self._sized(whole, names)
            return self._layers.get(identity, {})

    def _sized(self, image: Image, layers: Sequence[str]) -> dict[str, int]:
        try:
            with engine_faults(self._engine.title):
                sizes = [step["Size"] for step in reversed(image.history()) if step["Size"]]
        except (ImageNotFound, NotFound):
            raise
        except APIError:  # Podman 4.3 fails where a step has no date
            return dict.fromkeys(layers, 0) | dict.fromkeys(layers[-1:], int(image.attrs["Size"]))
        return dict(zip(layers, [*sizes, *([0] * len(layers))], strict=False))


def _steadily(ask: Callable[..., Any], *words: Any, **more: Any) -> Any:
    """What an engine says of its images, asked again where it failed.

    While one of them is removed, Podman answers with an error of its own (500, seen with 4.3).
    """
    attempts = Retrying(
        retry=retry_if_exception(_failed_itself),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_fixed(_PAUSE_SECONDS),
        reraise=True,
    )
    return attempts(ask, *words, **more)


def _failed_itself(error: BaseException) -> bool:
    return isinstance(error, APIError) and error.status_code == 500
