"""The rounds in which a server is asked the variations of a suite, each once a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from vbisect.probes import FailureKind, Observation, Probe, SuiteSettings, Variation
from vbisect.probes.refusal import answered_with_error
from vbisect.probes.suite import probe_of
from vbisect.reasons import SkipReason, Untestable
from vbisect.run.records import Bug, VariationRecord
from vbisect.run.variations import could_not_be_judged, counted, finished, not_asked
from vbisect.search import Outcome

ALONG = 5
"""How often variations that do not decide are asked, at most: enough to see a steady failure."""

Ask = Callable[[Probe], Observation]
"""Asks once, and tells a crash. Raises ``Untestable``, ``ProbeAbort`` or ``Cancelled``."""


@dataclass(frozen=True)
class Round:
    """What one round came to: the observation it amounts to, and whether it shows the bug."""

    observation: Observation
    shows_bug: bool


@dataclass
class Rounds:
    """The variations of ``suite`` as asked of one server of ``version``.

    ``earlier`` is what they came to before an interruption. ``crashed`` once the server has died.
    """

    suite: SuiteSettings
    version: str
    bug: Bug
    ask: Ask
    alive: Callable[[], bool]
    earlier: Iterable[VariationRecord] = ()
    crashed: bool = False
    records: dict[str, VariationRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Go on from ``earlier``."""
        before = {record.name: record for record in self.earlier}
        for variation in self.suite.variations:
            name = variation.name
            fresh = VariationRecord(name=name, outcome=Outcome.SKIP)
            known = variation.applies_to(self.version)
            self.records[name] = before.get(name, fresh) if known else not_asked(variation)

    def deciding(self) -> Round:
        """Ask all variations that decide and can still be asked.

        Raises ``Untestable`` once none of them can.
        """
        told = self._round([v for v in self._askable() if self.suite.decides(v.name)])
        if told is None:
            unjudged = self.without_verdict()
            assert unjudged is not None
            raise unjudged
        return told

    def along(self, decided: int) -> Round | None:
        """Ask those that do not decide once more; ``None`` once there is no more to see of them.

        ``decided`` is the number of rounds that it took to decide.
        """
        most = min(decided, ALONG)
        wanted = [
            variation
            for variation in self._askable()
            if not self.suite.decides(variation.name)
            and self.records[variation.name].observations.total < most
        ]
        return self._round(wanted) if wanted and not self.crashed else None

    def without_verdict(self) -> Untestable | None:
        """The skip of a release whose other variations pass: the first that could not be judged."""
        for record in self.records.values():
            unjudged = record.reason not in (None, SkipReason.VARIATION_NOT_ASKED)
            if unjudged and record.reason and self.suite.decides(record.name):
                return Untestable(record.reason, f"{record.name}: {record.detail}")
        return None

    def finished(self, outcome: Outcome) -> tuple[VariationRecord, ...]:
        """The records, once the release came to ``outcome``."""
        return finished(self.records.values(), outcome, self.suite)

    def _askable(self) -> list[Variation]:
        return [v for v in self.suite.variations if self.records[v.name].reason is None]

    def _round(self, asked: list[Variation]) -> Round | None:
        """``None`` when none of them could be judged."""
        seen: dict[str, Observation] = {}
        for variation in asked:
            name = variation.name
            if self.crashed:
                break
            try:
                seen[name] = self._observe(variation)
            except Untestable as skip:
                self.records[name] = could_not_be_judged(self.records[name], skip)
                if skip.reason is SkipReason.ENDPOINT_NOT_SERVED or not self.alive():
                    raise
                continue
            self.records[name] = counted(self.records[name], seen[name], self.bug)
            self.crashed = seen[name].kind is FailureKind.CRASHED
        return _together(seen, self.bug) if seen else None

    def _observe(self, variation: Variation) -> Observation:
        try:
            return self.ask(probe_of(variation, self.suite.request))
        except Untestable as skip:
            if variation.refused and skip.reason is SkipReason.SERVER_ERROR and self.alive():
                return answered_with_error(skip.detail)
            raise


def _together(seen: dict[str, Observation], bug: Bug) -> Round:
    """One observation of all; it tells of the bug where that shows, else of any failure."""
    failures = {name: one for name, one in seen.items() if not one.passed}
    mine = {name: one for name, one in failures.items() if (name, one.kind) in bug}
    told = mine or failures
    observation = Observation(
        passed=not failures,
        kind=next((one.kind for one in told.values()), None),
        signature="; ".join(f"{name}: {one.signature}" for name, one in told.items()) or None,
        seconds=sum(one.seconds for one in seen.values()),
        requests=sum(one.requests for one in seen.values()),
        evidence={
            f"{name}, {part}": value
            for name, one in seen.items()
            for part, value in one.evidence.items()
        },
    )
    return Round(observation, shows_bug=bool(mine) or (bool(failures) and not bug))
