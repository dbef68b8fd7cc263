"""GitHub's answers, its limits and its refusals, as the client takes them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from standin.github import GitHubServer, Thread
from vbisect.errors import HostError, UsageError
from vbisect.github import (
    GitHub,
    GitHubError,
    Gone,
    IssueReference,
    Locked,
    NotAccepted,
    NotAllowed,
    NotFound,
    RateLimited,
    Refused,
    Unavailable,
)

REPOSITORY = "vllm-project/vllm"
ISSUE = IssueReference(REPOSITORY, 17173)
TOKEN = "0123456789abcdef0123456789abcdef01234567"  # of a shape that no pattern knows


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GitHubServer]:
    """A GitHub with one issue, and an environment that points there."""
    with GitHubServer() as made:
        made.tokens[TOKEN] = "operator"
        made.threads[REPOSITORY, 17173] = Thread()
        for name in ("GITHUB_TOKEN", "GH_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))  # no gh
        monkeypatch.setenv("GITHUB_API_URL", made.url)
        yield made


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """A token in the environment."""
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    return TOKEN


class Waits:
    """Waits that take no time, and what was said of them."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.said: list[str] = []

    def github(self, seconds: float = 600) -> GitHub:
        """The client."""
        return GitHub(
            seconds=seconds,
            on_wait=lambda reason, length: self.said.append(f"{reason} {length:.0f}"),
            sleep=self.slept.append,
        )


def fails(kind: type[GitHubError], call: str = "issue", seconds: float = 600) -> str:
    """What the error of one call says; it is one line and holds no token."""
    with Waits().github(seconds) as github:
        calls = {
            "issue": lambda: github.issue(ISSUE),
            "comment": lambda: github.create_comment(ISSUE, "text"),
        }
        with pytest.raises(kind) as caught:
            calls[call]()
    told = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in told
    assert TOKEN not in repr(caught.value) + told
    return told


def test_every_request_says_what_it_is(server: GitHubServer, token: str) -> None:
    """The headers GitHub asks for, and the token for itself alone."""
    with Waits().github() as github:
        assert github.user().login == "operator"
        assert github.issue(ISSUE).title == "n=8 returns one choice"
        assert TOKEN not in repr(github.token) + repr(vars(github))
    for asked in server.asked:
        assert asked.headers["accept"].startswith("application/vnd.github+json")
        assert asked.headers["x-github-api-version"] == "2022-11-28"
        assert asked.headers["user-agent"].startswith("vbisect/")
        assert asked.headers["authorization"] == f"Bearer {TOKEN}"


def test_all_pages_are_read(server: GitHubServer) -> None:
    """As long as GitHub links to a next one; without a token, which reading does not need."""
    server.page_size = 2
    server.commits = [{"sha": f"{n:040x}"} for n in range(5)]
    for n in range(7):
        server.comment(REPOSITORY, 17173, "somebody", f"comment {n}")
    with Waits().github() as github:
        assert [c.body for c in github.comments(ISSUE)] == [f"comment {n}" for n in range(7)]
        pages = list(github.compare(REPOSITORY, "v0.28.0", "v0.29.0"))
    assert [len(page.commits) for page in pages] == [2, 2, 1]
    assert {page.total_commits for page in pages} == {5}
    assert not any("authorization" in asked.headers for asked in server.asked)


def test_pages_of_another_host_are_not_asked_for(server: GitHubServer, token: str) -> None:
    """A link or redirect elsewhere would take the token along."""
    with GitHubServer() as other:
        link = {"Link": f'<{other.url}/repos>; rel="next"'}
        server.fault("GET", "/comments", 200, b"[]", link)
        server.fault("GET", "/17173$", 301, headers={"Location": f"{other.url}/issue"})
        with Waits().github() as github, pytest.raises(Unavailable, match="another host"):
            list(github.comments(ISSUE))
        assert "another host" in fails(Unavailable)
        assert other.asked == []


def test_a_renamed_repository_is_followed(server: GitHubServer, token: str) -> None:
    """For what is written too: it is sent again as it was."""
    server.renamed["vllm/vllm"] = REPOSITORY
    with Waits().github() as github:
        made = github.create_comment(IssueReference("vllm/vllm", 17173), "text")
    assert made.body == "text"
    assert server.threads[REPOSITORY, 17173].comments[0]["body"] == "text"


def test_redirects_end(server: GitHubServer) -> None:
    """A server that sends a request round in circles is given up."""
    server.renamed["vllm-project/vllm"] = REPOSITORY
    assert "circles" in fails(Unavailable)


