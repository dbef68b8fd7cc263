"""What GitHub refuses, each kind an error of one clear line."""

from __future__ import annotations

import re
from http import HTTPStatus

import httpx
from pydantic import BaseModel, ValidationError

from vbisect.errors import HostError, UsageError, VbisectError
from vbisect.text import one_line


class GitHubError(VbisectError):
    """GitHub did not do what it was asked to; catch this one for all of them."""


class NotAccepted(GitHubError, HostError):
    """GitHub does not accept the token (401)."""


class NotAllowed(GitHubError, HostError):
    """The token may not do this (403)."""


class Locked(GitHubError, HostError):
    """The conversation is locked (403)."""


class RateLimited(GitHubError, HostError):
    """GitHub wants to be left alone for longer than the caller can wait (403 or 429)."""


class NotFound(GitHubError, UsageError):
    """There is no such thing, or the token may not see it (404)."""


class Gone(GitHubError, UsageError):
    """It was deleted, or issues are switched off (410)."""


class Refused(GitHubError, HostError):
    """GitHub understood the request and found a mistake in it (422 and other 4xx)."""


class Unavailable(GitHubError, HostError):
    """GitHub cannot be reached, fails (5xx), or answers something else than GitHub would."""


class _Mistake(BaseModel):
    message: str = ""
    resource: str = ""
    field: str = ""
    code: str = ""

    @property
    def words(self) -> str:
        return self.message or " ".join(w for w in (self.resource, self.field, self.code) if w)


class _Problem(BaseModel):
    """https://docs.github.com/rest/using-the-rest-api/troubleshooting-the-rest-api"""

    message: str = ""
    documentation_url: str = ""
    errors: list[_Mistake | str] | str = []

    @property
    def words(self) -> str:
        listed = [self.errors] if isinstance(self.errors, str) else self.errors
        details = [each if isinstance(each, str) else each.words for each in listed]
        told = "; ".join(part for part in (self.message, *details) if part)
        return one_line(told).rstrip(".")


def words_of(body: bytes) -> str:
    """GitHub's own words about a request that failed, as one line; they may be none."""
    return _problem(body).words


def is_rate_limit(response: httpx.Response, body: bytes) -> bool:
    """Whether a 403 or 429 asks to come back later, rather than refuses for good.

    https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        return True
    if response.status_code != HTTPStatus.FORBIDDEN:
        return False
    headers, problem = response.headers, _problem(body)
    return (
        "retry-after" in headers
        or headers.get("x-ratelimit-remaining") == "0"
        or "rate limit" in problem.message.lower()
        or "rate-limit" in problem.documentation_url.lower()
    )


def explain(response: httpx.Response, body: bytes, what: str, login: str) -> GitHubError:
    """The error for an answer above 399 that is no rate limit.

    ``what`` names the thing asked for, as in "vllm-project/vllm#17173"; ``login`` tells where the
    token is from, or is empty without one. GitHub's words in ``body`` are told as they are.
    """
    status, words = response.status_code, words_of(body)
    said = f" It says: {words}." if words else ""
    if status == HTTPStatus.UNAUTHORIZED:
        if not login:
            return NotAccepted(f"GitHub asks for a token to let anybody see {what}.{said}")
        return NotAccepted(
            f"GitHub does not accept the token of {login}: it has ended, was revoked or is "
            f"incomplete.{said}"
        )
    if status == HTTPStatus.FORBIDDEN:
        return _forbidden(response, what, login, words, said)
    if status == HTTPStatus.NOT_FOUND:
        may = f"the token of {login} may not see it" if login else "it needs a token to be seen"
        return NotFound(f"GitHub does not find {what}: there is none, or {may}.")
    if status == HTTPStatus.GONE:
        if "disabled" in words.lower():
            return Gone(f"{what}: issues are switched off in this repository.{said}")
        return Gone(f"{what} was deleted.{said}")
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return Refused(f"GitHub finds a mistake in what was sent for {what}.{said}")
    if status >= 500:
        return Unavailable(f"GitHub fails at {what}: {named(status)}; try again later.")
    return Refused(f"GitHub answers {named(status)} to {what}.{said}")


def named(status: int) -> str:
    """A status as people know it, such as ``502 Bad Gateway``."""
    known = status in HTTPStatus.__members__.values()
    return f"{status} {HTTPStatus(status).phrase}" if known else str(status)


def _forbidden(
    response: httpx.Response, what: str, login: str, words: str, said: str
) -> GitHubError:
    if re.search(r"\block(ed|ing)\b", words, re.IGNORECASE):
        return Locked(f"{what} is locked: only collaborators may still comment.{said}")
    if "x-github-sso" in response.headers:
        return NotAllowed(
            f"The organisation of {what} wants the token of {login} authorised for single sign-on: "
            f"do that in GitHub's settings of the token.{said}"
        )
    wanted = response.headers.get("x-accepted-github-permissions", "")
    needs = f", which needs {wanted}" if re.fullmatch(r"[a-z_=;, ]{1,200}", wanted) else ""
    whose = f"The token of {login} has" if login else "Without a token there is"
    return NotAllowed(f"{whose} no permission for {what}{needs}.{said}")


def _problem(body: bytes) -> _Problem:
    try:
        return _Problem.model_validate_json(body)
    except ValidationError:
        return _Problem()
