"""What vbisect asks of GitHub and writes there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import httpx

from vbisect.github.address import ApiAddress
from vbisect.github.errors import NotAllowed, NotFound
from vbisect.github.forms import Comment, Comparison, Gist, Issue, User
from vbisect.github.issue_reference import IssueReference
from vbisect.github.token import Token, find_token
from vbisect.github.transport import OnWait, Reply, Request, Transport, nonsense

Form = TypeVar("Form")
_PAGE = 100  # the most GitHub gives
_MOST_PAGES = 1000


def say_wait(reason: str, seconds: float) -> None:
    """Say on stderr why vbisect waits, and how long."""
    print(f"vbisect: {reason}; waiting {seconds:.0f} s", file=sys.stderr, flush=True)


class GitHub:
    """GitHub as the environment names it, with the token that is to be had; a context manager.

    All it does, waits for rate limits included, is over ``seconds`` after its making. Every method
    raises ``GitHubError``, one clear line.
    """

    def __init__(
        self,
        *,
        seconds: float,
        on_wait: OnWait = say_wait,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = ApiAddress.from_environment()
        self.token: Token | None = find_token(self.address.web_host)
        self._transport = Transport(self.address, self.token, seconds, on_wait, sleep)

    def __enter__(self) -> GitHub:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.close()

    def get(self, path: str, form: type[Form], what: str) -> Form:
        """What is at ``path`` as ``form``, any type pydantic knows; ``what`` names it."""
        return self._send("GET", path, what).read(form, what)

    def pages(
        self, path: str, form: type[Form], what: str, query: Mapping[str, str] | None = None
    ) -> Iterator[Form]:
        """The pages at ``path``, a hundred entries each, as long as GitHub links to another one."""
        given = urlencode({"per_page": str(_PAGE), **(query or {})})
        address: str | None = self.address.of(f"{path}?{given}")
        for _ in range(_MOST_PAGES):
            if address is None:
                return
            reply = self._transport.send(Request("GET", address, what))
            yield reply.read(form, what)
            address = _following(reply, address)
        raise nonsense(what)

    def user(self) -> User:
        """Whose token it is."""
        return self.get("/user", User, "the user of the token")

    def issue(self, issue: IssueReference) -> Issue:
        """An issue or pull request."""
        return self.get(_path(issue), Issue, str(issue))

    def comments(self, issue: IssueReference) -> Iterator[Comment]:
        """All comments on an issue, the oldest first."""
        for page in self.pages(comments_path(issue), list[Comment], str(issue)):
            yield from page

    def create_comment(self, issue: IssueReference, body: str) -> Comment:
        """Comment on an issue."""
        reply = self._send("POST", comments_path(issue), str(issue), {"body": body})
        return reply.read(Comment, str(issue))

    def update_comment(self, issue: IssueReference, comment: int, body: str) -> Comment:
        """Edit a comment on ``issue`` by its id."""
        path, what = comment_path(issue, comment), f"the comment on {issue}"
        return self._send("PATCH", path, what, {"body": body}).read(Comment, what)

    def gist(self, gist: str) -> Gist:
        """A gist by its id."""
        return self.get(_gist_path(gist), Gist, "the gist")

    def create_gist(self, description: str, files: Mapping[str, str]) -> Gist:
        """A secret gist of ``files``, name to content."""
        sent = {"description": description, "public": False, "files": _contents(files)}
        again = "makes another gist; if there is one of this among yours, delete that"
        request = Request("POST", self.address.of("/gists"), "a gist", sent, again)
        try:
            return self._transport.send(request).read(Gist, "a gist")
        except NotFound:
            whose = self.token.source if self.token else "nobody"
            raise NotAllowed(
                f"The token of {whose} may make no gist: it needs the scope gist."
            ) from None

    def update_gist(self, gist: str, files: Mapping[str, str | None]) -> Gist:
        """Replace files of a gist; ``None`` removes one.

        https://docs.github.com/rest/gists/gists#update-a-gist says so in words, not in its schema.
        """
        sent = {"files": _contents(files)}
        return self._send("PATCH", _gist_path(gist), "the gist", sent).read(Gist, "the gist")

    def delete_gist(self, gist: str) -> None:
        """Delete a gist."""
        self._send("DELETE", _gist_path(gist), "the gist")

    def compare(self, repository: str, base: str, head: str) -> Iterator[Comparison]:
        """What ``head`` has beyond ``base``, tags or commits of OWNER/REPO, page by page.

        https://docs.github.com/rest/commits/commits#compare-two-commits
        """
        basehead = f"{quote(base, safe='')}...{quote(head, safe='')}"
        what = f"{repository} {base}...{head}"
        path = f"/repos/{repository}/compare/{basehead}"
        yield from self.pages(path, Comparison, what, {"page": "1"})

    def _send(
        self, method: str, path: str, what: str, json: Mapping[str, Any] | None = None
    ) -> Reply:
        return self._transport.send(Request(method, self.address.of(path), what, json))


def comments_path(issue: IssueReference) -> str:
    """Where comments on ``issue`` are read and written."""
    return f"{_path(issue)}/comments"


def comment_path(issue: IssueReference, comment: int) -> str:
    """Where one comment on ``issue`` is edited."""
    return f"/repos/{issue.repository}/issues/comments/{comment}"


def _path(issue: IssueReference) -> str:
    return f"/repos/{issue.repository}/issues/{issue.number}"


def _gist_path(gist: str) -> str:
    return f"/gists/{quote(gist, safe='')}"


def _contents(files: Mapping[str, str | None]) -> dict[str, Any]:
    return {
        name: None if content is None else {"content": content} for name, content in files.items()
    }


def _following(reply: Reply, address: str) -> str | None:
    """The next page's address, which a server may have put anything into."""
    if reply.next is None:
        return None
    try:
        return str(httpx.URL(address).join(reply.next))
    except httpx.InvalidURL:
        raise nonsense("the next page") from None
