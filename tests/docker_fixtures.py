"""The real parts that tests with containers stand on; nothing starts before a test asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TypeVar

import pytest

from driving import OnEngine, Vbisect
from standin.base import BaseUnavailable, base_layer
from standin.behaviour import Behaviour
from standin.engine import Engine, EngineUnavailable, GivenEngine
from standin.images import ImageFamily, image_family
from standin.index import PackageIndex
from standin.podman import Podman
from standin.proxy import RegistryProxy
from standin.registry import LocalRegistry, RegistryUnavailable

NIGHTLY = "0123456789abcdef0123456789abcdef01234567"
Part = TypeVar("Part")


@contextmanager
def skipping() -> Iterator[None]:
    """Skip the test where this host lacks a part; where $VBISECT_CI is set, fail it."""
    try:
        yield
    except (EngineUnavailable, RegistryUnavailable, BaseUnavailable) as error:
        if os.environ.get("VBISECT_CI"):
            raise
        pytest.skip(str(error))


@contextmanager
def opened(part: AbstractContextManager[Part]) -> Iterator[Part]:
    """The part inside its `with` block, or a skip where it cannot start."""
    with skipping():
        entered = part.__enter__()
    try:
        yield entered
    finally:
        part.__exit__(None, None, None)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine | GivenEngine]:
    """One engine for all tests of a worker: $VBISECT_TEST_DOCKER_HOST, else a private one."""
    if url := os.environ.get("VBISECT_TEST_DOCKER_HOST"):
        yield GivenEngine(url)
    else:
        with opened(Engine()) as started:
            yield started


@pytest.fixture
def own_engine() -> Iterator[Engine]:
    """A private engine for one test, empty, to be killed or filled as it likes."""
    if os.environ.get("VBISECT_TEST_DOCKER_HOST"):
        pytest.skip("the given engine is not this test's own")
    with opened(Engine()) as started:
        yield started


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """A private Podman for the tests of a module."""
    with opened(Podman()) as started:
        yield started


@pytest.fixture(scope="session")
def registry() -> Iterator[LocalRegistry]:
    """A registry for all tests of a worker; each family goes into a repository of its own."""
    with opened(LocalRegistry()) as started:
        yield started


@pytest.fixture(scope="session")
def images(registry: LocalRegistry) -> ImageFamily:
    """The stand-in for vLLM's own images, 0.7.3 to 0.33.0 with a nightly; they boot at once."""
    with skipping():
        base_layer()
    family = image_family(registry, boot_seconds=0.0)
    family.push_nightly(NIGHTLY)
    return family


@pytest.fixture
def proxy(registry: LocalRegistry) -> Iterator[RegistryProxy]:
    """A proxy in front of the registry, for one test to script."""
    with RegistryProxy(registry.host) as started:
        yield started


@pytest.fixture(scope="module")
def shared_base(engine: Engine | GivenEngine, registry: LocalRegistry) -> Iterator[None]:
    """The layer that all images share is somebody else's: it is on the engine and stays there."""
    family = ImageFamily(registry, "test/base")
    family.push("0.1.0", Behaviour())
    with closing(engine.client()) as client:
        client.images.pull(family.reference("v0.1.0"))
        yield
        client.images.remove(family.reference("v0.1.0"), force=True)


@pytest.fixture
def docked(
    command: Callable[..., Vbisect], family_index: PackageIndex, engine: Engine | GivenEngine
) -> Vbisect:
    """The command, with an engine and a ledger of its own."""
    return command(family_index).on_engine(engine.url)


@pytest.fixture
def there(
    docked: Vbisect, engine: Engine | GivenEngine, proxy: RegistryProxy
) -> Iterator[OnEngine]:
    """What the engine has of this test's; all of it is removed in the end."""
    with closing(engine.client()) as client:
        seen = OnEngine(client, proxy.host, docked.results)
        try:
            yield seen
        finally:
            seen.remove()
