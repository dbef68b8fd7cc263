"""Wait for a server: as long as it shows signs of life, and not a moment after it has ended."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from packaging.version import InvalidVersion, Version

from vbisect.connections import TooLarge, TooLate, closed_after, new_client, read_whole
from vbisect.errors import Cancelled
from vbisect.launch.diagnosis import diagnose_exit, last_words
from vbisect.launch.server import Ended
from vbisect.launch.signs import Counters, Patience
from vbisect.reasons import SkipReason, Untestable
from vbisect.text import one_line

_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 5
_LARGEST_ANSWER = 1 << 20
"""Bytes of what a server says of itself."""
LONGEST_BOOT_SECONDS = 7200
"""A server that shows signs of life for ever and never gets ready is given up after this long."""
_COUNT_SECONDS = 5.0
"""How often what a server does is looked at, at most: an engine takes a while to say it."""
_END_SECONDS = 10
"""How long the end is waited for of a server that was ready and no longer answers."""


@dataclass(frozen=True)
class Ready:
    """What a ready server says of itself."""

    model: str
    version: str


def wait_until_ready(
    base_url: str,
    log: Path,
    ended: Callable[[], Ended | None],
    counters: Callable[[], Counters],
    boot_timeout: float,
    given_up: threading.Event,
    since: int = 0,
) -> Ready:
    """Poll ``/health``, then read ``/v1/models`` and ``/version``.

    ``boot_timeout`` (seconds) counts from the last sign of life, in ``log``, which is this server's
    from byte ``since`` on, or in its ``counters``. Raises ``Untestable``:
    the diagnosis when the process ended, ``BOOT_TIMEOUT`` when it fell silent; ``Cancelled`` once
    it is ``given_up``.
    """
    started = counted = time.monotonic()
    patience = Patience(boot_timeout, started, since)
    done = Counters()
    while True:
        end = ended()
        if end is not None:
            raise diagnose_exit(log, end, since)
        health = _health(base_url)
        if health == 200:
            try:
                return Ready(model=_served_model(base_url), version=_version(base_url))
            except Untestable:
                end = _end(base_url, ended, given_up)
                if end is None:
                    raise
                raise diagnose_exit(log, end, since) from None
        now = time.monotonic()
        # a server that answers logs these very requests, which is no sign of progress
        if health is None:
            if now - counted > min(_COUNT_SECONDS, boot_timeout / 10):
                done, counted = counters(), now
            patience.take(now, log.stat().st_size if log.exists() else since, done)
        if (why := patience.over(now)) is not None:
            words = last_words(log, since)
            raise Untestable(SkipReason.BOOT_TIMEOUT, f"{why}; the last words were: {words}")
        if now - started > LONGEST_BOOT_SECONDS:
            raise Untestable(
                SkipReason.BOOT_TIMEOUT,
                f"still not ready after {LONGEST_BOOT_SECONDS / 3600:.0f} hours",
            )
        if given_up.wait(_POLL_SECONDS):
            raise Cancelled


def _end(
    base_url: str,
    ended: Callable[[], Ended | None],
    given_up: threading.Event,
) -> Ended | None:
    """How a server ended that did not say what it is; ``None`` when it still answers, or lives."""
    deadline = time.monotonic() + _END_SECONDS
    while (end := ended()) is None and _health(base_url) is None:
        if time.monotonic() > deadline:
            break
        if given_up.wait(_POLL_SECONDS):
            raise Cancelled
    return end


def check_version(reported: str, wanted: str, built_version: str) -> None:
    """Raise ``Untestable`` unless the server runs what was asked for.

    A rebuilt wheel may report the release or its own version; local parts (``+cpu``) are ignored.
    A development build is told by the commit in its local part, where it has one: the number of
    commits before it is not known of an image.
    """
    try:
        found = Version(reported)
    except InvalidVersion:
        found = None
    for accepted in (Version(wanted), Version(built_version)):
        commit = _commit(accepted) if accepted.is_devrelease else None
        if found is not None and commit is not None:
            reported_commit = _commit(found) or ""
            shorter = min(len(commit), len(reported_commit))
            if shorter and commit[:shorter] == reported_commit[:shorter]:
                return
        elif found is not None and found.public == accepted.public:
            return
    raise Untestable(
        SkipReason.WRONG_VERSION,
        f"the server reports version {one_line(reported, 80)}, not {wanted}",
    )


def _commit(version: Version | None) -> str | None:
    """The commit that the local part of a development build names, as in ``+g0123abc.cpu``."""
    parts = (version.local or "").split(".") if version else []
    return next((part for part in parts if re.fullmatch("g[0-9a-f]{6,40}", part)), None)


@contextmanager
def _answer(url: str) -> Iterator[httpx.Response]:
    """The streamed answer of the server. Raises ``TooLate``, and whatever httpx does."""
    with (
        # by http, without a certificate
        new_client(
            direct=True, connect=_ANSWER_SECONDS, read=_ANSWER_SECONDS, verify=False
        ) as client,
        closed_after(client, 2 * _ANSWER_SECONDS),
        client.stream("GET", url) as response,
    ):
        yield response


def _health(base_url: str) -> int | None:
    """The status of ``/health``, ``None`` while nothing answers; its body is not read."""
    try:
        with _answer(f"{base_url}/health") as response:
            return response.status_code
    except (TooLate, httpx.HTTPError):
        return None


def _served_model(base_url: str) -> str:
    try:
        found = _json(f"{base_url}/v1/models")["data"][0]["id"]
        if not isinstance(found, str) or not found.isprintable():  # it is sent back
            raise _NotTold("its name cannot be sent back")
    except (_NotTold, LookupError, TypeError) as error:
        raise Untestable(
            SkipReason.SERVER_ERROR, f"/v1/models gave no model: {one_line(str(error))}"
        ) from None
    return found


def _version(base_url: str) -> str:
    try:
        return str(_json(f"{base_url}/version")["version"])
    except (_NotTold, LookupError, TypeError) as error:
        raise Untestable(
            SkipReason.WRONG_VERSION, f"/version gave no version: {one_line(str(error))}"
        ) from None


class _NotTold(Exception):
    """A server did not say what it was asked; the message says what it did."""


def _json(url: str) -> Any:
    try:
        with _answer(url) as response:
            response.raise_for_status()
            body = read_whole(response, _LARGEST_ANSWER, time.monotonic() + _ANSWER_SECONDS)
        return json.loads(body)
    except TooLarge:
        raise _NotTold(f"more than {_LARGEST_ANSWER >> 20} MiB") from None
    except TooLate:
        raise _NotTold(f"no whole answer within {_ANSWER_SECONDS} s") from None
    except (httpx.HTTPError, ValueError, RecursionError) as error:
        raise _NotTold(str(error)) from None
