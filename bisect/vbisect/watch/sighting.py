"""One look at a running server: what it is, and what the probe saw."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict

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

    ``seconds`` is the latency of a request and ``choices`` how many came back in all, of a probe
    that counts them. ``version`` is ``None`` where the server does not tell it.
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
    choices: int | None = None
    variations: tuple[VariationRecord, ...] = ()

    @property
    def answered(self) -> bool:
        """Whether anything that was asked for was answered."""
        some = any(variation.observations.total for variation in self.variations)
        return some or self.reason is not SkipReason.NO_ANSWER


@dataclass(frozen=True)
class Watched:
    """A running server and what is asked of it; ``model`` is ``None`` for its first one."""

    address: Address
    asked: Asked
    model: str | None = None

    def look(self) -> Sighting:
        """Ask once, whatever comes of it. Raises ``KeyboardInterrupt`` only."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        seen = _Seen()
        try:
            seen.version = self._version()
            seen.model = self.model or self._first_model()
            with tempfile.TemporaryDirectory(prefix="vbisect-probe-") as folder:
                outcome = self._ask(seen, Path(folder))
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
            headers=_authorization(),
            api_key=os.environ.get("OPENAI_API_KEY") or "EMPTY",
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

    def _first_model(self) -> str:
        response = self._get("/v1/models")
        try:
            if response.status_code != 200:
                raise Untestable(
                    SkipReason.NO_ANSWER
                    if response.status_code in (502, 503, 504)
                    else SkipReason.REQUEST_REJECTED,
                    f"/v1/models: HTTP {response.status_code}",
                )
            return str(response.json()["data"][0]["id"])
        except (ValueError, LookupError, TypeError):
            raise Untestable(
                SkipReason.SERVER_ERROR, "/v1/models names no model; name it with --model"
            ) from None

    def _version(self) -> str | None:
        """What ``/version`` says, which a gateway before vLLM may not pass on."""
        try:
            found = self._get("/version").json()["version"]
        except (ValueError, LookupError, TypeError):
            return None
        return one_line(str(found), 60)

    def _get(self, path: str) -> httpx.Response:
        try:
            with httpx.Client(
                headers=_authorization(),
                trust_env=not self.address.near,
                timeout=httpx.Timeout(_ASKED_SECONDS, connect=10),
            ) as client:
                return client.get(self.address.base_url + path)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            told = one_line(str(error), 200) or type(error).__name__
            raise Untestable(
                SkipReason.NO_ANSWER, f"{self.address.shown} does not answer: {told}"
            ) from None


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


def _authorization() -> dict[str, str]:
    key = os.environ.get("OPENAI_API_KEY")
    return {"authorization": f"Bearer {key}"} if key else {}


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
        seconds=round(observation.seconds, 4) if observation else None,
        choices=_choices(observation.evidence.values()) if observation else None,
        variations=seen.variations,
        **why,
    )


def _choices(evidence: Iterable[object]) -> int | None:
    counts = [part["choices"] for part in evidence if isinstance(part, dict) and "choices" in part]
    return sum(counts) if counts else None
