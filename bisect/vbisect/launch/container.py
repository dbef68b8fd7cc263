"""Start one vLLM server in a container, and be sure it is removed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, ImageNotFound

from vbisect.engine.faults import engine_faults, explanation, not_started
from vbisect.engine.product import Product
from vbisect.errors import EngineLost, HostError
from vbisect.launch.container_settings import (
    ContainerImage,
    ContainerOptions,
    container_arguments,
    is_mounted,
    model_archive,
)
from vbisect.launch.diagnosis import cause_in, diagnose_exit
from vbisect.launch.hub_cache import not_while_downloading, on_host
from vbisect.launch.podman_container import create_with_devices, wants_devices
from vbisect.launch.readiness import check_version, wait_until_ready
from vbisect.launch.running_container import RunningContainer
from vbisect.launch.server import Ended, LaunchSpec, Server
from vbisect.reasons import SkipReason, Untestable
from vbisect.text import scrub_file

if TYPE_CHECKING:
    from docker.models.containers import Container

    from vbisect.engine.connection import Engine


@contextmanager
def launch_container(
    spec: LaunchSpec,
    engine: Engine,
    image: ContainerImage,
    options: ContainerOptions,
    given_up: threading.Event,
    *,
    version_known: bool,
) -> Iterator[Server]:
    """A ready server in a container for the duration of the block; the container goes with it.

    ``version_known`` is false for an image pinned by its digest whose version nobody told. Raises
    ``Untestable`` with the diagnosis when it does not get ready, or is another version;
    ``EngineLost`` when the engine stops answering; ``HostError`` for what every release would meet;
    ``Cancelled`` when it is ``given_up`` meanwhile.
    """
    with ExitStack() as stack:
        stack.callback(scrub_file, spec.log)  # once nothing writes there any more
        started = time.monotonic()
        earlier = spec.log.stat().st_size if spec.log.exists() else 0
        running = stack.enter_context(_running(spec, engine, image, options))
        port = stack.enter_context(_reachable(engine, running, spec.log, earlier))
        base_url = f"http://127.0.0.1:{port}"
        cache = None if engine.remote else on_host(running.hub_cache, options.mounts)
        with not_while_downloading(spec.model, cache):
            ready = wait_until_ready(
                base_url,
                spec.log,
                running.poll,
                running.counters,
                spec.boot_timeout,
                given_up,
                earlier,
            )
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


@contextmanager
def run_python_in_container(
    spec: LaunchSpec,
    engine: Engine,
    image: ContainerImage,
    options: ContainerOptions,
    words: Sequence[str],
) -> Iterator[Callable[[], Ended | None]]:
    """A script by the Python of an image, with the variables and mounts of its servers.

    As ``run_python``. Raises as ``launch_container``.
    """
    script = {"entrypoint": ["python3"], "command": ["-I", *words], "ports": {}}
    changes = {**script, "device_requests": []}
    with ExitStack() as stack:
        stack.callback(scrub_file, spec.log)
        running = stack.enter_context(_running(spec, engine, image, options, changes))
        stack.callback(running.ask_to_end)
        yield running.poll


@contextmanager
def _running(
    spec: LaunchSpec,
    engine: Engine,
    image: ContainerImage,
    options: ContainerOptions,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[RunningContainer]:
    """The started container of a server; ``changes`` make something else of it."""
    with ExitStack() as stack:
        try:
            with engine_faults(engine.title):
                container = _create(spec, engine, image, options, changes)
                running = RunningContainer(engine, container, spec.log)
                stack.callback(running.end)
                model = model_archive(spec.model)
                if model is not None:
                    container.put_archive("/", model)
                running.begin()
        except ImageNotFound:  # another vbisect, or its user, removed it since it was fetched
            raise EngineLost(f"The image of {spec.version} is gone from the engine.") from None
        except APIError as error:
            words = explanation(error)
            raise cause_in(words) or not_started(words) from None
        yield running


def _create(
    spec: LaunchSpec,
    engine: Engine,
    image: ContainerImage,
    options: ContainerOptions,
    changes: Mapping[str, Any],
) -> Container:
    """The container, not yet started. Raises ``HostError`` for a model it cannot be given.

    An interrupt waits until the engine has made it: only then can it be found and removed.
    """
    if engine.remote and is_mounted(spec.model):
        raise HostError(
            f"The model {spec.model} is on this machine and too large to copy to {engine.where}: "
            "name it by its Hugging Face id."
        )
    arguments = {**container_arguments(spec, image, options), **changes}
    create = partial(engine.client.containers.create, image.id, **arguments)
    if engine.product is Product.PODMAN and wants_devices(arguments):
        create = partial(create_with_devices, engine.client, image.id, arguments)
    with ThreadPoolExecutor(1, thread_name_prefix="create") as pool:
        return pool.submit(create).result()


@contextmanager
def _reachable(engine: Engine, running: RunningContainer, log: Path, earlier: int) -> Iterator[int]:
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
