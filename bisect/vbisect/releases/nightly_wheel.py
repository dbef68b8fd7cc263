"""What ``nightly`` means for wheels: the newest development build on vLLM's own index."""

from __future__ import annotations

import os

from vbisect.errors import UsageError
from vbisect.releases.index import IndexUnavailable, list_versions
from vbisect.releases.release import Device, Release, Wheel
from vbisect.releases.source import KnownReleases

NIGHTLY_INDEX = "https://wheels.vllm.ai/nightly"
"""vLLM's index of wheels built from its main branch (docs.vllm.ai, installation)."""


def nightly_index(build: str, device: Device) -> str:
    """The index of the wheels of one build: ``nightly``, or a commit of 40 hex digits."""
    root = os.environ.get("VBISECT_NIGHTLY_INDEX", NIGHTLY_INDEX).rstrip("/")
    index = f"{root.rpartition('/')[0]}/{build}"
    return f"{index}/cpu" if device is Device.CPU else index


class NightlyWheels:
    """The nightly builds that have a wheel for ``device``."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def resolve(self, asked: str, known: KnownReleases, notes: list[str]) -> Release:
        """The newest build of vLLM's main branch, or the newest release where there is none."""
        if asked != "nightly":
            raise UsageError(f"{asked} names an image: use it with --runtime docker.")
        index = nightly_index("nightly", self._device)
        try:
            listed = list_versions("vllm", pre=True, index=index, timeout=30)
            # pip's extra indexes are listed too: only a development build is a nightly
            builds = [version for version in listed if version.is_devrelease]
            if not builds:
                raise IndexUnavailable("no development build is listed there")
            newest = builds[-1]
        except IndexUnavailable as error:
            notes.append(
                f"NO NIGHTLY could be had for --device {self._device} ({error}): "
                f"using the newest release, {known.newest.version}, instead."
            )
            return known.newest
        notes.append(f"nightly is {newest}.")
        wheel = Wheel(distribution="vllm", version=str(newest), index=index)
        return Release(version=str(newest), wheels={self._device: wheel})

    def between(self, end: Release, known: KnownReleases) -> tuple[Release, ...]:
        """Only the newest build is on the index."""
        return ()
