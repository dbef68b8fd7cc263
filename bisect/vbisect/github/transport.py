"""Requests to GitHub's API, repeated when it likes, within a given time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from vbisect.connections import (
    TooLarge,
    TooLate,
    advice_for,
    closed_after,
    fault_of,
    is_momentary,
    new_client,
    read_whole,
)
from vbisect.github.address import ApiAddress
from vbisect.github.errors import (
    GitHubError,
    RateLimited,
    Unavailable,
    explain,
    is_rate_limit,
    named,
)
from vbisect.github.limits import asked_wait, when
from vbisect.github.token import Token

Form = TypeVar("Form")
OnWait = Callable[[str, float], None]
"""Told the reason for a wait and its length in seconds, before it begins."""

_CONNECT, _READ = 10.0, 30.0  # seconds
_UNNAMED = 60.0  # seconds; the least that GitHub wants where it names no time
_ATTEMPTS = 5
_REDIRECTS = 5
_LARGEST_ANSWER = 64 << 20  # bytes; a page holds a hundred comments of 65,536 characters
_REPEATABLE = frozenset({"GET", "PATCH", "DELETE"})
_REDIRECTED = frozenset({301, 302, 307, 308})


@dataclass(frozen=True)
class Reply:
    """One complete answer below 400; ``next`` is the address of the page after it, if any."""

    status: int
    body: bytes = field(repr=False)
    next: str | None = field(default=None, repr=False)

    def read(self, form: type[Form], what: str) -> Form:
        """The body as ``form``, any type pydantic knows; raises ``Unavailable`` when it is none."""
        try:
            return TypeAdapter(form).validate_json(self.body)
        except ValidationError:
            raise nonsense(what) from None


@dataclass(frozen=True)
class Request:
    """``what`` names the thing asked for in messages, as in "vllm-project/vllm#17173".

    ``again`` says what the same command does next time, where no answer came to one that writes.
    """

    method: str
    address: str
    what: str
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    again: str = "finds out, and writes nothing twice"


class _Later(Exception):
    """The same request may do after ``wait`` seconds; once it is given up, ``error`` is told.

    Where GitHub names no time (``asked`` is ``None``), ``least`` seconds double with each attempt.
    """

    def __init__(self, reason: str, error: GitHubError, asked: float | None, least: float) -> None:
        super().__init__(reason)
        self.reason, self.error = reason, error
        self._asked, self._least = asked, least

    def wait(self, attempt: int) -> float:
        """Seconds to wait after the ``attempt``-th attempt."""
        if self._asked is not None:
            return max(1.0, self._asked)
        return float(self._least * 2 ** (attempt - 1))


class Transport:
    """Everything sent through it, waits included, is over ``seconds`` after its making.

    ``sleep`` waits so many seconds.
    """

    def __init__(
        self,
        address: ApiAddress,
        token: Token | None,
        seconds: float,
        on_wait: OnWait,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._address = address
        self._token = token
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._on_wait = on_wait
        self._sleep = sleep
        self._client = new_client(direct=address.direct, connect=_CONNECT, read=_READ)
        self._client.headers.update(
            {
                "Accept": "application/vnd.github+json, application/json;q=0.9",
                "X-GitHub-Api-Version": "2022-11-28",
                **({"Authorization": f"Bearer {token.value}"} if token else {}),
            }
        )

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def send(self, request: Request) -> Reply:
        """The answer to ``request``. Raises ``GitHubError`` when there is none below 400."""

        def give_up(state: RetryCallState) -> Reply:
            raise _later(state).error

        retrying = Retrying(
            retry=retry_if_exception_type(_Later),
            wait=lambda state: _later(state).wait(state.attempt_number),
            stop=lambda state: (
                state.attempt_number >= _ATTEMPTS or state.upcoming_sleep >= self._left()
            ),
            sleep=self._sleep,
            before_sleep=lambda state: self._on_wait(_later(state).reason, state.upcoming_sleep),
            retry_error_callback=give_up,
        )
        return retrying(lambda: self._redirected(request))

    def _left(self) -> float:
        return self._until - time.monotonic()

    def _redirected(self, request: Request) -> Reply:
        """Renamed repositories answer with a redirect, after which the request stays the same.

        https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api
        """
        address = httpx.URL(request.address)
        for _ in range(_REDIRECTS + 1):
            if not self._address.owns(address):
                raise Unavailable(
                    f"GitHub sends requests for {request.what} to another host; "
                    "the token is not for that one."
                )
            response, body = self._exchange(request, address)
            if response.status_code not in _REDIRECTED:
                return self._judge(request, response, body)
            try:
                address = address.join(response.headers.get("location", ""))
            except httpx.InvalidURL:
                raise nonsense(request.what) from None
        raise Unavailable(f"GitHub sends requests for {request.what} round in circles.")

    def _exchange(self, request: Request, address: httpx.URL) -> tuple[httpx.Response, bytes]:
        left = self._left()
        if left <= 0:
            raise self._too_late(request)
        read, connect = min(_READ, left), min(_CONNECT, left)
        try:
            with (
                closed_after(self._client, left),  # afterwards nothing is sent any more
                self._client.stream(
                    request.method,
                    address,
                    json=request.json,
                    timeout=httpx.Timeout(read, connect=connect),
                ) as response,
            ):
                return response, read_whole(response, _LARGEST_ANSWER, self._until)
        except TooLarge:
            raise nonsense(request.what) from None
        except TooLate:
            raise self._too_late(request) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._broken(request, error, connect, read) from None

    def _broken(
        self, request: Request, error: Exception, connect: float, read: float
    ) -> GitHubError | _Later:
        fault = fault_of(error, connect, read)
        unsent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
        if not unsent and request.method not in _REPEATABLE:
            return _unknown(request, fault)
        told = Unavailable(f"Cannot talk to GitHub: {fault}. {advice_for(error)}")
        return _Later(f"GitHub: {fault}", told, None, 1) if is_momentary(error) else told

    def _judge(self, request: Request, response: httpx.Response, body: bytes) -> Reply:
        status, login = response.status_code, self._token.source if self._token else ""
        if is_rate_limit(response, body):
            asked = asked_wait(response.headers)
            whose = f"the token of {login}" if login else "requests without a token"
            more = "" if login else " A token in GITHUB_TOKEN raises it."
            error = RateLimited(
                f"GitHub's rate limit for {whose} is reached: it asks to be left alone "
                f"{when(_UNNAMED if asked is None else asked)}.{more}"
            )
            raise _Later("GitHub's rate limit is reached", error, asked, _UNNAMED)
        if status >= 500:
            if request.method not in _REPEATABLE:
                raise _unknown(request, f"it answers {named(status)}")
            later = explain(response, body, request.what, login)
            raise _Later(f"GitHub answers {named(status)}", later, None, 1)
        if status >= 400:
            raise explain(response, self._without_token(body), request.what, login)
        following = response.links.get("next", {}).get("url")
        return Reply(status, body, following)

    def _without_token(self, body: bytes) -> bytes:
        return body.replace(self._token.value.encode(), b"<token>") if self._token else body

    def _too_late(self, request: Request) -> GitHubError:
        return Unavailable(f"GitHub did not answer for {request.what} within {self._seconds:g} s.")


def _later(state: RetryCallState) -> _Later:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, _Later)
    return error


def _unknown(request: Request, fault: str) -> Unavailable:
    return Unavailable(
        f"GitHub did not say whether it wrote what was sent: {fault}. "
        f"The same command again {request.again}."
    )


def nonsense(what: str) -> Unavailable:
    """The error for an answer that is not what was asked for."""
    return Unavailable(
        f"The answer for {what} is not one of GitHub's; does something else answer in its place?"
    )
