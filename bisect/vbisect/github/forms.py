"""The parts of GitHub's answers that vbisect reads, none of which is trusted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
"""Text that GitHub leaves ``null`` when it is empty."""


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True)


class User(_Form):
    """An account; it is ``None`` in GitHub's answers once it was deleted."""

    login: str


class Issue(_Form):
    """https://docs.github.com/rest/issues/issues#get-an-issue; a pull request is one too."""

    number: int
    html_url: str
    title: Text = ""
    body: Text = ""
    state: str = "open"
    locked: bool = False
    user: User | None = None
    created_at: datetime | None = None


class Comment(_Form):
    """https://docs.github.com/rest/issues/comments"""

    id: int
    html_url: str
    body: Text = ""
    user: User | None = None
    created_at: datetime | None = None


class GistFile(_Form):
    """One file of a gist; ``content`` is only its beginning when ``truncated``."""

    content: Text = ""
    truncated: bool = False


class Gist(_Form):
    """https://docs.github.com/rest/gists/gists"""

    id: str
    html_url: str
    files: dict[str, GistFile] = {}


class Signature(_Form):
    """Who wrote a commit, and when."""

    name: Text = ""
    date: datetime | None = None


class CommitText(_Form):
    """What Git itself knows of a commit."""

    message: Text = ""
    author: Signature | None = None


class Commit(_Form):
    """One commit, oldest first in a comparison."""

    sha: str
    html_url: str = ""
    commit: CommitText = CommitText()


class ChangedFile(_Form):
    """One file of the whole difference."""

    filename: str
    status: str = ""


class Comparison(_Form):
    """One page of https://docs.github.com/rest/commits/commits#compare-two-commits

    ``commits`` are those of the page, ``files`` are on the first page alone, 300 at most.
    """

    total_commits: int
    commits: list[Commit] = []
    files: list[ChangedFile] = []
