"""Releases that exist as images only in a test, with the command that bisects them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driving import OnEngine, Vbisect, world
from standin.behaviour import Behaviour
from standin.engine import Engine, GivenEngine
from standin.images import ImageFamily
from standin.index import PackageIndex
from standin.proxy import RegistryProxy
from standin.registry import Layer, LocalRegistry

Condition = Callable[[list[dict[str, Any]]], bool]
"""What a journal is waited for to fulfil."""


@dataclass
class ImageWorld:
    """The releases' images, the index that lists their versions, the engine that runs them."""

    images: ImageFamily
    index: PackageIndex
    engine: Engine | GivenEngine
    vbisect: Vbisect

    def words(self, start: str, end: str, *more: str, host: str | None = None) -> list[str]:
        """The arguments of a run over them; `host` is that of a proxy before the registry."""
        repository = f"{host or self.images.registry.host}/{self.images.repository}"
        own = ["--runtime", "docker", "--image-repo", repository, "--n", "4"]
        return [*own, "--from", start, "--to", end, *more]

    def containers(self) -> list[Any]:
        """The containers of the command's runs, whatever their state."""
        with contextlib.closing(self.engine.client()) as client:
            on_engine = OnEngine(client, self.images.registry.host, self.vbisect.results)
            return on_engine.containers()


def pulling(proxy: RegistryProxy) -> bool:
    """Whether the bytes of a layer are on their way through the proxy."""
    return any(e.ended is None and 0 < e.sent < e.size for e in proxy.seen(kind="blob"))


def seen(kind: str, version: str, times: int = 1) -> Condition:
    """Whether the journal has this event of this version so often."""

    def check(journal: list[dict[str, Any]]) -> bool:
        return sum(e["event"] == kind and e.get("version") == version for e in journal) >= times

    return check


def noted(text: str) -> Condition:
    """Whether a note in the journal holds a text."""
    return lambda journal: any(text in str(e.get("text")) for e in journal)


@contextmanager
def image_world(
    directory: Path,
    registry: LocalRegistry,
    engine: Engine | GivenEngine,
    releases: Mapping[str, Behaviour],
    *,
    padding_bytes: int = 0,
    beside: Sequence[Layer] = (),
) -> Iterator[ImageWorld]:
    """Push the releases, list them, and fail the test if a run leaves anything behind.

    `padding_bytes` makes each image that much bigger; `beside` are more layers of each.
    """
    number = uuid.uuid4().int % 2**31
    images = ImageFamily(registry, f"test/{number}")
    for version, behaviour in releases.items():
        # no engine shall have a layer of them from an earlier test
        own = replace(behaviour, seed=number)
        images.push(version, own, padding_bytes=padding_bytes, beside=beside)
    with PackageIndex(world(directory / "wheels", releases)) as index:
        scratch = directory / "scratch"
        vbisect = Vbisect(index, scratch, scratch / "vbisect", directory / "results")
        made = ImageWorld(images, index, engine, vbisect.on_engine(engine.url))
        try:
            yield made
        finally:
            left = vbisect.close()
        assert not left, f"left behind: {left}"
        assert not made.containers()