@pytest.mark.parametrize(
    ("status", "headers", "message", "wait"),
    [
        (429, {"retry-after": "7"}, "", 7),
        (403, {"retry-after": "7"}, "You have exceeded a secondary rate limit.", 7),
        (403, {}, "You have exceeded a secondary rate limit. Please wait a few minutes.", 60),
        (
            403,
            {
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": "1795000030",
                "Date": "Wed, 18 Nov 2026 11:06:40 GMT",  # 1795000000
            },
            "API rate limit exceeded for user ID 1.",
            31,
        ),
    ],
)
def test_a_rate_limit_is_waited_for(
    server: GitHubServer, status: int, headers: dict[str, str], message: str, wait: int
) -> None:
    """As long as GitHub says, a minute where it does not; and that is said."""
    server.fault("GET", "/17173$", status, message, headers)
    waits = Waits()
    with waits.github() as github:
        github.issue(ISSUE)
    assert waits.slept == [wait]
    assert waits.said == [f"GitHub's rate limit is reached {wait}"]


def test_a_secondary_limit_is_waited_for_longer_each_time(server: GitHubServer) -> None:
    """And not for ever."""
    server.fault("GET", "/17173$", 403, "secondary rate limit", times=4)
    waits = Waits()
    with waits.github(seconds=6000) as github:
        github.issue(ISSUE)
    assert waits.slept == [60, 120, 240, 480]
    server.fault("GET", "/17173$", 403, "secondary rate limit", times=100)
    told = fails(RateLimited, seconds=6000)
    assert "A token in GITHUB_TOKEN raises it." in told


@pytest.mark.parametrize("asked", ["3600", "9999999999"])
def test_a_wait_beyond_the_given_time_is_an_error(
    server: GitHubServer, token: str, asked: str
) -> None:
    """It says how long and until when, and nothing is waited for."""
    server.fault("GET", "/17173$", 429, "", {"retry-after": asked}, times=9)
    told = fails(RateLimited, seconds=30)
    assert server.count("GET") == 1
    assert "the token of GITHUB_TOKEN" in told
    assert "until 2" in told or "for ever" in told


def test_a_default_wait_is_said_on_stderr(server: GitHubServer) -> None:
    """Whoever waits wants to know for what."""
    server.fault("GET", "/17173$", 502)
    said = io.StringIO()
    with redirect_stderr(said), GitHub(seconds=60, sleep=lambda seconds: None) as github:
        github.issue(ISSUE)
    assert said.getvalue() == "vbisect: GitHub answers 502 Bad Gateway; waiting 1 s\n"


def test_a_failing_github_is_asked_again(server: GitHubServer) -> None:
    """A few times."""
    server.fault("GET", "/17173$", 502, times=2)
    server.fault("GET", "/17173$", 0, cut=True)
    waits = Waits()
    with waits.github() as github:
        github.issue(ISSUE)
    assert waits.slept == [1, 2, 4]
    server.fault("GET", "/17173$", 503, times=100)
    assert "503 Service Unavailable" in fails(Unavailable)


@pytest.mark.parametrize("fault", [{"status": 502}, {"status": 0, "cut": True}])
def test_a_comment_is_not_written_twice(
    server: GitHubServer, token: str, fault: dict[str, Any]
) -> None:
    """Where it is not known whether it was written, it is not sent again."""
    server.fault("POST", "/comments", **fault)
    told = fails(Unavailable, "comment")
    assert server.count("POST") == 1
    assert "did not say whether it wrote" in told
    assert "again finds out, and writes nothing twice." in told


def test_a_comment_waits_for_a_rate_limit(server: GitHubServer, token: str) -> None:
    """What was refused was not written."""
    server.fault("POST", "/comments", 403, "secondary rate limit", {"retry-after": "3"})
    waits = Waits()
    with waits.github() as github:
        github.create_comment(ISSUE, "text")
    assert waits.slept == [3]
    assert len(server.threads[REPOSITORY, 17173].comments) == 1


def test_a_server_that_never_ends_is_given_up(server: GitHubServer) -> None:
    """Even one that keeps on answering, a byte at a time."""
    assert "within 0 s" in fails(Unavailable, seconds=0)
    assert server.asked == []
    server.fault("GET", "/17173$", 200, drip=True)
    assert "within 1 s" in fails(Unavailable, seconds=1)
    server.fault("GET", "/17173$", 200, drip_head=True)
    assert "within 1 s" in fails(Unavailable, seconds=1)


