"""GitHub's REST API, as far as vbisect reads and writes it.

    with GitHub(seconds=30) as github:
        for page in github.compare("vllm-project/vllm", "v0.28.0", "v0.29.0"):
            ...  # page.total_commits, page.commits, page.files (first page)
        reference = IssueReference.parse("vllm-project/vllm#17173", github.address.web_host)
        github.issue(reference)  # .title, .body, .locked
        github.comments(reference)  # an iterator over all pages

``seconds`` bounds everything, waits for rate limits included. A token is optional where GitHub
lets anybody read; ``github.token`` is ``None`` without one. All that goes wrong is a
``GitHubError``, itself a ``HostError`` or a ``UsageError``, in one line.
"""

from vbisect.github.client import GitHub
from vbisect.github.errors import (
    GitHubError,
    Gone,
    Locked,
    NotAccepted,
    NotAllowed,
    NotFound,
    RateLimited,
    Refused,
    Unavailable,
)
from vbisect.github.forms import (
    ChangedFile,
    Comment,
    Commit,
    Comparison,
    Gist,
    Issue,
    User,
)
from vbisect.github.issue_reference import IssueReference
from vbisect.github.token import Token

__all__ = [
    "ChangedFile",
    "Comment",
    "Commit",
    "Comparison",
    "Gist",
    "GitHub",
    "GitHubError",
    "Gone",
    "Issue",
    "IssueReference",
    "Locked",
    "NotAccepted",
    "NotAllowed",
    "NotFound",
    "RateLimited",
    "Refused",
    "Token",
    "Unavailable",
    "User",
]
