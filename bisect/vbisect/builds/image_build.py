"""Build the image of a release that no registry has, unless that has been done before."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError

from vbisect.builds.base_image import ensure_base
from vbisect.builds.build_log import BuildLog
from vbisect.builds.built_images import (
    RemovedImage,
    StoredImage,
    built_images,
    describe,
    find_built,
    labels_for,
    remove_built_images,
)
from vbisect.builds.classic_builder import BuildStep, build
from vbisect.builds.image_lock import Target, resolve
from vbisect.builds.image_request import BuiltImage, ImageBuildRequest
from vbisect.builds.image_settings import (
    build_arguments,
    certificates,
    index_settings,
    refuse_credentials,
)
from vbisect.builds.image_template import TemplateVariables, inside_files, render, template_digest
from vbisect.builds.recipes import recipes_for
from vbisect.builds.wheel_server import serve_files
from vbisect.engine.faults import engine_faults, explanation
from vbisect.errors import Cancelled, HostError
from vbisect.locks import file_lock
from vbisect.paths import cache_root
from vbisect.text import one_line

__all__ = [
    "BuiltImage",
    "ImageBuildRequest",
    "RemovedImage",
    "StoredImage",
    "build_image",
    "built_images",
    "remove_built_images",
]

_LOOK = (
    "import json, platform; print(json.dumps({'python': platform.python_version(), "
    "'machine': platform.machine(), 'glibc': platform.libc_ver()[1]}))"
)


def build_image(
    client: DockerClient,
    request: ImageBuildRequest,
    log: Path,
    *,
    cancel: threading.Event | None = None,
) -> BuiltImage:
    """The finished image for ``request``; built now if there is none of the same inputs.

    What the engine says is appended to ``log``. Raises ``Untestable`` (not installable, or the
    build failed: with its last telling lines), ``HostError`` when no release could be built here,
    ``EngineLost`` when the engine stops answering, ``Cancelled`` when ``cancel`` is set.
    """
    started = time.monotonic()
    settings = index_settings()
    refuse_credentials((*settings.values(), request.wheel.index or ""))
    try:
        with closing(BuildLog(log)) as build_log:
            with _asking(client):
                base = ensure_base(client, request.base, build_log, cancel)
            inputs = _digest(request, settings, base)
            work = _Work(client, request, inputs, build_log, cancel)
            return work.finished() or work.build(started)
    except OSError as error:
        raise HostError(f"No image can be built: {one_line(str(error))}.") from error


@contextmanager
def _asking(client: DockerClient) -> Iterator[None]:
    """Turn the engine's errors into those a person can act on."""
    where = client.api.base_url
    where = "its socket" if where.startswith("http+docker:") else where
    try:
        with engine_faults(f"The engine at {where}"):
            yield
    except APIError as error:
        raise HostError(f"The engine refused: {one_line(explanation(error))}") from error


@contextmanager
def _alone(cancel: threading.Event | None) -> Iterator[None]:
    """Only one image is built at a time: two would each make the layers they could share."""

    def wait() -> bool:
        if cancel is not None and cancel.is_set():
            raise Cancelled
        return True

    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(cache_root() / "image-build.lock", wait=wait))
        except OSError as error:
            raise HostError(f"Cannot write {cache_root()}: {error.strerror}.") from error
        yield


def _digest(request: ImageBuildRequest, settings: Mapping[str, str], base: str) -> str:
    """A SHA-256 (hex) over everything that decides what is in the image.

    ``base`` is the id of the base image: what a name stands for can change.
    """
    inputs = {
        "request": request.model_dump(mode="json"),
        "template": template_digest(request.template),
        "base": base,
        "system_packages": request.variables().system_packages,
        "settings": dict(settings),
        "recipes": [repr(recipe) for recipe in recipes_for(request.device)],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Work:
    client: DockerClient
    request: ImageBuildRequest
    inputs: str
    log: BuildLog
    cancel: threading.Event | None

    def finished(self) -> BuiltImage | None:
        """The image, where it was built before."""
        with _asking(self.client):
            return find_built(self.client, self.inputs)

    def build(self, started: float) -> BuiltImage:
        """The image, built unless somebody else did while this had to wait."""
        with _alone(self.cancel):
            finished = self.finished()
            if finished is not None:
                return finished
            image = self._build()
        with _asking(self.client):
            return describe(self.client, image, time.monotonic() - started)

    def _build(self) -> str:
        """The id of the image, made in two steps: its Python decides which packages it gets."""
        files = self._files()
        context = files | self._dockerfile(self.request.variables())
        step = BuildStep(context, build_arguments(""), target="foundation")
        foundation = build(self.client, step, self.log, self.cancel)
        resolution = resolve(self.request, self._look_into(foundation), cancel=self.cancel)
        release, shared = resolution.release, resolution.shared
        refuse_credentials((release.text, shared.text))
        variables = self.request.variables(
            torchvision_shim=resolution.recipe.needs_torchvision_shim,
            labels=labels_for(self.request, self.inputs, resolution),
        )
        context = files | self._dockerfile(variables)
        context["pylock.shared.toml"] = shared.text.encode()
        context["pylock.release.toml"] = release.text.encode()
        with serve_files(shared.local_files | release.local_files) as address:
            step = BuildStep(context, build_arguments(address), tag=self.request.tag(self.inputs))
            return build(self.client, step, self.log, self.cancel)

    def _dockerfile(self, variables: TemplateVariables) -> dict[str, bytes]:
        return {"Dockerfile": render(self.request.template, variables).encode()}

    def _files(self) -> dict[str, bytes]:
        from uv import find_uv_bin

        with _asking(self.client):
            there = str(self.client.info()["Architecture"])
        if (sys.platform, platform.machine()) != ("linux", there):
            raise HostError(
                f"Images can be built only on Linux for the same processors: the engine's are "
                f"{one_line(there)}. Use --build never, or run vbisect where the engine is."
            )
        found = {**inside_files(), "uv": Path(find_uv_bin()).read_bytes()}
        bundle = certificates()
        return found if bundle is None else found | {"foundation/ca.pem": bundle}

    def _look_into(self, foundation: str) -> Target:
        """The Python of the image, asked in a container of its first layers."""
        with _asking(self.client):
            container = self.client.containers.create(
                foundation,
                ["-c", _LOOK],
                entrypoint=["python3"],
                network_disabled=True,
                auto_remove=True,
            )
            answer = container.attach(stream=True, stderr=False)  # before it can be gone
            container.start()
            return Target.model_validate_json(b"".join(answer))
