"""Ask GitHub, at the end of a run, for the commits between the two sides of each change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from vbisect.errors import VbisectError
from vbisect.github import Comparison, GitHub, GitHubError, NotFound, Unavailable
from vbisect.hour_cache import keep, recall
from vbisect.run.comparisons import (
    REPOSITORY,
    KeptCommit,
    KeptComparison,
    git_name,
    read_comparisons,
    write_comparisons,
)
from vbisect.run.records import Answer
from vbisect.run.state import RunState
from vbisect.text import one_line

_SECONDS = 30.0
"""For all changes together; the answer is there already, and nobody wants to wait for more."""

_LONGEST_TITLE = 300


def ask_commits(state: RunState, run_dir: Path, say: Callable[[str], None]) -> None:
    """Keep the commits of every change in ``run_dir``; what was read before is not asked again.

    Nothing fails by it: what cannot be read is kept as such, and ``say`` is told in one line.
    """
    changes = _changes(state)
    if not changes:
        return
    there = read_comparisons(run_dir)
    earlier = {(kept.base, kept.head): kept for kept in there}
    known = [
        earlier.get((each.base, each.head)) or _lately(each) for each in _wanted(state, changes)
    ]
    if all(each.complete for each in known):
        if tuple(known) != there:
            write_comparisons(run_dir, tuple(known))
        return
    try:
        with GitHub(seconds=_SECONDS, on_wait=_never_wait) as github:
            asking = _Asking(github)
            kept = [each if each.complete else asking.about(each) for each in known]
    except VbisectError as error:  # settings of the environment, seen before anything is asked
        why = {"problem": one_line(str(error))}
        kept = [each if each.complete else each.model_copy(update=why) for each in known]
    if problem := next((each.problem for each in kept if each.problem), None):
        say(f"commits could not be read: {problem}")
    for before, each in zip(known, kept, strict=True):
        if each.complete and not before.complete:  # what lay in the directory is anybody's
            keep(_question(each), each.model_dump(mode="json"))
    write_comparisons(run_dir, tuple(kept))


def _lately(wanted: KeptComparison) -> KeptComparison:
    """``wanted`` as GitHub listed all of it within the hour, if it did."""
    try:
        found = KeptComparison.model_validate(recall(_question(wanted)))
    except ValidationError:
        return wanted
    return found.model_copy(
        update={"last_before": wanted.last_before, "first_after": wanted.first_after}
    )


def _question(wanted: KeptComparison) -> tuple[str, ...]:
    address = os.environ.get("GITHUB_API_URL", "")
    return ("compare", address, REPOSITORY, wanted.base, wanted.head)


def _changes(state: RunState) -> list[Answer]:
    """The answer first, which matters most."""
    finding = state.finding
    if finding is None or finding.status.resumable:
        return []
    answers = [*([finding.answer] if finding.answer else []), *finding.changes]
    return list({(a.last_before, a.first_after): a for a in answers}.values())


def _wanted(state: RunState, changes: Sequence[Answer]) -> list[KeptComparison]:
    """What is to be read of each, with nothing read yet."""
    return [
        KeptComparison(
            last_before=change.last_before,
            first_after=change.first_after,
            base=git_name(state.settings, change.last_before),
            head=git_name(state.settings, change.first_after),
        )
        for change in changes
    ]


class _Asking:
    """Asks about one change after another, until GitHub does not answer any more."""

    def __init__(self, github: GitHub) -> None:
        self._github = github
        self._silent: str | None = None

    def about(self, wanted: KeptComparison) -> KeptComparison:
        """``wanted`` with what GitHub lists of it, and what kept it from listing all.

        Where it lists less than was read before, that stays.
        """
        total: int | None = None
        commits: list[KeptCommit] = []
        files: list[str] = []
        problem = self._silent
        try:
            for page in self._pages(wanted):
                total = page.total_commits
                commits += [
                    KeptCommit(sha=one_line(c.sha), title=_title(c.commit.message))
                    for c in page.commits
                ]
                files += [one_line(file.filename) for file in page.files]
        except NotFound as error:
            problem = one_line(str(error))
        except GitHubError as error:
            problem = self._silent = one_line(str(error))
        except KeyboardInterrupt:  # whoever does not want to wait gets the answer without
            problem = self._silent = "interrupted"
        if len(commits) < len(wanted.commits):
            return wanted.model_copy(update={"problem": problem or wanted.problem})
        found = {"total": total, "commits": tuple(commits), "files": tuple(files)}
        return wanted.model_copy(update={**found, "problem": problem})

    def _pages(self, wanted: KeptComparison) -> Iterator[Comparison]:
        if self._silent is not None:
            return iter(())
        return self._github.compare(REPOSITORY, wanted.base, wanted.head)


def _title(message: str) -> str:
    lines = message.strip().splitlines()
    return one_line(lines[0], _LONGEST_TITLE) if lines else ""


def _never_wait(reason: str, seconds: float) -> NoReturn:
    raise Unavailable(f"{reason}.")
