"""``vbisect post``: a run as a comment on an issue, written once and edited from then on."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vbisect.errors import UsageError
from vbisect.github import Comment as PostedComment
from vbisect.github import (
    Gist,
    GitHub,
    GitHubError,
    IssueReference,
    NotAllowed,
    NotFound,
    Unavailable,
)
from vbisect.github.client import comment_path, comments_path
from vbisect.report.comment import (
    Comment,
    GistLink,
    digest_of,
    gist_files,
    is_ours,
    linked_gist,
    may_be_ours,
    to_comment,
)
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState, load_state
from vbisect.text import one_line

_SECONDS = 900
"""For everything, waits for rate limits included."""
_DRY_SECONDS = 30
_NO_GIST_YET = "https://gist.github.com/"


def post(run_dir: Path, issue: str, *, gist: bool, dry_run: bool) -> None:
    """Comment on ``issue``, or edit the comment about the same question; prints its address.

    Raises ``UsageError`` or ``HostError`` with one line about what GitHub refuses.
    """
    state, _ = load_state(run_dir)
    comment = to_comment(state, run_dir)
    files = gist_files(state, run_dir) if gist and comment.cut else {}
    if gist and not files:
        _say("the comment holds all of the logs; no gist is needed")
    with GitHub(seconds=_DRY_SECONDS if dry_run else _SECONDS) as github:
        reference = IssueReference.parse(issue, github.address.web_host)
        if dry_run:
            _Post(state, run_dir, github, reference, comment, files).show()
            return
        if github.token is None:
            raise UsageError(
                "No token for GitHub: set GITHUB_TOKEN or GH_TOKEN, or log in with "
                "`gh auth login`; --dry-run needs none."
            )
        reference = _now(github, reference)
        print(one_line(_Post(state, run_dir, github, reference, comment, files).write()))


def _now(github: GitHub, reference: IssueReference) -> IssueReference:
    """Where the issue is now: it may have moved, or its repository have another name."""
    found = github.issue(reference)
    try:
        now = IssueReference.parse(found.html_url, github.address.web_host)
    except UsageError:
        return reference
    if now != reference:
        _say(f"{reference} is {now} now")
    return now


@dataclass(frozen=True)
class _Post:
    """One comment on its way; ``files`` are for a gist, empty for none."""

    state: RunState
    run_dir: Path
    github: GitHub
    issue: IssueReference
    comment: Comment
    files: Mapping[str, str]

    def show(self) -> None:
        """Print what ``write`` would send; nothing is written, and no network is needed."""
        earlier = self._known_earlier()
        body = self.comment.body
        if self.files:
            link = self._known_link(earlier)
            if link is None:
                _say(f"POST /gists, with {', '.join(self.files)}; its address is not known yet")
                link = GistLink("0", _NO_GIST_YET, self._digest)
            elif link.digest != self._digest:
                _say(f"PATCH /gists/{link.id}, with {', '.join(self.files)}")
            body = self._with(link)
        if earlier is None:
            _say(f"POST {comments_path(self.issue)}")
        elif _same(earlier.body, body):
            _say(f"nothing to change at {earlier.html_url}")
        else:
            _say(f"PATCH {comment_path(self.issue, earlier.id)}")
        sys.stdout.flush()
        sys.stdout.buffer.write(body.encode())
        sys.stdout.buffer.flush()

    def write(self) -> str:
        """Send it; returns the address of the comment."""
        login = self._login()
        earlier = self._earlier(login)
        if not self.files:
            return self._send(self.comment.body, earlier, login)
        link = self._earlier_link(earlier)
        created = link is None
        if link is None:
            made = self.github.create_gist(f"Logs of vbisect for {self.issue}", self.files)
            link = self._link(made, self._digest)
        elif link.digest != self._digest:
            self._replace_files(link.id)
            _say("edited the gist")
        try:
            return self._send(self._with(link), earlier, login)
        except BaseException:
            if created:
                self._remove(link)
            raise

    @property
    def _digest(self) -> str:
        return digest_of(dict(self.files))

    def _with(self, link: GistLink) -> str:
        shown = GistLink(link.id, link.url, self._digest)
        return to_comment(self.state, self.run_dir, shown).body

    def _send(self, body: str, earlier: PostedComment | None, login: str) -> str:
        if earlier is None:
            try:
                made = self.github.create_comment(self.issue, body)
            except Unavailable:
                found = self._earlier(login)
                if found is None:
                    raise
                made = found  # it was written, only the answer was lost
            _say(f"commented on {self.issue}")
            return made.html_url
        if _same(earlier.body, body):
            _say("the comment says so already; nothing was written")
            return earlier.html_url
        edited = self.github.update_comment(self.issue, earlier.id, body)
        _say("edited the earlier comment")
        if (gone := linked_gist(earlier.body)) and linked_gist(body) is None:
            _say(f"it links to gist {gone[0]} no more; delete that if nobody needs it")
        return edited.html_url

    def _login(self) -> str:
        """Whose comments are vbisect's own; the token that Actions makes is nobody's."""
        try:
            return self.github.user().login
        except NotAllowed as error:
            raise NotAllowed(f"{error} It has to be the token of a user.") from None

    def _earlier(self, login: str) -> PostedComment | None:
        """vbisect's comment about the same question, by the same author; else an older one's."""
        settings: RunSettings = self.state.settings
        older = None
        for comment in self.github.comments(self.issue):
            if comment.user is None or comment.user.login != login:
                continue
            if is_ours(comment.body, settings):
                return comment
            if older is None and may_be_ours(comment.body, settings):
                older = comment
        return older

    def _known_earlier(self) -> PostedComment | None:
        """The same as far as it can be known, which is said."""
        if self.github.token is None:
            _say("without a token it is not known whether there is an earlier comment to edit")
            return None
        try:
            return self._earlier(self._login())
        except GitHubError as error:
            _say(f"it is not known whether there is an earlier comment to edit: {error}")
            return None

    def _earlier_link(self, earlier: PostedComment | None) -> GistLink | None:
        """The gist of the earlier comment, if it still exists."""
        linked = linked_gist(earlier.body) if earlier else None
        if linked is None:
            return None
        try:
            gist = self.github.gist(linked[0])
        except NotFound:
            return None
        return self._link(gist, linked[1])

    def _known_link(self, earlier: PostedComment | None) -> GistLink | None:
        """The same as far as it can be known, which is said."""
        try:
            return self._earlier_link(earlier)
        except GitHubError as error:
            _say(f"it is not known whether the gist still exists: {error}")
            return None

    def _link(self, gist: Gist, digest: str) -> GistLink:
        """Its address goes into the comment as it is, so it must be one and nothing else."""
        if not re.fullmatch(r"https?://[A-Za-z0-9.:/_-]{1,200}", gist.html_url):
            raise Unavailable("The answer for the gist is not one of GitHub's.")
        return GistLink(gist.id, gist.html_url, digest)

    def _replace_files(self, gist: str) -> None:
        old = dict.fromkeys(self.github.gist(gist).files)
        self.github.update_gist(gist, {**old, **self.files})

    def _remove(self, link: GistLink) -> None:
        try:
            self.github.delete_gist(link.id)
        except GitHubError as error:
            _say(f"the gist with the logs is left behind, delete it: {link.url} ({error})")
        else:
            _say("the gist made for it was deleted again")


def _same(one: str, other: str) -> bool:
    """GitHub may give lines back with other endings."""
    return _normal(one) == _normal(other)


def _normal(text: str) -> str:
    return text.replace("\r\n", "\n").strip()


def _say(line: str) -> None:
    print(f"vbisect: {one_line(line, 1000)}", file=sys.stderr, flush=True)