REFUSALS = [
    (401, "Bad credentials", {}, NotAccepted, "does not accept the token of GITHUB_TOKEN"),
    (
        403,
        "Resource not accessible by personal access token",
        {"x-accepted-github-permissions": "issues=write; pull_requests=write"},
        NotAllowed,
        "no permission for vllm-project/vllm#17173, which needs issues=write",
    ),
    (403, "Resource protected", {"x-github-sso": "required"}, NotAllowed, "single sign-on"),
    (403, "Unable to create comment because issue is locked.", {}, Locked, "only collaborators"),
    (404, "Not Found", {}, NotFound, "the token of GITHUB_TOKEN may not see it"),
    (410, "This issue was deleted", {}, Gone, "was deleted"),
    (410, "Issues are disabled for this repo", {}, Gone, "switched off"),
    (422, "Validation Failed", {}, Refused, "It says: Validation Failed; body is too long."),
    (451, "Repository access blocked", {}, Refused, "451"),
]


@pytest.mark.parametrize(("status", "message", "headers", "kind", "told"), REFUSALS)
def test_refusals_are_told_apart(
    server: GitHubServer,
    token: str,
    status: int,
    message: str,
    headers: dict[str, str],
    kind: type[GitHubError],
    told: str,
) -> None:
    """One clear line each, without a second try."""
    errors = [{"code": "custom", "message": "body is too long"}] if status == 422 else []
    server.fault("POST", "/comments", status, message, headers, errors=errors)
    assert told in fails(kind, "comment")
    assert server.count("POST") == 1
    assert issubclass(kind, UsageError if kind in (NotFound, Gone) else HostError)


def test_hostile_words_are_told_as_one_harmless_line(server: GitHubServer, token: str) -> None:
    """Neither the token nor a terminal's controls come back out of an answer."""
    server.fault("POST", "/comments", 422, f"no \x1b[2J {TOKEN}\nvbisect: done", times=9)
    told = fails(Refused, "comment")
    assert "\x1b" not in told
    assert "<token>" in told


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"number": "x"}', b"\xff"])
def test_an_answer_of_something_else_is_said(server: GitHubServer, body: bytes) -> None:
    """A page of a proxy, for example."""
    server.fault("GET", "/17173$", 200, body)
    assert "is not one of GitHub's" in fails(Unavailable)


def test_nobody_there_is_said(server: GitHubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few tries."""
    monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")
    assert "Cannot talk to GitHub" in fails(Unavailable)


@pytest.mark.parametrize(
    "address",
    ["http://api.github.com", "ftp://127.0.0.1", "https://me:pw@ghe.example", "api.github.com"],
)
def test_unsafe_addresses_are_refused(
    server: GitHubServer, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """A token is sent by https alone, but for this machine itself."""
    monkeypatch.setenv("GITHUB_API_URL", address)
    with pytest.raises(UsageError, match="GITHUB_API_URL") as caught:
        GitHub(seconds=1)
    assert "pw" not in str(caught.value)


def test_the_token_is_looked_for_where_people_keep_it(
    server: GitHubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """GITHUB_TOKEN, then GH_TOKEN, then gh itself, for the host that is asked."""
    gh = tmp_path / "gh"
    host = server.url.removeprefix("http://")
    gh.write_text(f'#!/bin/sh\n[ "$*" = "auth token --hostname {host}" ] && echo of-gh\n')
    gh.chmod(0o700)
    monkeypatch.setenv("GITHUB_TOKEN", " ")
    found = [Waits().github().token]
    monkeypatch.setenv("GH_TOKEN", "second\n")
    found.append(Waits().github().token)
    monkeypatch.setenv("GITHUB_TOKEN", "first")
    found.append(Waits().github().token)
    assert [(t.value, t.source) for t in found if t] == [
        ("of-gh", "gh auth token"),
        ("second", "GH_TOKEN"),
        ("first", "GITHUB_TOKEN"),
    ]
    monkeypatch.setenv("GITHUB_TOKEN", "two words")
    with pytest.raises(UsageError, match="cannot be a token") as caught:
        Waits().github()
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "vllm-project/vllm#17173",
        "https://github.com/vllm-project/vllm/issues/17173",
        "https://github.com/vllm-project/vllm/pull/17173/files",
        "https://github.com/vllm-project/vllm/issues/17173#issuecomment-1",
    ],
)
def test_issues_are_named_as_people_name_them(text: str) -> None:
    """By the short name or the address of the page."""
    assert IssueReference.parse(text, "github.com") == ISSUE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17173",
        "vllm#17173",
        "vllm-project/vllm#0",
        "vllm-project/vllm#1x",
        "vllm-project/..#1",
        "../vllm#1",
        "a/b/c#1",
        "https://github.com/vllm-project/vllm/issues/",
        "https://elsewhere.example/vllm-project/vllm/issues/1",
        "https://github.com@elsewhere.example/vllm-project/vllm/issues/1",
        "https://[github.com/vllm-project/vllm/issues/1",
    ],
)
def test_what_names_no_issue_is_refused(text: str) -> None:
    """Before anything is asked."""
    with pytest.raises(UsageError):
        IssueReference.parse(text, "github.com")
