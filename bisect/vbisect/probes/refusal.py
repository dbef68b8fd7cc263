"""A request that vLLM has to refuse: passes when the server refuses it cleanly and lives on."""

from __future__ import annotations

import time

from vbisect.probes.exchange import Reply
from vbisect.probes.interface import FailureKind, NoResponse, Observation, ProbeTarget
from vbisect.probes.n_choices import NChoicesProbe, NChoicesSettings, message_of, read
from vbisect.reasons import SkipReason

_REFUSED = (400, 422)
_NOT_THE_SERVER = (502, 503, 504)
"""What stands before a server, or one that is overloaded, answers with these."""


class RefusalProbe:
    """Sends a request with a value that must be refused, then the same one with ``n`` of 1.

    A refusal counts only where the second request is answered: a server that refuses everything
    has not looked at the value.
    """

    def __init__(self, wrong: NChoicesSettings, right: NChoicesSettings, label: str) -> None:
        self._wrong = NChoicesProbe(wrong, label)
        self._right = NChoicesProbe(right, f"{label}, then n=1")
        self._n = wrong.n[0]

    def observe(self, target: ProbeTarget) -> Observation:
        """Ask once. A server error is for the caller to judge, who knows whether it died."""
        began = time.monotonic()
        reply = self._wrong.send(target, self._n)
        failure = _failure(reply)
        if failure is None:
            read(self._right.send(target, 1), stream=False)
        return Observation(
            passed=failure is None,
            kind=FailureKind.NOT_REFUSED if failure else None,
            signature=failure,
            seconds=time.monotonic() - began,
            requests=1 if failure else 2,
            evidence={"status": reply.status},
        )


def answered_with_error(detail: str) -> Observation:
    """What a server error of a living server comes to, where a refusal was due."""
    return Observation(
        passed=False,
        kind=FailureKind.SERVER_ERROR,
        signature=f"{detail}, instead of a refusal",
    )


def _failure(reply: Reply) -> str | None:
    """What is wrong with the answer; ``None`` for a refusal. Raises as ``read`` does."""
    status = reply.status
    if status in _REFUSED:
        return None
    if status == 200:
        return "was answered, not refused (HTTP 200)"
    if status in _NOT_THE_SERVER:
        detail = f"HTTP {status}: {message_of(reply.text)}"
        raise NoResponse(SkipReason.NO_ANSWER, detail)
    read(reply, stream=False)
    raise AssertionError("no other status can be read")
