"""How many commits came with each release: a large release is likelier to hold a change."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from importlib import resources
from statistics import median

from packaging.version import Version

_ALIKE = 3
"""Known releases of a kind that an unknown one is reckoned by, the next ones: patch releases had
hundreds of commits up to 0.11.1 and a handful since."""

_DEVELOPMENT_SHARE = 0.5
"""A nightly at the end of a range is on average half way to the next release."""


class Kind(StrEnum):
    """What a version number says of a release's size."""

    MINOR = "minor"
    PATCH = "patch"
    POST = "post"


def commits_between(versions: Sequence[str]) -> tuple[float, ...]:
    """For each of ``versions``, oldest first, the commits since the release before it.

    By vLLM's release notes; where they give no number, the median of the next three releases of the
    same kind, or of the last three. Nightly builds share half of what a minor release has.
    """
    parsed = [Version(version) for version in versions]
    nightlies = Counter(version.base_version for version in parsed if version.is_devrelease)
    return tuple(
        _DEVELOPMENT_SHARE * _usual(version, Kind.MINOR) / nightlies[version.base_version]
        if version.is_devrelease
        else float(_known().get(version, 0)) or _usual(version, _kind(version))
        for version in parsed
    )


def _kind(version: Version) -> Kind:
    """A fourth number, as in 0.9.0.1, is a post-release by another name."""
    if version.is_postrelease or any(version.release[3:]):
        return Kind.POST
    return Kind.PATCH if version.micro else Kind.MINOR


def _usual(version: Version, kind: Kind) -> float:
    """The median of some known releases of this kind, later ones than ``version`` if there are."""
    alike = [known for known in _known() if _kind(known) is kind]
    older = sum(known < version for known in alike)
    first = max(0, min(older, len(alike) - _ALIKE))
    return float(median(_known()[known] for known in alike[first : first + _ALIKE]))


@cache
def _known() -> dict[Version, int]:
    """The shipped counts, oldest first."""
    text = resources.files(__package__).joinpath("commits.json").read_text(encoding="utf-8")
    counts: dict[str, int] = json.loads(text)["commits"]
    return {version: counts[str(version)] for version in sorted(map(Version, counts))}
