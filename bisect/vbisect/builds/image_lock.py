"""The exact packages of an image, resolved on this machine with the user's own index settings.

The image gets what an environment with its Python would get, to the file. That it is settled
before anything is built tells at once what cannot be installed, and lets images share layers.
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from packaging.version import Version
from pydantic import BaseModel, ConfigDict

from vbisect.builds.by_recipe import as_of, first_that_resolves, never_built, notes_on, until
from vbisect.builds.image_request import ImageBuildRequest
from vbisect.builds.recipes import Recipe
from vbisect.builds.uv import UvResult, failure, run_uv
from vbisect.processes import scratch_directory
from vbisect.releases import Device, Wheel, catalogue

HOST_FILES = "http://host-files.invalid"
"""Stands in a lock for the address that this machine's own files are served from."""

_LOCAL = re.compile(r'"(file://[^"]+)"')
_GLIBC = (17, 28, *range(31, 41))
"""The minor versions of glibc 2 for which uv knows a platform (``uv pip compile --help``)."""


class Target(BaseModel):
    """The Python of an image: its version, the machine it is for, glibc's version there."""

    model_config = ConfigDict(frozen=True)

    python: str
    machine: str
    glibc: str

    @property
    def arguments(self) -> list[str]:
        """uv's options to resolve for it."""
        minor = int(self.glibc.partition(".")[2] or 0)
        known = max(number for number in _GLIBC if number <= max(minor, _GLIBC[0]))
        platform = f"{self.machine}-manylinux_2_{known}"
        return ["--python-version", self.python, "--python-platform", platform]


@dataclass(frozen=True)
class Lock:
    """A lock file (packaging.python.org, pylock.toml) and the files of this machine it names.

    ``local_files`` goes by the path below ``HOST_FILES``.
    """

    text: str
    packages: dict[str, str]
    local_files: dict[str, Path]


@dataclass(frozen=True)
class Resolution:
    """``release`` is everything an image holds, ``shared`` what is installed first.

    ``shared`` is the same for all images with the same torch, and is changed to ``release`` then.
    """

    release: Lock
    shared: Lock
    recipe: Recipe
    notes: tuple[str, ...]


def resolve(
    request: ImageBuildRequest, target: Target, *, cancel: threading.Event | None = None
) -> Resolution:
    """Every package of the image, by the first recipe that resolves.

    Raises ``Untestable`` with every recipe's reason, ``HostError`` when no index answers or the
    disk is full, ``Cancelled`` when ``cancel`` is set.
    """
    run = _Resolver(target, cancel)
    uploaded = run.uploaded(request.wheel)
    dated = uploaded is not None and not request.latest_deps
    limits: list[str] = []
    if uploaded is not None and dated:
        limits = as_of(request.wheel, uploaded, request.released)

    def attempt(recipe: Recipe, retry: bool) -> tuple[UvResult, Lock | None]:
        return run.compile(request.wheel, recipe, limits, retry=retry)

    recipe, lock = first_that_resolves(request.device, attempt)
    assert lock is not None
    sharing = _sharing(lock.packages.get("torch"), request.device) if dated else []
    shared = run.shared(recipe, lock, [*sharing, (request.wheel, limits)])
    notes = notes_on(recipe, dated=uploaded is not None, latest_deps=request.latest_deps)
    return Resolution(lock, shared, recipe, notes)


class _Resolver:
    """Asks uv for one target."""

    def __init__(self, target: Target, cancel: threading.Event | None) -> None:
        self._target = target
        self._cancel = cancel

    def uploaded(self, wheel: Wheel) -> datetime | None:
        """When the last file of ``wheel`` that suits the target came, where the index says so."""
        result, lock = self.compile(wheel, Recipe("", ""), ["--no-deps"])
        if lock is None:
            raise failure(result, "the configured package index")
        package = tomllib.loads(lock.text)["packages"][0]
        files: list[dict[str, Any]] = package.get("wheels") or [package.get("sdist") or {}]
        if any("upload-time" not in file for file in files):
            return None
        times: list[datetime] = [file["upload-time"] for file in files]
        return max(times).astimezone(UTC)

    def shared(self, recipe: Recipe, release: Lock, choices: list[tuple[Wheel, list[str]]]) -> Lock:
        """All but vLLM itself of the first of ``choices`` that has the torch of ``release``."""
        for wheel, limits in choices:
            _, lock = self.compile(
                wheel, recipe, [*limits, "--no-emit-package", wheel.distribution]
            )
            if lock is not None and lock.packages.get("torch") == release.packages.get("torch"):
                return lock
        return release

    def compile(
        self, wheel: Wheel, recipe: Recipe, options: list[str], *, retry: bool = True
    ) -> tuple[UvResult, Lock | None]:
        """What uv said, and the lock of ``wheel`` with all it needs unless that failed."""
        with scratch_directory() as folder:
            wanted = (f"{wheel.distribution}=={wheel.version}", *recipe.beside)
            (folder / "requirements.in").write_text("".join(f"{line}\n" for line in wanted))
            (folder / "excludes.txt").write_text("".join(f"{name}\n" for name in recipe.excludes))
            arguments = ["pip", "compile", "requirements.in", "--python", sys.executable]
            arguments += ["--output-file", "pylock.toml", "--format", "pylock.toml", "--no-header"]
            arguments += ["--excludes", "excludes.txt", *self._target.arguments]
            arguments += never_built(wheel)
            arguments += [*recipe.arguments, *options]
            if wheel.index:
                arguments += ["--index", wheel.index]
            result = run_uv(arguments, directory=folder, cancel=self._cancel, retry=retry)
            if result.returncode:
                return result, None
            return result, _read(folder / "pylock.toml")


def _read(path: Path) -> Lock:
    """The lock in ``path``, with ``HOST_FILES`` in the place of this machine's folders."""
    local_files: dict[str, Path] = {}

    def replace(match: re.Match[str]) -> str:
        file = Path(url2pathname(urlsplit(match[1]).path))
        # two folders may have files of the same name
        name = f"{hashlib.sha256(bytes(file.parent)).hexdigest()[:16]}/{file.name}"
        local_files[name] = file
        return f'"{HOST_FILES}/{quote(name)}"'

    text = _LOCAL.sub(replace, path.read_text(encoding="utf-8"))
    packages = {each["name"]: str(each["version"]) for each in tomllib.loads(text)["packages"]}
    return Lock(text, packages, local_files)


def _sharing(torch: str | None, device: Device) -> list[tuple[Wheel, list[str]]]:
    """The wheel of the first catalogued release with this torch, with uv's options for its day."""
    for entry in catalogue().values():
        if torch is None or entry.torch != Version(torch).public:
            continue
        version = entry.version
        if device is Device.CPU:
            if not entry.cpu_wheels:
                continue
            version = max((wheel.version for wheel in entry.cpu_wheels), key=Version)
        # the wheel is named by its version: it may have come at any time
        day = datetime.fromisoformat(entry.uploaded)
        options = until(day, device.distribution, "2999-12-31T00:00:00Z")
        return [(Wheel(distribution=device.distribution, version=version), options)]
    return []
