"""The command under test, over stand-in releases; every process it starts ends with the test."""

from __future__ import annotations

import _ctypes
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from driving import Vbisect
from standin.family import family
from standin.index import PackageIndex
from vbisect.releases.fitness import COMPILER, HEADERS, LIBNUMA
from vbisect.run.host import missing_parts

pytest_plugins = ["docker_fixtures"]

CONTAINER_PARTS = {"engine", "own_engine", "registry", "images", "proxy"}

# what tests start must not inherit a nohup, nor a shell's background
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# a busy machine is no failure; examples are drawn anew each time, in CI the same for one commit,
# so that a change is judged by what it changed
settings.register_profile(
    "vbisect", deadline=None, derandomize=bool(os.environ.get("VBISECT_CI")), print_blob=True
)
settings.load_profile("vbisect")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--refresh`` writes what is compared to the letter, instead of comparing it."""
    parser.addoption("--refresh", action="store_true", help="Write the transcripts anew.")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever stands on an engine or a registry is a test with containers, unless it is real."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if item.get_closest_marker("real") or item.get_closest_marker("podman"):
            continue
        if "podman" in names:
            item.add_marker("podman")
        elif CONTAINER_PARTS & names:
            item.add_marker("docker")


@pytest.fixture(scope="session", autouse=True)
def missing_parts_stood_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a host with nothing but Python: stand-ins for what real servers need of it.

    The stand-in of vLLM needs nothing of that, but vbisect does not start one without.
    """
    folder = tmp_path_factory.mktemp("parts")
    lacks = missing_parts()
    if LIBNUMA in lacks:
        (folder / LIBNUMA.name).symlink_to(_ctypes.__file__)  # any library that loads
        os.environ["LD_LIBRARY_PATH"] = str(folder)
    if COMPILER in lacks:
        os.environ["CXX"] = "true"
    if HEADERS in lacks:
        (folder / HEADERS.name).touch()
        os.environ["CPATH"] = str(folder)


@pytest.fixture(scope="session")
def family_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The stand-in for vLLM's own releases."""
    with family(tmp_path_factory.mktemp("family"), boot_seconds=0.0).index() as index:
        yield index


@pytest.fixture(scope="session")
def family_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Environments of the family, made once for all tests."""
    return tmp_path_factory.mktemp("family-cache")


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Vbisect]]:
    """Makes the command over an index, and fails the test if it leaves a process behind."""
    made: list[Vbisect] = []

    def make(index: PackageIndex, cache: Path | None = None) -> Vbisect:
        scratch = cache or tmp_path
        results = tmp_path / f"results-{len(made)}"
        made.append(Vbisect(index, scratch, scratch / "vbisect", results))
        return made[-1]

    yield make
    left = [line for each in made for line in each.close()]
    assert not left, f"left behind: {left}"


@pytest.fixture
def vbisect(
    command: Callable[..., Vbisect], family_index: PackageIndex, family_cache: Path
) -> Vbisect:
    """The command over the family."""
    return command(family_index, family_cache)
