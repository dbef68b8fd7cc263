"""Runs stand-in images as a user would: pulled, started, published on 127.0.0.1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from .engine import Engine, GivenEngine
from .running import Running


@dataclass
class InContainer(Running):
    """A server in a container of an engine."""

    container: Any

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        return self.container.logs().decode()

    def state(self) -> dict[str, Any]:
        """What the engine says of it."""
        self.container.reload()
        return self.container.attrs["State"]


class Runner:
    """Starts servers in containers of one engine, and removes them in the end."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        self._started: list[Any] = []

    def __call__(self, reference: str, *arguments: str, **options: Any) -> InContainer:
        """Pull and start an image as a user would; its port is published on 127.0.0.1."""
        self.client.images.pull(reference)
        address = ("--model", "m", "--served-model-name", "tiny", "--host", "0.0.0.0")
        container = self.client.containers.run(
            reference,
            [*address, "--port", "8000", *arguments],
            detach=True,
            ports={"8000/tcp": ("127.0.0.1", None)},
            **options,
        )
        self._started.append(container)
        container.reload()
        published = (container.ports.get("8000/tcp") or [{"HostPort": "0"}])[0]["HostPort"]
        base = f"http://127.0.0.1:{published}"
        return InContainer(process=None, base=base, log_path=Path(), container=container)  # type: ignore[arg-type]

    def remove(self) -> None:
        """Remove what was started; a killed engine's own end has to do it."""
        for container in self._started:
            with contextlib.suppress(docker.errors.NotFound, OSError):
                container.remove(force=True)


@contextlib.contextmanager
def running(engine: Engine | GivenEngine) -> Iterator[Runner]:
    """A runner on this engine."""
    with contextlib.closing(engine.client()) as client:
        runner = Runner(client)
        try:
            yield runner
        finally:
            runner.remove()
