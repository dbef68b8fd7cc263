"""One request to a server, and the whole of its answer: in a given time, of a bounded size."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from vbisect.connections import new_client
from vbisect.text import one_line

CONNECT_SECONDS = 10
LARGEST_ANSWER = 128 << 20
"""Bytes; 16384 choices, the most that vLLM gives, of a few hundred tokens each."""


@dataclass(frozen=True)
class Caller:
    """Who asks: ``headers`` go with every request, ``trust_env`` is as in ``ProbeTarget``."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trust_env: bool = False


@dataclass(frozen=True)
class Reply:
    """A whole answer; its bytes are read as UTF-8, whatever encoding it names."""

    status: int
    text: str = field(repr=False)
    location: str | None = None


class Unanswered(Exception):
    """No whole answer came; the message says what came instead, without what was sent."""


class TooLarge(Exception):
    """The answer is larger than any that could be meant."""


def exchange(
    method: str,
    url: str,
    caller: Caller,
    *,
    seconds: float,
    json: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Ask once, for at most about ``seconds`` from the first to the last byte.

    Raises ``Unanswered``, ``TooLarge``, or ``HostError`` where the environment's proxy or
    certificate settings cannot be used.
    """
    began = time.monotonic()
    client = new_client(direct=not caller.trust_env, connect=CONNECT_SECONDS, read=seconds)
    sent = {**caller.headers, **(headers or {})}
    try:
        with client, client.stream(method, url, json=json, headers=sent) as response:
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > LARGEST_ANSWER:
                    raise TooLarge(f"the answer is larger than {LARGEST_ANSWER >> 20} MiB")
                # the client's own limit is on the wait for a piece
                if time.monotonic() - began > seconds:
                    raise Unanswered(f"no whole answer within {seconds:g} s")
    except httpx.ConnectTimeout:
        raise Unanswered(f"no connection within {CONNECT_SECONDS} s") from None
    except httpx.TimeoutException:
        raise Unanswered(f"no answer within {seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise Unanswered(f"the connection broke: {_told(error)}") from None
    return Reply(
        response.status_code,
        body.decode("utf-8", "replace"),
        response.headers.get("location"),
    )


def _told(error: Exception) -> str:
    if isinstance(error, (httpx.LocalProtocolError, UnicodeError)):
        return "the request cannot be sent"  # httpx quotes the header that it cannot send
    return one_line(str(error), 200) or type(error).__name__
