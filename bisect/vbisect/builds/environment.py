"""One virtual environment per wheel below the user's cache directory, finished or not there.

An environment counts as finished only once its marker file has been renamed into place, which is
the last thing that happens; anything without a marker is removed and made again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from packaging.specifiers import SpecifierSet
from pydantic import BaseModel, ConfigDict

from vbisect.builds.by_recipe import as_of, first_that_resolves, never_built, notes_on
from vbisect.builds.recipes import Recipe
from vbisect.builds.shim import install_torchvision_shim, install_vllm_metadata
from vbisect.builds.uv import UvResult, failure, run_uv
from vbisect.builds.wheel_file import WheelFile, find_wheel_file
from vbisect.errors import Cancelled, EngineLost, HostError
from vbisect.files import remove_below, write_whole
from vbisect.locks import Locked, file_lock
from vbisect.paths import cache_root, with_tilde
from vbisect.reasons import SkipReason, Untestable
from vbisect.releases import Device, Wheel

MARKER = "vbisect-environment.json"
"""Without this file in it, an environment is none."""


class EnvironmentRequest(BaseModel):
    """What is to be installed.

    ``requires_python`` (PEP 440) and ``released`` (when the release itself came out) are given
    where known. ``latest_deps`` takes today's dependencies instead of those of that day.
    """

    model_config = ConfigDict(frozen=True)

    device: Device
    wheel: Wheel
    requires_python: str | None = None
    released: datetime | None = None
    latest_deps: bool = False

    @property
    def name(self) -> str:
        """The environment's folder name."""
        suffix = "-latest-deps" if self.latest_deps else ""
        # the wheels of all commits had the same version once
        commit = re.search("/([0-9a-f]{40})(?:/|$)", self.wheel.index or "")
        build = f"{self.wheel.version}-{commit[1]}" if commit else self.wheel.version
        return f"{self.device}-{self.wheel.distribution}-{build}{suffix}"


class Environment(BaseModel):
    """A finished environment. ``digest`` covers the wheel file and every installed package.

    ``size_bytes`` is what its files take of the disk; not known of those made by older versions.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    wheel: Wheel
    file: WheelFile
    recipe: str
    python: str
    packages: tuple[str, ...]
    digest: str
    seconds: float
    size_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def vllm(self) -> Path:
        """The ``vllm`` command of this environment."""
        return self.path / "bin" / "vllm"


def environments_root() -> Path:
    """Where environments live, below the user's cache directory."""
    return cache_root() / "environments"


def finished_environment(request: EnvironmentRequest) -> Environment | None:
    """The environment for ``request``, when it is there already."""
    return _finished(environments_root() / request.name)


@contextmanager
def held_environment(
    request: EnvironmentRequest, *, cancel: threading.Event | None = None
) -> Iterator[Environment]:
    """The finished environment for ``request``, installed now if it is not there yet.

    While the block runs, ``vbisect clean`` does not remove it. Raises ``Untestable`` with the
    resolver's reason when it cannot be installed, ``HostError`` when the disk is full or the cache
    not writable, ``Cancelled`` when ``cancel`` is set.
    """
    root = environments_root()
    path = root / request.name
    with ExitStack() as held:
        try:
            while True:
                held.enter_context(_locked(path, cancel, shared=True))
                environment = _finished(path)
                if environment is not None:
                    break
                held.close()  # only one process makes it; the others wait, and look again
                with suppress(Locked), _locked(path, cancel, shared=False):
                    if _finished(path) is None:
                        _make(request, path, cancel)
        except OSError as error:
            raise HostError(
                f"Cannot write the environment cache {root}: {error.strerror}."
            ) from error
        yield environment


@contextmanager
def in_use(environment: Environment) -> Iterator[None]:
    """Keep ``environment`` while a server runs from it. Raises ``EngineLost`` when it is gone."""
    with _locked(environment.path, None, shared=True):
        there = _finished(environment.path)
        if there is None or there.digest != environment.digest:
            raise EngineLost(f"The environment {with_tilde(environment.path)} is gone.")
        yield


def _make(request: EnvironmentRequest, path: Path, cancel: threading.Event | None) -> None:
    """Install it in the place of whatever unfinished is there; all of it or nothing."""
    with suppress(FileNotFoundError):
        remove_below(path.parent, path.name)
    try:
        _install(request, path, cancel)
    except BaseException:
        with suppress(OSError):
            remove_below(path.parent, path.name)
        raise


