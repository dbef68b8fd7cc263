"""The candidates of a run: from what was asked to an ordered list of releases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from packaging.version import InvalidVersion, Version

from vbisect.errors import UsageError
from vbisect.releases.release import Release
from vbisect.releases.source import KnownReleases

MOVING = ("nightly", "latest")
"""Names whose meaning moves; they are resolved to a concrete version before anything runs."""


class Nightlies(Protocol):
    """Where nightly builds come from."""

    def resolve(self, asked: str, known: KnownReleases, notes: list[str]) -> Release:
        """What ``nightly`` or ``nightly-<commit>`` is right now; ``notes`` get what to say."""
        ...

    def between(self, end: Release, known: KnownReleases) -> tuple[Release, ...]:
        """The builds that lie between the newest release and the nightly ``end``."""
        ...


@dataclass(frozen=True)
class RangeRequest:
    """What was asked: two ends, and releases to leave out (``A`` or ``A..B``)."""

    start: str
    end: str
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Range:
    """The candidates oldest first, those left out on request, and what has to be said loudly."""

    candidates: tuple[Release, ...]
    excluded: frozenset[str]
    notes: tuple[str, ...]


def select_range(request: RangeRequest, known: KnownReleases, nightlies: Nightlies) -> Range:
    """Resolve moving names, check the range and list its candidates.

    Raises ``UsageError`` for an unknown version (naming the nearest), ends in the wrong order,
    fewer than two candidates, or everything left out.
    """
    notes: list[str] = []
    # by version: a nightly may be on the user's own index too, or be named twice
    releases = {Version(release.version): release for release in known.releases}
    ends: list[Version] = []
    for asked in (request.start, request.end):
        release = _resolve(asked, known, nightlies, notes)
        between = nightlies.between(release, known) if release.image is not None else ()
        releases |= {Version(each.version): each for each in (*between, release)}
        ends.append(Version(release.version))
    start, end = ends
    if start > end:
        resolved = f" ({end})" if request.end.startswith(("latest", "nightly")) else ""
        raise UsageError(f"--from {request.start} is newer than --to {request.end}{resolved}.")
    candidates = tuple(releases[each] for each in sorted(releases) if start <= each <= end)
    if len(candidates) < 2:
        raise UsageError(
            f"There are fewer than two candidates from {request.start} to {request.end}."
        )
    excluded = _excluded(request.skip, candidates)
    if len(candidates) - len(excluded) < 2:
        raise UsageError("--skip leaves fewer than two candidates.")
    return Range(candidates, excluded, tuple(notes))


def lasting_name(asked: str, release: Release) -> str:
    """What asks for ``release`` tomorrow too, where ``asked`` moves.

    A nightly of an unknown commit has no other name.
    """
    if asked not in MOVING:
        return asked
    if release.commit is not None:
        return f"nightly-{release.commit}"
    a_nightly = release.image is not None or any(w.index for w in release.wheels.values())
    return asked if a_nightly else release.version


def parse_version(text: str) -> Version:
    """``text`` as a PEP 440 version, a leading ``v`` allowed; raises ``UsageError``."""
    try:
        return Version(text)
    except InvalidVersion:
        raise UsageError(
            f"'{text}' is not a version; write something like 0.8.5, nightly or latest."
        ) from None


def _resolve(asked: str, known: KnownReleases, nightlies: Nightlies, notes: list[str]) -> Release:
    if asked == "latest":
        notes.append(f"latest is {known.newest.version}.")
        return known.newest
    if asked == "nightly" or asked.startswith("nightly-"):
        return nightlies.resolve(asked, known, notes)
    wanted = parse_version(asked)
    for release in known.releases:
        if Version(release.version) == wanted:
            return release
    near = _nearest(wanted, known)
    raise UsageError(
        f"There is no vLLM release {asked} in the {known.source}; "
        f"the nearest {'is' if len(near) == 1 else 'are'} {' and '.join(near)}."
    )


def _nearest(wanted: Version, known: KnownReleases) -> list[str]:
    """The neighbours of a version that does not exist, in order, at most one on each side."""
    older = [r.version for r in known.releases if Version(r.version) < wanted]
    newer = [r.version for r in known.releases if Version(r.version) > wanted]
    return older[-1:] + newer[:1]


def _excluded(skips: tuple[str, ...], candidates: tuple[Release, ...]) -> frozenset[str]:
    excluded: set[str] = set()
    for skip in skips:
        first, dots, last = skip.partition("..")
        low = parse_version(first)
        high = parse_version(last) if dots else low
        if low > high:
            raise UsageError(f"--skip {skip}: {first} is newer than {last}.")
        hit = {r.version for r in candidates if low <= Version(r.version) <= high}
        if not hit:
            raise UsageError(f"--skip {skip} names no candidate of this range.")
        excluded |= hit
    return frozenset(excluded)
