"""Start one vLLM server in a container, and be sure it is removed."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, LogConfig
from packaging.version import Version

from vbisect.engine.faults import engine_faults, explanation
from vbisect.errors import EngineLost, HostError
from vbisect.launch.diagnosis import cause_in, diagnose_exit
from vbisect.launch.readiness import check_version, wait_until_ready
from vbisect.launch.server import Ended, LaunchSpec, Server
from vbisect.reasons import SkipReason, Untestable
from vbisect.text import one_line, scrub_file

if TYPE_CHECKING:
    from docker.models.containers import Container

    from vbisect.engine.connection import Engine

PORT = 8000
"""Where vLLM listens inside its container."""

MODEL_DIRECTORY = "/vbisect/model"
"""Where a local model is inside a container."""

_TROUBLE = (DockerException, requests.exceptions.RequestException, OSError)
_COPIED_BYTES = 64 * 2**20
_LAST_WORDS_SECONDS = 30
"""How long the log of a container that has ended is read on; a flood may lie before its end."""

_SIGNAL_SECONDS = 600
"""How long a container may take to end once it has been told to."""

_NOTICE_SECONDS = 0.5
"""How much later than a container's end the engine may note the signal that it sent."""

_SERVE_SINCE = Version("0.11.1")
"""The first release whose image starts ``vllm serve`` (VLLM-FACTS)."""


@dataclass(frozen=True)
class ContainerOptions:
    """What is the same for all containers of a run.

    ``gpus`` is ``all``, ``none`` or device ids with commas between; ``memory`` and
    ``shared_memory`` are in bytes; ``mounts`` maps places on the engine's host, or volumes, to
    places in containers; ``secrets`` are variables handed in but never recorded.
    """

    gpus: str
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


@contextmanager
def launch_container(
    spec: LaunchSpec,
    engine: Engine,
    image: ContainerImage,
    options: ContainerOptions,
    *,
    version_known: bool,
) -> Iterator[Server]:
    """A ready server in a container for the duration of the block; the container goes with it.

    ``version_known`` is false for an image pinned by its digest whose version nobody told. Raises
    ``Untestable`` with the diagnosis when it does not get ready, or is another version;
    ``EngineLost`` when the engine stops answering; ``HostError`` for what every release would meet.
    """
    with ExitStack() as stack:
        stack.callback(scrub_file, spec.log)  # once nothing writes there any more
        started = time.monotonic()
        earlier = spec.log.stat().st_size if spec.log.exists() else 0
        running = stack.enter_context(_running(spec, engine, image, options))
        port = stack.enter_context(_reachable(engine, running, spec.log, earlier))
        base_url = f"http://127.0.0.1:{port}"
        ready = wait_until_ready(base_url, spec.log, running.poll, spec.boot_timeout, earlier)
        if version_known:
            check_version(ready.version, spec.version, spec.version)
        yield Server(
            base_url=base_url,
            model=ready.model,
            reported_version=ready.version,
            command=running.command,
            boot_seconds=time.monotonic() - started,
            log_bytes=spec.log.stat().st_size,
            wait=running.wait,
        )


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


class _Running:
    """A started container: its log goes to a file, its end is noticed at once."""

    def __init__(self, engine: Engine, container: Container, log: Path) -> None:
        self._engine = engine
        self._container = container
        self._log = log
        self._over = threading.Event()
        self._stopping = False
        self._ended: Ended | EngineLost | None = None
        config = container.attrs["Config"]
        self.command = (*(config["Entrypoint"] or ()), *(config["Cmd"] or ()))
        self._writer = threading.Thread(target=self._write_log, name="log", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)

    def begin(self) -> None:
        self._container.start()
        self._writer.start()
        self._watcher.start()
        with suppress(NotFound):
            self._container.reload()

    def poll(self) -> Ended | None:
        """How it ended, ``None`` while it runs. Raises ``EngineLost``."""
        return self.wait(0)

    def wait(self, seconds: float) -> Ended | None:
        """As ``poll``, after waiting up to ``seconds`` for the end."""
        if not self._over.wait(seconds):
            return None
        if isinstance(self._ended, EngineLost):
            raise self._ended
        return self._ended

    def host_port(self) -> int | None:
        """The port the engine chose on its host's loopback, ``None`` when it has ended already."""
        published = self._container.ports.get(f"{PORT}/tcp")
        return int(published[0]["HostPort"]) if published else None

    def end(self) -> None:
        """End the container, read its log to the end, and remove it.

        One that cannot be removed now is found by its label later.
        """
        self._stopping = True
        if not self._over.is_set():
            with suppress(*_TROUBLE):
                self._container.kill()
        if self._writer.ident is not None:
            self._writer.join(_LAST_WORDS_SECONDS)
        with suppress(*_TROUBLE):
            self._container.remove(force=True, v=True)
        if self._watcher.ident is not None:
            self._watcher.join(10)

    def _write_log(self) -> None:
        with suppress(Exception), self._log.open("ab") as handle:
            for chunk in self._container.logs(stream=True, follow=True):
                handle.write(chunk)
                handle.flush()

    def _watch(self) -> None:
        try:
            self._ended = self._await_end()
        except EngineLost as lost:
            self._ended = lost
        except NotFound:
            self._ended = EngineLost("Somebody else removed the container.")
        except Exception:  # whatever it is, the engine no longer tells how the container does
            self._ended = EngineLost(
                f"The Docker engine at {self._engine.where} stopped answering."
            )
        finally:
            self._over.set()

    def _was_told_to_end(self, finished: str) -> bool:
        """Whether the engine sent it a signal: an end of that kind says nothing of the server."""
        end = datetime.fromisoformat(finished).timestamp()
        # fractions of a second are the engine's to understand, whatever the SDK's types say
        events = self._engine.client.api.events(
            since=f"{end - _SIGNAL_SECONDS:.6f}",  # type: ignore[call-overload]
            until=f"{end + _NOTICE_SECONDS:.6f}",
            filters={"container": self._container.id, "event": "kill"},
        )
        return any(events)

    def _await_end(self) -> Ended:
        code = int(self._container.wait(timeout=None)["StatusCode"])
        self._container.reload()
        state = self._container.attrs["State"]
        killed_for_memory = bool(state["OOMKilled"])
        explained = killed_for_memory or self._stopping
        if not explained and self._was_told_to_end(str(state["FinishedAt"])):
            raise EngineLost("The container was ended from outside, as by an engine that restarts.")
        self._writer.join(5)  # the last words are part of the diagnosis
        signalled = 128 < code <= 128 + 64
        return Ended(128 - code if signalled else code, killed_for_memory)


