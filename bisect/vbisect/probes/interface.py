"""What a probe is: asked of a ready server, it answers with an observation."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from vbisect.reasons import SkipReason


class FailureKind(StrEnum):
    """Failures that count as the same bug when they are of the same kind."""

    CHOICES_MISSING = "choices missing"
    CHOICES_SURPLUS = "choices surplus"
    WRONG_INDICES = "wrong indices"
    NO_FINISH_REASON = "no finish reason"
    NO_LOGPROBS = "no logprobs"
    NOT_REFUSED = "not refused"
    SERVER_ERROR = "server error"
    BROKEN_STREAM = "broken stream"
    CRASHED = "crashed"
    COMMAND_FAILED = "command failed"


class Observation(BaseModel):
    """One answer of a probe: a pass, or a failure with its kind and a plain sentence.

    ``seconds`` is what it took in all, with so many ``requests`` of vbisect's own; ``evidence`` is
    what the probe measured beside the verdict.
    """

    model_config = ConfigDict(frozen=True)

    passed: bool
    kind: FailureKind | None = None
    signature: str | None = None
    seconds: float = 0.0
    requests: int = 0
    evidence: dict[str, Any] = {}

    @property
    def latency(self) -> float | None:
        """Seconds that a request took, in the mean; ``None`` without one, as for a command."""
        return self.seconds / self.requests if self.requests else None


class SentRequest(BaseModel):
    """A request by its id, and its sampling parameters by the names that vLLM has for them."""

    model_config = ConfigDict(frozen=True)

    id: str
    parameters: dict[str, int | float | None]


@dataclass(frozen=True)
class ProbeTarget:
    """A ready server, where evidence about it goes, and whether anybody still wants to know.

    ``base_url`` has no trailing ``/v1``; ``directory`` is the trial's folder; ``owner`` the run's.
    A probe adds to ``sent`` what can be looked for in the server's log.
    ``headers`` go with every request; a command is given ``api_key``. With ``trust_env`` the
    proxies and certificates of the environment are used.
    """

    base_url: str
    model: str
    version: str
    directory: Path
    owner: Path
    given_up: threading.Event = field(default_factory=threading.Event)
    sent: list[SentRequest] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_key: str = field(default="EMPTY", repr=False)
    trust_env: bool = False


class NoResponse(Exception):
    """The server gave no usable answer; whether it died decides between a failure and a skip.

    ``otherwise`` is the skip's reason when the server turns out to be alive.
    """

    def __init__(self, otherwise: SkipReason, detail: str) -> None:
        super().__init__(detail)
        self.otherwise = otherwise
        self.detail = detail


class Probe(Protocol):
    """Something that can be asked of a server again and again."""

    def observe(self, target: ProbeTarget) -> Observation:
        """Ask once. Raises ``Untestable``, ``NoResponse``, ``ProbeAbort`` or ``Cancelled``."""
        ...
