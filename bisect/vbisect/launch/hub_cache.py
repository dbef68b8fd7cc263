"""The cache of a model hub's client, as far as it tells what a server downloads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from string import Template

from vbisect.errors import EngineLost
from vbisect.reasons import SkipReason, Untestable


class StillLoading(EngineLost):
    """A boot ended at its time limit while it downloaded: that says nothing of its release."""


def hub_home(environment: Mapping[str, str], home: str) -> PurePosixPath:
    """The folder of huggingface_hub, by the variables of a process and its user's home.

    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    caches = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return whole(environment.get("HF_HOME") or f"{caches}/huggingface", environment, home)


def hub_cache(environment: Mapping[str, str], home: str) -> PurePosixPath:
    """Where it keeps models."""
    named = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    return whole(named, environment, home) if named else hub_home(environment, home) / "hub"


def whole(path: str, environment: Mapping[str, str], home: str) -> PurePosixPath:
    """A path as huggingface_hub reads it, with the ``~`` and the variables that may be in it."""
    path = re.sub(r"^~(?=/|$)", lambda _: home, path)
    return PurePosixPath(Template(path).safe_substitute(environment))


def folder_of(model: str, cache: Path) -> Path:
    """What ``cache`` has of a model is in there."""
    return cache / f"models--{model.replace('/', '--')}"


def on_host(inside: PurePosixPath, mounts: Mapping[str, str]) -> Path | None:
    """Where a place inside a container is on its host, by what is mounted where."""
    for outside, mounted in mounts.items():
        if outside.startswith("/") and inside.is_relative_to(mounted):
            return Path(outside) / inside.relative_to(mounted)
    return None


@contextmanager
def not_while_downloading(model: str, cache: Path | None) -> Iterator[None]:
    """A boot that runs out of time in the block is lost where it was downloading its model.

    ``cache`` is ``None`` where it cannot be seen. Raises ``StillLoading`` in place of the skip.
    """
    before = _unfinished(model, cache)
    try:
        yield
    except Untestable as failed:
        if failed.reason is SkipReason.BOOT_TIMEOUT and _unfinished(model, cache) - before:
            raise StillLoading(
                f"{model} was still being downloaded when the boot ended at its time limit "
                f"({failed.detail})."
            ) from None
        raise


def _unfinished(model: str, cache: Path | None) -> frozenset[tuple[str, int, int]]:
    """The unfinished files of a model: name, bytes, and when they were last written to."""
    if cache is None or model.startswith(("/", "~")):
        return frozenset()
    found = set()
    try:
        for path in (folder_of(model, cache) / "blobs").iterdir():
            if path.name.endswith(".incomplete"):
                stat = path.stat()
                found.add((path.name, stat.st_size, stat.st_mtime_ns))
    except OSError:  # there is none, or it was finished just now
        pass
    return frozenset(found)