@contextmanager
def _locked(path: Path, cancel: threading.Event | None, *, shared: bool) -> Iterator[None]:
    """Hold the environment at ``path``, alone or with others; waits for it.

    Alone no longer than until another process has finished it, which may hold it for a whole run
    then: raises ``Locked``.
    """

    def wait() -> bool:
        if cancel is not None and cancel.is_set():
            raise Cancelled
        return shared or _finished(path) is None

    with file_lock(_lock_path(path), shared=shared, wait=wait):
        yield


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _finished(path: Path) -> Environment | None:
    try:
        found = Environment.model_validate_json((path / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not (path / "bin" / "python").exists():  # the interpreter it was made from may be gone
        return None
    return found.model_copy(update={"path": path})


def _make_empty(request: EnvironmentRequest, path: Path, cancel: threading.Event | None) -> str:
    """An environment of the interpreter vbisect runs on when the release takes it, else of another.

    uv looks for that on this host, then gets one where it may. Raises ``Untestable`` when there is
    none, which is no fault of an index.
    """
    allowed = SpecifierSet(request.requires_python or "")
    own = platform.python_version() in allowed
    python = sys.executable if own else str(allowed)
    made = run_uv(["venv", "--python", python, str(path)], cancel=cancel, directory=path.parent)
    if made.returncode and not own and not made.disk_full:
        raise Untestable(
            SkipReason.NOT_INSTALLABLE,
            f"there is no Python {allowed} on this host, and uv could get none: {made.reason}",
        )
    if made.returncode:
        raise failure(made, "uv could not make an environment")
    return str(path / "bin" / "python")


def _install(request: EnvironmentRequest, path: Path, cancel: threading.Event | None) -> None:
    started = time.monotonic()
    python = _make_empty(request, path, cancel)
    file = find_wheel_file(request.wheel, python, cancel=cancel)
    recipe = _install_by_recipe(request, path, file, cancel)
    site_packages = next(path.glob("lib/python3*/site-packages"), None)
    if site_packages is None:
        raise EngineLost(f"The environment {with_tilde(path)} was removed while it was made.")
    if request.device is Device.CPU:
        install_vllm_metadata(site_packages, request.wheel.version)
    if recipe.needs_torchvision_shim:
        install_torchvision_shim(site_packages)
    packages = _packages(site_packages)
    content = json.dumps([file.sha256, file.filename, packages])
    environment = Environment(
        path=path,
        wheel=request.wheel,
        file=file,
        recipe=recipe.name,
        python=(path / "pyvenv.cfg").read_text().partition("version_info = ")[2].split("\n")[0],
        packages=packages,
        digest="sha256:" + hashlib.sha256(content.encode()).hexdigest(),
        seconds=round(time.monotonic() - started, 3),
        size_bytes=sum(file.lstat().st_blocks * 512 for file in path.rglob("*")),
        notes=notes_on(recipe, dated=file.uploaded is not None, latest_deps=request.latest_deps),
    )
    write_whole(path / MARKER, environment.model_dump_json(indent=1), durable=True)


def _install_by_recipe(
    request: EnvironmentRequest, path: Path, file: WheelFile, cancel: threading.Event | None
) -> Recipe:
    """Install with the first recipe that resolves; raises ``Untestable`` with every reason."""
    requirement = f"{request.wheel.distribution}=={request.wheel.version}"

    def attempt(recipe: Recipe, retry: bool) -> tuple[UvResult, None]:
        arguments = ["pip", "install", "--python", str(path / "bin" / "python"), *recipe.arguments]
        arguments += never_built(request.wheel)
        if recipe.excludes:
            excludes = path / "vbisect-excludes.txt"
            excludes.write_text("\n".join(recipe.excludes) + "\n")
            arguments += ["--excludes", str(excludes)]
        if file.uploaded is not None and not request.latest_deps:
            arguments += as_of(request.wheel, file.uploaded, request.released)
        if request.wheel.index:
            arguments += ["--index", request.wheel.index]
        arguments += [requirement, *recipe.beside]
        return run_uv(arguments, directory=path, cancel=cancel, retry=retry), None

    recipe, _ = first_that_resolves(request.device, attempt)
    return recipe


def _packages(site_packages: Path) -> tuple[str, ...]:
    """Every installed distribution as ``name==version``, sorted."""
    from importlib.metadata import distributions

    installed = distributions(path=[str(site_packages)])
    return tuple(sorted(f"{found.name.lower()}=={found.version}" for found in installed))
