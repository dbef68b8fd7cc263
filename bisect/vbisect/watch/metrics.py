"""What was seen of a server, as Prometheus metrics."""

from __future__ import annotations

import re
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from vbisect.errors import HostError
from vbisect.search import Outcome
from vbisect.text import one_line
from vbisect.watch.sighting import Sighting

MOST_SIGNATURES = 20
"""Failures told apart; all further ones are counted as "other", so that labels stay few."""

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counts sightings; ``variation`` is empty for a probe that has none."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._signatures: set[str] = set()
        self._passes = Counter(
            "vbisect_probe_passes", "Answers as asked.", ["variation"], registry=registry
        )
        self._failures = Counter(
            "vbisect_probe_failures",
            "Answers that show a failure.",
            ["variation", "signature"],
            registry=registry,
        )
        self._unjudged = Counter(
            "vbisect_probe_unjudged",
            "Looks that came to neither.",
            ["variation", "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "vbisect_probe_request_seconds",
            "What a request took, in the mean of a look.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._choices = Gauge(
            "vbisect_probe_choices", "Choices in the answers to the last look.", registry=registry
        )
        self._success = Gauge(
            "vbisect_probe_last_success_timestamp_seconds",
            "When the last look passed.",
            registry=registry,
        )
        self._up = Gauge(
            "vbisect_probe_up", "Whether the server answered at the last look.", registry=registry
        )
        self._server = Gauge(
            "vbisect_probe_server_info", "The server.", ["model", "version"], registry=registry
        )

    def serve(self, host: str, port: int) -> str:
        """Serve them on ``host`` and ``port`` (0: any free one); the address.

        Raises ``HostError`` when that cannot be had.
        """
        try:
            server, _ = start_http_server(port, host, registry=self.registry)
        except (OSError, UnicodeError) as error:
            raise HostError(
                f"Metrics cannot be served on {host} port {port}: {one_line(str(error))}."
            ) from None
        place = f"[{host}]" if ":" in host else host
        return f"http://{place}:{server.server_port}/metrics"

    def count(self, seen: Sighting) -> None:
        """Take one sighting in."""
        self._up.set(1 if seen.answered else 0)
        if seen.model is not None:
            self._server.clear()
            self._server.labels(seen.model, seen.version or "unknown").set(1)
        if seen.outcome is Outcome.PASS:
            self._success.set(datetime.fromisoformat(seen.at).timestamp())
        if seen.seconds is not None and seen.requests:
            self._seconds.observe(seen.seconds)
        if seen.choices is not None:
            self._choices.set(seen.choices)
        for variation in seen.variations:
            self._tell(
                variation.name,
                variation.outcome,
                variation.reason,
                f"{variation.failure_kind}: {variation.signature}",
            )
        if not seen.variations:
            self._tell("", seen.outcome, seen.reason, f"{seen.failure_kind}: {seen.signature}")

    def _tell(self, variation: str, outcome: Outcome, reason: str | None, failure: str) -> None:
        if outcome is Outcome.PASS:
            self._passes.labels(variation).inc()
        elif outcome is Outcome.FAIL:
            self._failures.labels(variation, self._bounded(failure)).inc()
        elif reason is not None:
            self._unjudged.labels(variation, str(reason)).inc()

    def _bounded(self, failure: str) -> str:
        """A failure in words that are the same whatever its numbers are."""
        words = re.sub(r"\d+", "N", one_line(failure, 120))
        if words not in self._signatures and len(self._signatures) >= MOST_SIGNATURES:
            return "other"
        self._signatures.add(words)
        return words
