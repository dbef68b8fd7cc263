"""The commits between the two sides of a change, the likely ones first."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vbisect.report.upgrade.clues import Clues, clues_of
from vbisect.run.comparisons import REPOSITORY, KeptCommit, KeptComparison
from vbisect.run.state import RunState

_SHOWN = 10
_PULL = re.compile(r"\(#([1-9][0-9]{0,8})\)\s*$")
_ASIDE = re.compile(r"\[(?:CI|Docs?|Tests?|Benchmark|Release)[\]/]", re.IGNORECASE)
"""Titles of vLLM begin with what a commit is about; these hardly change what a server answers."""


@dataclass(frozen=True)
class LikelyCommit:
    """A commit whose title speaks of what the run asked; ``words`` are those it has in common.

    ``address`` is that of its pull request, where the title names one.
    """

    sha: str
    title: str
    pull: int | None
    address: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Commits:
    """The commits from ``base`` to ``head`` that were read: ``read`` of ``total``.

    ``likely`` are those that may have made the change, by their titles alone. ``files`` are changed
    ones that such a request passes through; GitHub lists at most 300 of a comparison, and
    ``files_listed`` says how many it did. ``problem`` says why not all could be read.
    """

    last_before: str
    first_after: str
    address: str
    read: int
    total: int | None
    likely: tuple[LikelyCommit, ...]
    files: tuple[str, ...]
    files_listed: int
    problem: str | None


def commits_between(state: RunState, kept: Sequence[KeptComparison]) -> tuple[Commits, ...]:
    """What was kept of each change, with the likely commits in front."""
    clues = clues_of(state)
    return tuple(_commits(each, clues) for each in kept)


def _commits(kept: KeptComparison, clues: Clues) -> Commits:
    return Commits(
        last_before=kept.last_before,
        first_after=kept.first_after,
        address=f"https://github.com/{REPOSITORY}/compare/{kept.base}...{kept.head}",
        read=len(kept.commits),
        total=kept.total,
        likely=tuple(_likely(kept.commits, clues)[:_SHOWN]),
        files=tuple(file for file in kept.files if clues.in_path(file))[:_SHOWN],
        files_listed=len(kept.files),
        problem=kept.problem,
    )


def _likely(commits: Sequence[KeptCommit], clues: Clues) -> list[LikelyCommit]:
    """Those with a clue in their title, best first; a clue that many have in common counts less."""
    found = [(commit, clues.in_title(commit.title)) for commit in commits]
    often = Counter(word for _, words in found for word in words)
    scored = []
    for place, (commit, words) in enumerate(found):
        score = sum(
            weight * math.log((len(commits) + 1) / often[word]) for word, weight in words.items()
        )
        if words:
            aside = bool(_ASIDE.search(commit.title))
            scored.append((aside, -score, place, _described(commit, tuple(words))))
    return [described for *_, described in sorted(scored, key=lambda each: each[:3])]


def _described(commit: KeptCommit, words: tuple[str, ...]) -> LikelyCommit:
    pull = _PULL.search(commit.title)
    sha = commit.sha if re.fullmatch("[0-9a-f]{7,64}", commit.sha) else ""
    where = f"pull/{pull[1]}" if pull else f"commit/{sha}"
    return LikelyCommit(
        sha=sha,
        title=_PULL.sub("", commit.title).strip(),
        pull=int(pull[1]) if pull else None,
        address=f"https://github.com/{REPOSITORY}/{where}",
        words=words,
    )
