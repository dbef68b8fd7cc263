"""What ``nightly`` and ``nightly-<commit>`` mean for wheels: builds on vLLM's own index.

It has a folder for each commit of main, and one that is called ``nightly``, each with an index for
pip, and in ``vllm/metadata.json`` since December 2025 what is on it. Before that, the wheels of all
commits had one name: ``vllm-1.0.0.dev`` (vLLM's .buildkite/scripts/generate-nightly-index.py,
docs.vllm.ai, installation).
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpx
from packaging.version import Version
from pydantic import BaseModel, TypeAdapter, ValidationError

from vbisect.connections import TooLarge, TooLate, following, new_client, read_whole
from vbisect.errors import HostError, UsageError
from vbisect.releases.index import IndexUnavailable, list_versions
from vbisect.releases.nightly_version import commit_in, nightly_version
from vbisect.releases.release import Device, Release, Wheel, is_index
from vbisect.releases.source import KnownReleases

NIGHTLY_INDEX = "https://wheels.vllm.ai/nightly"
"""vLLM's index of wheels built from its main branch (docs.vllm.ai, installation)."""

_NAMELESS = Version("1.0.0.dev0")
"""The version of every commit's wheel before December 2025 (vllm-project/vllm#29838)."""

_LARGEST = 1 << 20
"""Bytes of a list of a build's wheels; those of vLLM have some thousand."""

_SECONDS = 30.0


def nightly_index(build: str, device: Device) -> str:
    """The index of the wheels of one build: ``nightly``, or a commit of 40 hex digits.

    Raises ``UsageError`` where VBISECT_NIGHTLY_INDEX is no address.
    """
    root = os.environ.get("VBISECT_NIGHTLY_INDEX", NIGHTLY_INDEX).rstrip("/")
    if not is_index(root):
        raise UsageError(
            "VBISECT_NIGHTLY_INDEX is no address of an index: write https://HOST/nightly, or "
            "file:///FOLDER/nightly for a folder."
        )
    index = f"{root.rpartition('/')[0]}/{build}"
    return f"{index}/cpu" if device is Device.CPU else index


def wheel_of_commit(commit: str, device: Device) -> Wheel:
    """The wheel of a commit (40 hex digits); raises ``IndexUnavailable`` where there is none."""
    index = nightly_index(commit, device)
    # pip's extra indexes are listed too, with releases of vLLM
    listed = [version for version in _builds(index) if version.is_devrelease]
    own = [version for version in listed if commit_in(version, commit) or version == _NAMELESS]
    if not own:
        raise IndexUnavailable("no build of that commit is listed there")
    return Wheel(distribution="vllm", version=str(own[-1]), index=index)


class NightlyWheels:
    """The nightly builds that have a wheel for ``device``."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def resolve(self, asked: str, known: KnownReleases, notes: list[str]) -> Release:
        """The newest build of vLLM's main branch, or that of a commit.

        The newest release instead of a ``nightly`` that cannot be had. Raises ``UsageError`` for a
        commit that has no wheel.
        """
        try:
            commit, wheel = self._wheel(asked)
        except IndexUnavailable as error:
            if asked != "nightly":
                raise UsageError(
                    f"{asked}: there is no wheel for --device {self._device} ({error})."
                ) from None
            notes.append(
                f"NO NIGHTLY could be had for --device {self._device} ({error}): "
                f"using the newest release, {known.newest.version}, instead."
            )
            return known.newest
        assert wheel.index is not None
        built, own = _listing(wheel.index).written, Version(wheel.version)
        version = nightly_version(built, commit, known, own=own)
        told = "" if version == wheel.version else f", {wheel.version} on its index"
        notes.append(f"{asked} is {version}{told}.")
        return Release(version=version, wheels={self._device: wheel}, commit=commit)

    def between(self, end: Release, known: KnownReleases) -> tuple[Release, ...]:
        """No index lists the commits that have a wheel."""
        return ()

    def _wheel(self, asked: str) -> tuple[str | None, Wheel]:
        """The commit that is asked for, or the newest one, and its wheel."""
        if asked != "nightly":
            named = asked.removeprefix("nightly-")
            if re.fullmatch("[0-9a-f]{40}", named) is None:
                raise UsageError(f"{asked}: name the commit by all its 40 hex digits.")
            return named, wheel_of_commit(named, self._device)
        index = nightly_index("nightly", self._device)
        builds = [version for version in _builds(index) if version.is_devrelease]
        if not builds:
            raise IndexUnavailable("no development build is listed there")
        newest = builds[-1]
        commit = _listing(index).commit_of(newest)
        if commit is not None:  # its own folder stays when there is another nightly
            index = nightly_index(commit, self._device)
        return commit, Wheel(distribution="vllm", version=str(newest), index=index)


def _builds(index: str) -> tuple[Version, ...]:
    return list_versions("vllm", pre=True, index=index, timeout=_SECONDS, anew=True)


class _Entry(BaseModel):
    """A wheel of a build; the last folder of its ``path`` is the commit it was built from."""

    version: str
    path: str


class _Listing(NamedTuple):
    """When the list of a build's wheels was written, and what is on it."""

    written: datetime | None = None
    entries: tuple[_Entry, ...] = ()

    def commit_of(self, version: Version) -> str | None:
        """The commit in whose folder the wheel of ``version`` lies."""
        for entry in self.entries:
            folder = re.search("(?:^|/)([0-9a-f]{40})/[^/]+$", entry.path)
            if folder is not None and commit_in(version, folder[1]):
                return folder[1]
        return None


def _listing(index: str) -> _Listing:
    """What ``metadata.json`` says of a build: nothing where there is none that can be read."""
    address = f"{index}/vllm/metadata.json"
    try:
        with (
            new_client(direct=False, connect=_SECONDS, read=_SECONDS) as client,
            following(client, client.build_request("GET", address)) as answer,
        ):
            answer.raise_for_status()
            body = read_whole(answer, _LARGEST, time.monotonic() + _SECONDS)
        entries = TypeAdapter(tuple[_Entry, ...]).validate_json(body)
    except (httpx.HTTPError, httpx.InvalidURL, HostError, TooLarge, TooLate, ValidationError):
        return _Listing()
    try:
        written = parsedate_to_datetime(answer.headers.get("last-modified", ""))
    except ValueError:
        return _Listing(None, entries)
    return _Listing(written.replace(tzinfo=written.tzinfo or UTC), entries)