@contextmanager
def _running(
    spec: LaunchSpec, engine: Engine, image: ContainerImage, options: ContainerOptions
) -> Iterator[_Running]:
    with ExitStack() as stack:
        try:
            with engine_faults(engine.where):
                container = _create(spec, engine, image, options)
                running = _Running(engine, container, spec.log)
                stack.callback(running.end)
                _copy_model(spec.model, container, engine)
                running.begin()
        except ImageNotFound:  # another vbisect, or its user, removed it since it was fetched
            raise EngineLost(f"The image of {spec.version} is gone from the engine.") from None
        except APIError as error:
            words = explanation(error)
            raise cause_in(words) or Untestable(
                SkipReason.EXITED_BEFORE_READY,
                f"the engine could not start the container: {one_line(words)}",
            ) from None
        yield running


def _create(
    spec: LaunchSpec, engine: Engine, image: ContainerImage, options: ContainerOptions
) -> Container:
    """The container, not yet started.

    An interrupt waits until the engine has made it: only then can it be found and removed.
    """
    arguments = _arguments(spec, image, options)
    with ThreadPoolExecutor(1, thread_name_prefix="create") as pool:
        return pool.submit(engine.client.containers.create, image.id, **arguments).result()


def _arguments(
    spec: LaunchSpec, image: ContainerImage, options: ContainerOptions
) -> dict[str, Any]:
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
        "device_requests": _devices(options.gpus),
        "log_config": LogConfig(type=LogConfig.types.JSON),
        "volumes": _volumes(spec.model, options.mounts),
        "use_config_proxy": True,
        **(limits if options.memory else {}),
    }


def _devices(gpus: str) -> list[DeviceRequest]:
    if gpus == "none":
        return []
    if gpus == "all":
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return [DeviceRequest(device_ids=gpus.split(","), capabilities=[["gpu"]])]


def _volumes(model: str, mounts: Mapping[str, str]) -> list[str]:
    bound = [f"{place}:{inside}" for place, inside in mounts.items()]
    if _is_local(model) and not _is_copied(model):
        bound.append(f"{Path(model).expanduser()}:{MODEL_DIRECTORY}:ro")
    return bound


def _is_local(model: str) -> bool:
    return model.startswith(("/", "~"))


def _is_copied(model: str) -> bool:
    """Small models are copied, which works wherever the engine is."""
    files = Path(model).expanduser().rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) <= _COPIED_BYTES


def _copy_model(model: str, container: Container, engine: Engine) -> None:
    if not _is_local(model):
        return
    if not _is_copied(model):
        if engine.remote:
            raise HostError(
                f"The model {model} is on this machine and too large to copy to {engine.where}: "
                "name it by its Hugging Face id."
            )
        return
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(Path(model).expanduser(), arcname=MODEL_DIRECTORY.lstrip("/"), filter=_as_root)
    container.put_archive("/", archive.getvalue())


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.mode |= 0o555 if member.isdir() else 0o444
    return member


@contextmanager
def _reachable(engine: Engine, running: _Running, log: Path, earlier: int) -> Iterator[int]:
    """The server's port on this machine."""
    port = running.host_port()
    if port is None:
        ended = running.wait(10)
        raise (
            diagnose_exit(log, ended, earlier)
            if ended
            else Untestable(
                SkipReason.EXITED_BEFORE_READY, "the engine published no port for the container"
            )
        )
    with engine.reach(port) as reached:
        yield reached


def token_variables() -> dict[str, str]:
    """The user's Hugging Face token under both of its names (older vLLM reads the older one)."""
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    return {"HF_TOKEN": token, "HUGGING_FACE_HUB_TOKEN": token} if token else {}
