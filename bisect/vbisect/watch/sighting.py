"""One look at a running server: what it is, and what the probe saw."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vbisect.connections import TooLarge
from vbisect.errors import ProbeAbort
from vbisect.probes import (
    CommandProbe,
    FailureKind,
    NChoicesProbe,
    NoResponse,
    Observation,
    Probe,
    ProbeTarget,
)
from vbisect.probes.exchange import Reply, Unanswered, exchange
from vbisect.probes.n_choices import refusal_of
from vbisect.processes import scratch_directory
from vbisect.reasons import SkipReason, Untestable
from vbisect.run.asked import Asked
from vbisect.run.records import VariationRecord
from vbisect.run.rounds import Rounds
from vbisect.search import Outcome
from vbisect.text import one_line
from vbisect.watch.address import Address

_ASKED_SECONDS = 30
"""How long the server may take to say what it is."""


class Sighting(BaseModel):
    """What one look came to; a skip could not be judged, for ``reason`` and ``detail``.

    ``seconds`` is what a request took, in the mean, or the command; ``requests`` is how many there
    were, and ``choices`` how many came back in all, of a probe that counts them. ``version`` is
    ``None`` where the server does not tell it.
    """

    model_config = ConfigDict(frozen=True)

    at: str
    outcome: Outcome
    model: str | None = None
    version: str | None = None
    reason: SkipReason | None = None
    detail: str | None = None
    signature: str | None = None
    failure_kind: FailureKind | None = None
    seconds: float | None = None
    requests: int = 0
    choices: int | None = None
    variations: tuple[VariationRecord, ...] = ()

    @property
    def answered(self) -> bool:
        """Whether anything that was asked for was answered."""
        some = any(variation.observations.total for variation in self.variations)
        return some or self.reason is not SkipReason.NO_ANSWER


@dataclass(frozen=True)
class Watched:
    """A running server and what is asked of it; ``model`` is ``None`` for its first one.

    ``key`` is sent as a bearer token, where there is one.
    """

    address: Address
    asked: Asked
    model: str | None = None
    key: str | None = field(default=None, repr=False)

    def look(self) -> Sighting:
        """Ask once, whatever comes of it.

        Raises ``HostError`` where the environment's proxy or certificate settings cannot be used.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        seen = _Seen()
        try:
            seen.version = self._version()
            seen.model = self.model or self._first_model()
            with scratch_directory() as folder:
                outcome = self._ask(seen, folder)
        except Untestable as skip:
            return _sighting(at, Outcome.SKIP, seen, reason=skip.reason, detail=skip.detail)
        return _sighting(at, outcome, seen)

    def _ask(self, seen: _Seen, folder: Path) -> Outcome:
        target = ProbeTarget(
            base_url=self.address.base_url,
            model=str(seen.model),
            version=seen.version or "unknown",
            directory=folder,
            owner=folder,
            headers=self._headers,
            api_key=self.key or "EMPTY",
            trust_env=not self.address.near,
        )
        suite = self.asked.suite
        if suite is None:
            seen.observation = _observe(_probe(self.asked), target)
            return Outcome.PASS if seen.observation.passed else Outcome.FAIL
        rounds = Rounds(
            suite,
            seen.version or "",
            frozenset(),
            ask=lambda probe: _observe(probe, target),
            alive=lambda: True,  # somebody else's: only its answers tell
        )
        try:
            seen.observation = rounds.deciding().observation
        finally:
            seen.variations = tuple(rounds.records.values())
        unjudged = rounds.without_verdict()
        if unjudged is not None and seen.observation.passed:
            raise unjudged
        return Outcome.PASS if seen.observation.passed else Outcome.FAIL

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    def _first_model(self) -> str:
        reply = self._get("/v1/models")
        if reply.status != 200:
            raise Untestable(
                SkipReason.NO_ANSWER
                if reply.status in (502, 503, 504)
                else SkipReason.REQUEST_REJECTED,
                f"/v1/models: {refusal_of(reply)}",
            )
        found = _within(reply, "data", 0, "id")
        # it is sent back, and handed to a command
        if isinstance(found, str) and found and found.isprintable():
            return found
        raise Untestable(SkipReason.SERVER_ERROR, "/v1/models names no model; name it with --model")

    def _version(self) -> str | None:
        """What ``/version`` says, which a gateway before vLLM may not pass on."""
        found = _within(self._get("/version"), "version")
        return one_line(found, 60) if isinstance(found, str) else None

    def _get(self, path: str) -> Reply:
        url = self.address.base_url + path
        try:
            return exchange(
                "GET",
                url,
                headers=self._headers,
                direct=self.address.near,
                seconds=_ASKED_SECONDS,
            )
        except (Unanswered, TooLarge) as error:
            raise Untestable(
                SkipReason.NO_ANSWER, f"{self.address.shown} does not answer: {error}"
            ) from None


def _within(reply: Reply, *places: str | int) -> object:
    """What is at these ``places`` of a JSON answer, one inside the other; else ``None``."""
    try:
        found: Any = json.loads(reply.text)
        for place in places:
            found = found[place]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return found


@dataclass
class _Seen:
    model: str | None = None
    version: str | None = None
    observation: Observation | None = None
    variations: tuple[VariationRecord, ...] = ()


def _probe(asked: Asked) -> Probe:
    if asked.command is not None:
        return CommandProbe(asked.command)
    assert asked.n_choices is not None
    return NChoicesProbe(asked.n_choices)


def _observe(probe: Probe, target: ProbeTarget) -> Observation:
    """Raises ``Untestable`` for all that is neither a pass nor a failure."""
    try:
        return probe.observe(target)
    except NoResponse as silence:
        raise Untestable(silence.otherwise, silence.detail) from None
    except ProbeAbort as abort:
        raise Untestable(SkipReason.COMMAND_SKIPPED, str(abort)) from None


def _sighting(at: str, outcome: Outcome, seen: _Seen, **why: Any) -> Sighting:
    observation = seen.observation
    told = observation if observation is not None and outcome is not Outcome.SKIP else None
    return Sighting(
        at=at,
        outcome=outcome,
        model=one_line(seen.model, 200) if seen.model else None,
        version=seen.version,
        signature=one_line(told.signature) if told and told.signature else None,
        failure_kind=told.kind if told else None,
        seconds=round(observation.latency or observation.seconds, 4) if observation else None,
        requests=observation.requests if observation else 0,
        choices=_choices(observation.evidence.values()) if observation else None,
        variations=seen.variations,
        **why,
    )


def _choices(evidence: Iterable[object]) -> int | None:
    counts = [part["choices"] for part in evidence if isinstance(part, dict) and "choices" in part]
    return sum(counts) if counts else None
