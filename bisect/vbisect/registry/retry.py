"""A server that is busy or gone for a moment is asked again when it likes, a few times."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    wait_exponential,
    wait_random,
)

from vbisect.connections import (
    advice_for,
    fault_of,
    is_momentary,
    is_untrusted,
    is_without_tls,
)
from vbisect.errors import HostError
from vbisect.registry.answer import Answer
from vbisect.registry.certificates import CERTIFICATES
from vbisect.registry.credentials import login_advice
from vbisect.registry.reference import DOCKER_HUB

OnWait = Callable[[str, float], None]
"""Told the reason for a wait and its length in seconds, before it begins."""

_BUSY = frozenset({429, 500, 502, 503, 504})
_EARLIEST_UNIX_TIME = 1_000_000_000  # no server asks for a wait of thirty years


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server: ``attempts``, and seconds for all else.

    ``first_wait`` doubles with each attempt. A server that asks for more than ``longest_wait`` is
    given up at once.
    """

    connect: float = 10
    read: float = 30
    attempts: int = 5
    first_wait: float = 1
    longest_wait: float = 600

    @property
    def whole(self) -> float:
        """For a whole answer, of which ``read`` is for each piece."""
        return 4 * self.read


PATIENCE = Patience()


def ask_patiently(
    ask: Callable[[], Answer], registry: str, patience: Patience, on_wait: OnWait
) -> Answer:
    """The first answer of ``ask`` that is neither 429 nor 500, 502, 503 or 504.

    Raises ``HostError`` when there is none, naming ``registry``.
    """
    backoff = wait_exponential(patience.first_wait) + wait_random(0, patience.first_wait)

    def wait(state: RetryCallState) -> float:
        answer = _answer(state)
        return max(backoff(state), asked_wait(answer) if answer else 0)

    def too_long(state: RetryCallState) -> bool:
        return state.upcoming_sleep > patience.longest_wait

    def announce(state: RetryCallState) -> None:
        answer = _answer(state)
        if answer:
            fault = f"answers {answer.named_status}"
        else:
            fault = fault_of(_error(state), patience.connect, patience.read)
        on_wait(f"{registry}: {fault}; asking again", state.upcoming_sleep)

    def give_up(state: RetryCallState) -> Answer:
        answer = _answer(state)
        if answer is None:
            raise _unreachable(registry, _error(state), patience)
        raise _still_busy(registry, answer, state, too_long(state))

    retrying = Retrying(
        retry=retry_if_exception(is_momentary) | retry_if_result(lambda got: got.status in _BUSY),
        wait=wait,
        stop=lambda state: state.attempt_number >= patience.attempts or too_long(state),
        before_sleep=announce,
        retry_error_callback=give_up,
    )
    try:
        return retrying(ask)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(registry, error, patience) from None


def asked_wait(answer: Answer) -> float:
    """For how many seconds ``answer`` asks to be left alone, 0 when it says nothing of it.

    ``Retry-After`` is seconds or a date (RFC 9110, 10.2.3). Docker Hub has sent a unix time
    instead, under this name and as ``X-Retry-After`` (docker/hub-feedback#2459), and says on
    every answer how many pulls are left in a window: ``ratelimit-remaining: 0;w=21600``
    (docs.docker.com/docker-hub/usage/pulls), which only counts where a pull was refused.
    """
    for name in ("x-retry-after", "retry-after"):
        value = answer.headers.get(name, "").strip()
        if re.fullmatch("[0-9]{1,10}", value):
            number = float(value)
            return number if number < _EARLIEST_UNIX_TIME else max(0.0, number - _now(answer))
        if moment := _moment(value):
            return max(0.0, moment - _now(answer))
    used_up = re.match("0;w=([0-9]{1,9})$", answer.headers.get("ratelimit-remaining", ""))
    return float(used_up[1]) if used_up and answer.status == 429 else 0.0


def _now(answer: Answer) -> float:
    """The unix time by the server's own clock, which its dates are about."""
    return _moment(answer.headers.get("date", "")) or time.time()


def _moment(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def _answer(state: RetryCallState) -> Answer | None:
    assert state.outcome is not None
    return None if state.outcome.failed else state.outcome.result()


def _error(state: RetryCallState) -> BaseException:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error


def _unreachable(registry: str, error: BaseException, patience: Patience) -> HostError:
    fault = fault_of(error, patience.connect, patience.read)
    if is_without_tls(error):
        advice = "If that is meant, name it among the engine's insecure-registries."
    elif is_untrusted(error) and registry != DOCKER_HUB:
        advice = (
            "If its certificate has an authority of its own, or it wants one of yours, both belong "
            f"into {CERTIFICATES / registry}, where the engine looks for them too."
        )
    else:
        advice = advice_for(error)
    return HostError(f"Cannot talk to {registry}: {fault}. {advice}")


def _still_busy(registry: str, answer: Answer, state: RetryCallState, too_long: bool) -> HostError:
    login = f" {login_advice(registry)} raises the limit." if answer.status == 429 else ""
    if not too_long:
        return HostError(
            f"{registry} still answers {answer.named_status} after {state.attempt_number} "
            f"attempts; try again later.{login}"
        )
    wait = state.upcoming_sleep
    then = datetime.now().astimezone() + timedelta(seconds=wait)
    length = f"{math.ceil(wait / 60)} min" if wait < 7200 else f"{math.ceil(wait / 3600)} h"
    return HostError(
        f"{registry} answers {answer.named_status} and asks to be left alone for {length}; "
        f"try again at {then:%Y-%m-%d %H:%M}.{login}"
    )
