"""What a nightly build is called, so that PEP 440 orders it by when it was built.

Its own version does not: vLLM tags its releases on branches, so ``0.27.1rc1.dev949`` of the main
branch is newer than 0.27.1. Arguments limited to versions, and what is known of releases, would
then be taken for those of an older one.
"""

from __future__ import annotations

from datetime import UTC, datetime

from packaging.version import Version

from vbisect.releases.catalogue import catalogue
from vbisect.releases.source import KnownReleases

_FIRST = datetime(2023, 6, 20, tzinfo=UTC)
"""The day of vLLM's first release: builds that say they are older do not tell their day."""

_SHORTEST = 6
"""git writes no shorter names of commits for a project of this size."""


def nightly_version(
    built: datetime | None, commit: str | None, known: KnownReleases, *, own: Version | None = None
) -> str:
    """A version after all releases that were out when a build was made, and before all others.

    That is its ``own`` where it is one such, and names the ``commit``. Else one that says when it
    was built and from which commit: ``0.33.1.dev202611200312+g0123abcde``. A build of an unknown
    date counts as one of today: builds are kept for a while only.
    """
    made = built if built and built >= _FIRST else datetime.now(UTC)
    final = [v for v in (Version(r.version) for r in known.releases) if not v.is_prerelease]
    newest = max((v for v in final if _out_by(v, made)), default=Version("0"))
    if own is not None and (commit is None or commit_in(own, commit)):
        right = newest < own and not any(newest < version < own for version in final)
        if right:
            return str(own)
    local = f"+g{commit[:9]}" if commit else ""
    day = f"dev{made.astimezone(UTC):%Y%m%d%H%M}{local}"
    name = f"{newest.major}.{newest.minor}.{newest.micro + 1}.{day}"
    if any(newest < version < Version(name) for version in final):  # as 0.8.5.post1, 0.9.0.1
        name = f"{newest.base_version}.post{(newest.post or 0) + 1}.{day}"
    return name


def commit_in(version: Version, commit: str) -> bool:
    """Whether the local part of a development build names ``commit``, as in ``+g0123abc.cu129``."""
    parts = (version.local or "").split(".")
    return any(len(p) > _SHORTEST and p[0] == "g" and commit.startswith(p[1:]) for p in parts)


def _out_by(version: Version, moment: datetime) -> bool:
    """A release the catalogue does not know came after all it knows, and its day is not known."""
    entry = catalogue().get(str(version))
    uploaded = (entry or list(catalogue().values())[-1]).uploaded
    return datetime.fromisoformat(uploaded) <= moment
