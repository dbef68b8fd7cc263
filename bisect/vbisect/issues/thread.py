"""The text of an issue and its comments, as GitHub has it or as somebody saved it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ValidationError

from vbisect.errors import UsageError
from vbisect.github import GitHub, IssueReference
from vbisect.github.forms import Text

_LARGEST_FILE = 32 * 2**20
"""Bytes; GitHub's own limit for a body is 65,536 characters."""

_LONGEST_PASSAGE = 2**18
_LONGEST_THREAD = 2**20
_LONGEST_LINE = 20_000
"""Characters; what is beyond these is not read."""

_MOST_COMMENTS = 300


@dataclass(frozen=True)
class Passage:
    """A part of the thread: ``where`` is "title", "body" or "comment 2"."""

    where: str
    text: str

    @property
    def lines(self) -> list[str]:
        """Its lines, as far as they are read."""
        return [line[:_LONGEST_LINE] for line in self.text.split("\n")]


@dataclass(frozen=True)
class Thread:
    """An issue: ``name`` is what to call it, the passages are its title, body and comments."""

    name: str
    title: str
    passages: tuple[Passage, ...]


class _Comment(BaseModel):
    body: Text = ""


class _Saved(BaseModel):
    """The shape of GitHub's API; ``comments`` is their number there, their list where saved so."""

    title: Text = ""
    body: Text = ""
    comments: list[_Comment] | int = 0


def read_saved(path: Path) -> Thread:
    """The thread in a JSON file; raises ``UsageError`` when it cannot be read or is none."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"{path} is too large for a saved issue.")
        saved = _Saved.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except ValidationError:
        raise UsageError(
            f"{path} is no saved issue: it takes a JSON object with title, body and, if there are "
            "any, comments."
        ) from None
    comments = [] if isinstance(saved.comments, int) else saved.comments
    return _thread(path.name, saved.title, saved.body, (comment.body for comment in comments))


def fetch(reference: IssueReference, github: GitHub) -> Thread:
    """The thread as it is on GitHub now; raises ``GitHubError``."""
    issue = github.issue(reference)
    comments = islice(github.comments(reference), _MOST_COMMENTS)
    return _thread(str(reference), issue.title, issue.body, (c.body for c in comments))


def _thread(name: str, title: str, body: str, comments: Iterable[str]) -> Thread:
    numbered = enumerate(islice(comments, _MOST_COMMENTS), 1)
    passages = [Passage("title", title), Passage("body", body)]
    passages += [Passage(f"comment {number}", text) for number, text in numbered]
    read, left = list[Passage](), _LONGEST_THREAD
    for passage in passages:
        text = passage.text[: min(left, _LONGEST_PASSAGE)]
        left -= len(text)
        read += [Passage(passage.where, text)] if text else []
    return Thread(name, title, tuple(read))
