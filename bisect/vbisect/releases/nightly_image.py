"""What ``nightly`` means for images: a digest, and the commit behind it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from packaging.version import Version

from vbisect.errors import HostError, UsageError
from vbisect.registry import ImageMissing, ImageReference, Registry, known_image
from vbisect.registry.reference import DOCKER_HUB
from vbisect.releases.image_tags import listed
from vbisect.releases.nightly_version import nightly_version
from vbisect.releases.release import Release
from vbisect.releases.source import KnownReleases
from vbisect.text import one_line

_AT_ONCE = 8


class NightlyImages:
    """The nightly images of one repository, of one ``variant`` if any.

    A variant is the end of a release's tag and the beginning of a nightly's: ``cu129-nightly``,
    ``cu129-nightly-<commit>`` (vLLM's .buildkite/scripts/push-nightly-builds.sh).

    The versions of these builds are not known before they run: they are given one by their date.
    """

    def __init__(
        self, registry: Registry, repository: str, platform: str, variant: str | None = None
    ) -> None:
        self._registry = registry
        self._repository = ImageReference.parse(repository)
        self._platform = platform
        self._prefix = f"{variant}-" if variant else ""
        self._ends: set[str | None] = set()

    def resolve(self, asked: str, known: KnownReleases, notes: list[str]) -> Release:
        """``nightly`` or ``nightly-<commit>``, pinned to a digest.

        The newest release instead of a ``nightly`` that cannot be had. Raises ``UsageError`` for a
        commit that has no image.
        """
        try:
            release = self._pinned(asked, known)
        except (HostError, ImageMissing) as error:
            if asked != "nightly":
                raise UsageError(f"{asked}: {one_line(str(error))}") from None
            notes.append(
                f"NO NIGHTLY could be had ({one_line(str(error))}): "
                f"using the newest release, {known.newest.version}, instead."
            )
            return known.newest
        self._ends.add(release.image)
        commit = f"commit {release.commit}" if release.commit else "of an unknown commit"
        notes.append(f"{asked} is {release.version} ({release.image}, {commit}).")
        return release

    def between(self, end: Release, known: KnownReleases) -> tuple[Release, ...]:
        """The commits that have an image, after the newest release and before ``end``.

        Those that are ends of the range themselves are left out.
        """
        try:
            found = self._by_commit(known)
        except (HostError, ImageMissing):
            return ()
        low, high = Version(known.newest.version), Version(end.version)
        later = {release.version: release for release in found if release.image not in self._ends}
        return tuple(r for r in later.values() if low < Version(r.version) < high)

    def _pinned(self, nightly: str, known: KnownReleases) -> Release:
        tag = self._prefix + nightly
        image = known_image(self._registry, self._repository.with_tag(tag), self._platform)
        commit = image.commit
        if (named := self._commit_in(tag)) is not None:
            commit = named
        elif commit is None:
            commit = self._commit_of(image.digest)
        return self._release(image.digest, commit, image.created, known)

    def _commit_of(self, digest: str) -> str | None:
        """The commit whose own tag points at the same image."""
        tags = [tag for tag in self._registry.tags(self._repository) if self._commit_in(tag)]
        references = [self._repository.with_tag(tag) for tag in tags]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            digests = pool.map(self._registry.digest, references)
        same = (tag for tag, found in zip(tags, digests, strict=True) if found == digest)
        return next((self._commit_in(tag) for tag in same), None)

    def _commit_in(self, tag: str) -> str | None:
        """The commit that a tag of this variant names."""
        named = re.fullmatch(f"{re.escape(self._prefix)}nightly-([0-9a-f]{{40}})", tag)
        return named[1] if named else None

    def _by_commit(self, known: KnownReleases) -> Iterable[Release]:
        if self._repository.registry == DOCKER_HUB:
            # Docker Hub's own listing has the dates, and does not count as a pull
            return [
                self._release(tag.digest, commit, tag.updated, known)
                for tag in listed(self._repository)
                if tag.digest and (commit := self._commit_in(tag.name))
            ]
        tags = [tag for tag in self._registry.tags(self._repository) if self._commit_in(tag)]
        names = [tag.removeprefix(self._prefix) for tag in tags]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda name: self._pinned(name, known), names))

    def _release(
        self, digest: str, commit: str | None, created: datetime | None, known: KnownReleases
    ) -> Release:
        return Release(
            version=nightly_version(created, commit, known),
            wheels={},
            image=str(self._repository.with_digest(digest)),
            commit=commit,
        )
