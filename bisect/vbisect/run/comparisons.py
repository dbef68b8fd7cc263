"""The commits between the two sides of each change, as kept in a run directory."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vbisect.files import Below, write_whole
from vbisect.run.records import Frozen
from vbisect.run.settings import RunSettings

FILE_NAME = "commits.json"
REPOSITORY = "vllm-project/vllm"

_LARGEST = 32 * 2**20
"""Bytes; what GitHub lists of a change takes a hundredth of it."""


class KeptCommit(Frozen):
    """One commit: the first line of its message, and its full name."""

    sha: str
    title: str


class KeptComparison(Frozen):
    """What GitHub listed of a change between two releases.

    ``base`` and ``head`` are tags or commits. ``commits`` are the first ones, oldest first, of
    ``total``; ``files`` are at most 300 of all that differ. ``problem`` says why some or all of it
    could not be read.
    """

    last_before: str
    first_after: str
    base: str
    head: str
    total: int | None = None
    commits: tuple[KeptCommit, ...] = ()
    files: tuple[str, ...] = ()
    problem: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every commit was read."""
        return self.problem is None and self.total == len(self.commits)


_Kept = TypeAdapter(tuple[KeptComparison, ...])


def read_comparisons(run_dir: Path) -> tuple[KeptComparison, ...]:
    """What was kept in ``run_dir``; nothing where there is none that can be read."""
    try:
        return _Kept.validate_json((Below(run_dir) / FILE_NAME).read(_LARGEST))
    except (OSError, ValidationError):
        return ()


def write_comparisons(run_dir: Path, kept: tuple[KeptComparison, ...]) -> None:
    """Keep ``kept`` in ``run_dir``, whole or not at all."""
    write_whole(run_dir / FILE_NAME, _Kept.dump_json(kept, indent=1) + b"\n")


def git_name(settings: RunSettings, version: str) -> str:
    """The tag or commit that ``version``, a candidate, was built from."""
    release = next(r for r in settings.candidates if r.version == version)
    if release.commit is not None:
        return release.commit
    built_from = re.search(r"\+g([0-9a-f]{7,40})\b", version)
    return built_from[1] if built_from else f"v{version}"
