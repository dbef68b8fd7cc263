"""Whether a server received the sampling parameters that were sent, by its own log."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vbisect.launch.request_log import RequestLog
from vbisect.probes import SentRequest
from vbisect.probes.n_choices import LEAST_TEMPERATURE
from vbisect.run.records import ParametersSeen, ParametersStatus

_LAG_SECONDS = 5.0
"""How much later than its answer a request may get into the log: an engine hands it on."""

_GLANCE_SECONDS = 0.02


class ParametersCheck:
    """Compares what was sent to one server with what its log says, from byte ``since`` on.

    Each set of parameters is looked for until it is found once. Only the first that cannot be found
    is waited for: a log without such lines costs no more than that.
    """

    def __init__(self, log: Path, since: int, given_up: threading.Event) -> None:
        self._log = RequestLog(log, since)
        self._given_up = given_up
        self._patience = _LAG_SECONDS
        self._wanted: dict[str, dict[str, Any]] = {}
        self._sent: list[dict[str, Any]] = []
        self._received: list[dict[str, Any] | None] = []

    def look_for(self, requests: Iterable[SentRequest]) -> None:
        """Look for ``requests``, which were answered."""
        for request in requests:
            if request.parameters not in self._sent:
                self._sent.append(request.parameters)
                self._received.append(None)
            if self._received[self._sent.index(request.parameters)] is None:
                self._wanted[request.id] = request.parameters
        until = time.monotonic() + self._patience
        self._read()
        while self._wanted and time.monotonic() < until:
            if self._given_up.wait(_GLANCE_SECONDS):
                return
            self._read()
        if self._wanted:
            self._patience = 0.0

    def _read(self) -> None:
        for identity, received in self._log.new():
            parameters = self._wanted.get(identity)
            if parameters is None or "n" not in received:
                continue
            self._received[self._sent.index(parameters)] = received
            self._wanted = {i: p for i, p in self._wanted.items() if p != parameters}

    @property
    def seen(self) -> ParametersSeen | None:
        """What came of it so far; ``None`` when nothing was looked for."""
        return compared(self._sent, self._received) if self._sent else None


def compared(sent: list[dict[str, Any]], received: list[dict[str, Any] | None]) -> ParametersSeen:
    """What is to be said of requests ``sent`` and of what the log has of each, if anything."""
    pairs = list(zip(sent, received, strict=True))
    different = [
        f"received {name}={there[name]} where {name}={value} was sent"
        for parameters, there in pairs
        for name, value in parameters.items()
        if there is not None and _differs(name, parameters, there)
    ]
    alike = _counts(parameters for parameters, there in pairs if there is not None)
    missing = _counts(parameters for parameters, there in pairs if there is None)
    if different:
        status, sentence = ParametersStatus.DIFFERENT, "; ".join(different)
    elif missing:
        status = ParametersStatus.NOT_FOUND
        sentence = f"received {alike}; {missing} {status}" if alike else str(status)
    else:
        status, sentence = ParametersStatus.RECEIVED, f"received {alike}"
    return ParametersSeen(
        status=status,
        sentence=sentence,
        sent=_together(sent),
        received=_together(
            [{name: there[name] for name in p if name in there} for p, there in pairs if there]
        ),
    )


def _differs(name: str, sent: dict[str, Any], received: dict[str, Any]) -> bool:
    """Whether the log has another value; a name that it does not have is no difference."""
    if name not in received:
        return False
    if name == "top_p" and sent.get("temperature") == 0:
        return False
    here, there = sent[name], received[name]
    if name == "temperature" and 0 < (here or 0) < LEAST_TEMPERATURE:
        here = LEAST_TEMPERATURE
    if here is None or there is None:
        return here is not there
    return not math.isclose(here, there, rel_tol=1e-6, abs_tol=1e-9)


def _counts(requests: Iterable[dict[str, Any]]) -> str:
    """The numbers of choices they ask for, each once, in order."""
    return ", ".join(dict.fromkeys(f"n={parameters['n']}" for parameters in requests))


def _together(requests: list[dict[str, Any]]) -> dict[str, Any]:
    """The parameters of all, by name; a list where they are not the same in all."""
    names = dict.fromkeys(name for parameters in requests for name in parameters)
    values = {name: [p.get(name) for p in requests] for name in names}
    return {name: v[0] if v.count(v[0]) == len(v) else v for name, v in values.items()}
