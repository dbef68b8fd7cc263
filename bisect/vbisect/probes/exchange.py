"""One request to a server, and the whole of its answer: in a given time, of a bounded size."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from vbisect.connections import TooLarge, TooLate, closed_after, fault_of, new_client, read_whole
from vbisect.text import one_line

CONNECT_SECONDS = 10
_SLACK = 1
LARGEST_ANSWER = 128 << 20
"""Bytes; 16384 choices, the most that vLLM gives, of a few hundred tokens each."""


@dataclass(frozen=True)
class Reply:
    """A whole answer; its bytes are read as UTF-8, whatever encoding it names."""

    status: int
    text: str = field(repr=False)
    location: str | None = None


class Unanswered(Exception):
    """No whole answer came; the message says what came instead, without what was sent."""


def exchange(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    direct: bool,
    seconds: float,
    json: Mapping[str, Any] | None = None,
) -> Reply:
    """Ask once, for at most about ``seconds`` from the first to the last byte.

    ``direct`` leaves the environment's proxies and certificates out.

    Raises ``Unanswered``, ``TooLarge``, or ``HostError`` where the environment's proxy or
    certificate settings cannot be used.
    """
    until = time.monotonic() + seconds
    client = new_client(direct=direct, connect=CONNECT_SECONDS, read=seconds)
    try:
        with (
            client,
            closed_after(client, seconds + _SLACK),  # its own limits come first
            client.stream(method, url, json=json, headers=headers) as response,
        ):
            body = read_whole(response, LARGEST_ANSWER, until)
    except TooLarge:
        raise TooLarge(f"the answer is larger than {LARGEST_ANSWER >> 20} MiB") from None
    except TooLate:
        raise Unanswered(f"no whole answer within {seconds:g} s") from None
    except httpx.TimeoutException as error:
        raise Unanswered(fault_of(error, CONNECT_SECONDS, seconds)) from None
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
