"""How a container is started: its image's entry point, mounts, devices, limits and model."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest, LogConfig
from packaging.version import Version

from vbisect.engine.gpus import CDI_KIND
from vbisect.launch.server import LaunchSpec

PORT = 8000
"""Where vLLM listens inside its container."""

MODEL_DIRECTORY = "/vbisect/model"
"""Where a local model is inside a container."""

_COPIED_BYTES = 64 * 2**20

_SERVE_SINCE = Version("0.11.1")
"""The first release whose image starts ``vllm serve`` (VLLM-FACTS)."""


@dataclass(frozen=True)
class ContainerOptions:
    """What is the same for all containers of a run.

    ``gpus`` is ``all``, ``none``, or device ids or CDI names with commas between, for a server that
    is given none of its own; with ``cdi`` all are asked for by their CDI names. ``memory`` and
    ``shared_memory`` are in bytes; ``mounts`` maps places on the engine's host, or volumes, to
    places in containers; ``secrets`` are variables handed in but never recorded.
    """

    gpus: str
    cdi: bool
    memory: int | None
    shared_memory: int
    mounts: Mapping[str, str]
    secrets: Mapping[str, str]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class ContainerImage:
    """The image to start; ``entrypoint`` is its own."""

    id: str
    entrypoint: tuple[str, ...]


def token_variables() -> dict[str, str]:
    """The user's Hugging Face token under both of its names (older vLLM reads the older one)."""
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    return {"HF_TOKEN": token, "HUGGING_FACE_HUB_TOKEN": token} if token else {}


def command_line(
    entrypoint: tuple[str, ...], version: str, model: str, words: list[str]
) -> tuple[list[str] | None, list[str]]:
    """The entry point to set, ``None`` for the image's own, and the words that follow it.

    Images before 0.11.1 start the API server's module, which takes ``--model``; later ones ``vllm
    serve``, which warns of that option. An image that starts something else is told what to start.
    """
    served, named = [model, *words], ["--model", model, *words]
    if entrypoint and entrypoint[-1] == "serve":
        return None, served
    if entrypoint and "api_server" in entrypoint[-1]:
        return None, named
    if Version(version) < _SERVE_SINCE:
        return ["python3", "-m", "vllm.entrypoints.openai.api_server"], named
    return ["vllm", "serve"], served


def container_arguments(
    spec: LaunchSpec, image: ContainerImage, options: ContainerOptions
) -> dict[str, Any]:
    """What the engine's client is to create the container with, beside the image itself."""
    model = MODEL_DIRECTORY if _is_local(spec.model) else spec.model
    words = ["--host", "0.0.0.0", "--port", str(PORT), *spec.arguments]
    entrypoint, command = command_line(image.entrypoint, spec.version, model, words)
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONUNBUFFERED": "1",
        **options.secrets,
        **spec.environment,
    }
    limits = {"mem_limit": options.memory, "memswap_limit": options.memory}
    return {
        "entrypoint": entrypoint,
        "command": command,
        "environment": environment,
        "labels": {**options.labels, "vbisect.version": spec.version},
        "ports": {f"{PORT}/tcp": ("127.0.0.1", None)},
        "shm_size": options.shared_memory,
        "security_opt": ["no-new-privileges"],
        "device_requests": _devices(",".join(spec.gpus) or options.gpus, cdi=options.cdi),
        "log_config": LogConfig(type=LogConfig.types.JSON),
        "volumes": _volumes(spec.model, options.mounts),
        "use_config_proxy": True,
        **(limits if options.memory else {}),
    }


def _devices(gpus: str, *, cdi: bool) -> list[DeviceRequest]:
    """What to ask the engine for; CDI takes names, and no number of devices
    (https://github.com/moby/moby/blob/v28.2.2/daemon/cdi.go)."""
    if gpus == "none":
        return []
    ids = gpus.split(",")
    if cdi:
        names = [name if "=" in name else f"{CDI_KIND}={name}" for name in ids]
        return [DeviceRequest(driver="cdi", device_ids=names)]
    if gpus == "all":
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return [DeviceRequest(device_ids=ids, capabilities=[["gpu"]])]


def _volumes(model: str, mounts: Mapping[str, str]) -> list[str]:
    bound = [f"{place}:{inside}" for place, inside in mounts.items()]
    if is_mounted(model):
        bound.append(f"{Path(model).expanduser()}:{MODEL_DIRECTORY}:ro")
    return bound


def _is_local(model: str) -> bool:
    return model.startswith(("/", "~"))


def _is_copied(model: str) -> bool:
    """Small models are copied, which works wherever the engine is."""
    files = Path(model).expanduser().rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) <= _COPIED_BYTES


def model_archive(model: str) -> bytes | None:
    """A small local model as a tar to be unpacked at ``/``; ``None`` where nothing is to copy."""
    if not _is_local(model) or not _is_copied(model):
        return None
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(Path(model).expanduser(), arcname=MODEL_DIRECTORY.lstrip("/"), filter=_as_root)
    return archive.getvalue()


def is_mounted(model: str) -> bool:
    """Whether a model is mounted from this machine: it is local, and too large to copy."""
    return _is_local(model) and not _is_copied(model)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.mode |= 0o555 if member.isdir() else 0o444
    return member
