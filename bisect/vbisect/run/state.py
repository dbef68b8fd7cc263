"""What a journal amounts to: the state of a run, built from its events alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from vbisect.errors import UsageError
from vbisect.probes import FailureKind
from vbisect.run.journal import FILE_NAME, Event, EventKind, read_journal
from vbisect.run.prior import prior_weights
from vbisect.run.records import Bug, Finding, Partial, TrialRecord
from vbisect.run.settings import RunSettings
from vbisect.run.variations import against, bug_of
from vbisect.search import Aim, Counts, Outcome, Seen


@dataclass
class RunState:
    """A run as its journal tells it. ``finding`` is ``None`` for one that was killed.

    ``active`` maps each version under trial to its step. ``judged`` are the records of trials whose
    control has yet to be tested, ``control_partial`` what was observed of it so far.

    ``seconds`` is the time vbisect was at work on the run, over all its sessions.
    """

    settings: RunSettings
    records: dict[str, TrialRecord] = field(default_factory=dict)
    partial: dict[str, Partial] = field(default_factory=dict)
    judged: dict[str, TrialRecord] = field(default_factory=dict)
    control_partial: dict[str, Partial] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    finding: Finding | None = None
    active: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    _tested: dict[str, TrialRecord] = field(default_factory=dict)
    _session_began: datetime | None = None
    _earlier_sessions: float = 0.0

    def apply(self, event: Event) -> None:
        """Take one event in. Raises ``ValueError`` or ``KeyError`` when it is malformed."""
        self._take_time(event)
        kind = EventKind(event["event"])
        if kind is EventKind.RUN_RESUMED:
            self.active, self.finding = {}, None
        elif kind in (EventKind.RUN_STOPPED, EventKind.RUN_FINISHED):
            self.active, self.finding = {}, Finding.model_validate(event["finding"])
        elif kind is EventKind.NOTE:
            self.notes.append(event["text"])
        elif kind is EventKind.TRIAL_STARTED:
            self.active[event["version"]] = "fetching"
        elif kind is EventKind.BUILD_READY:
            self.active[event["version"]] = "booting"
        elif kind is EventKind.SERVER_READY:
            self.active[event["version"]] = "probing"
        elif kind is EventKind.OBSERVATION:
            self.partial[event["version"]] = Partial.model_validate(event["partial"])
        elif kind is EventKind.CONTROL_STARTED:
            record = self._record(event)
            self.judged[record.version] = record
            self.active[record.version] = "control booting"
        elif kind is EventKind.CONTROL_READY:
            self.active[event["version"]] = "control probing"
        elif kind is EventKind.CONTROL_OBSERVATION:
            self.control_partial[event["version"]] = Partial.model_validate(event["partial"])
        elif kind is EventKind.TRIAL_FINISHED:
            record = self._record(event)
            earlier = self._tested.get(record.version, self.records.get(record.version))
            self._tested[record.version] = record.after(earlier)
            self._reckon(record.version)
            for unfinished in (self.partial, self.judged, self.control_partial, self.active):
                unfinished.pop(record.version, None)
        elif kind is EventKind.TRIAL_GIVEN_UP:
            self.active.pop(event["version"], None)

    def _record(self, event: Event) -> TrialRecord:
        record = TrialRecord.model_validate(event["record"])
        if record.version not in self.settings.versions:
            raise ValueError(f"{record.version} is no candidate")
        return record

    @property
    def outcomes(self) -> dict[int, Outcome]:
        """Outcomes by index into the candidates; releases left out on request are skips."""
        versions = self.settings.versions
        found = {versions.index(version): Outcome.SKIP for version in self.settings.excluded}
        for version, record in list(self.records.items()):  # a display looks at any time
            found[versions.index(version)] = record.outcome
        return found

    @property
    def aim(self) -> Aim:
        """What the run looks for."""
        settings = self.settings
        return Aim(
            count=len(settings.candidates),
            find=settings.find,
            sweep=settings.sweep,
            find_all=settings.find_all,
            confidence=settings.confidence,
            max_skips=settings.max_skips,
            weights=prior_weights(settings.versions, settings.hint),
        )

    def seen(self, running: frozenset[int] = frozenset()) -> Seen:
        """What the run knows, with the candidates that are ``running``."""
        return Seen(
            outcomes=self.outcomes,
            boots=self.boots,
            running=running,
            cheap_skips=self.skipped_unbooted,
        )

    @property
    def skipped_unbooted(self) -> frozenset[int]:
        """The skips that cost no boot, by index: never published, not installable, left out."""
        versions = self.settings.versions
        booted = {version for version, record in self.records.items() if record.seconds.boot}
        return frozenset(
            index
            for index, outcome in self.outcomes.items()
            if outcome is Outcome.SKIP and versions[index] not in booted
        )

    @property
    def boots(self) -> dict[int, tuple[Counts, ...]]:
        """The observations of each boot of the releases that were judged, by index."""
        versions = self.settings.versions
        return {
            versions.index(version): tuple(boot.counts for boot in record.boots)
            for version, record in self.records.items()
            if record.outcome is not Outcome.SKIP
        }

    @property
    def reference(self) -> FailureKind | None:
        """The kind of failure at the first failing end: the bug this run is about."""
        kinds = (r.failure_kind for r in self.records.values() if r.outcome is Outcome.FAIL)
        return next(kinds, None)

    @property
    def bug(self) -> Bug:
        """How the first failing end fails in the variations of a suite: what this run is about."""
        suite = self.settings.suite
        if suite is None:
            return frozenset()
        return next((bug for r in self._tested.values() if (bug := bug_of(r, suite))), frozenset())

    def _reckon(self, version: str) -> None:
        """Take over the record of ``version``; of a suite all, as they stand against the bug."""
        suite, bug = self.settings.suite, self.bug
        self.records[version] = self._tested[version]
        if suite is not None:
            self.records |= {v: against(r, bug, suite) for v, r in self._tested.items()}

    def _take_time(self, event: Event) -> None:
        at = datetime.fromisoformat(event["at"])
        if event["event"] in (EventKind.RUN_STARTED, EventKind.RUN_RESUMED):
            self._earlier_sessions = self.seconds
            self._session_began = at
        if self._session_began is not None:
            self.seconds = self._earlier_sessions + (at - self._session_began).total_seconds()


def load_state(run_dir: Path) -> tuple[RunState, bytes]:
    """The state of a recorded run, and the torn last line of its journal (or b"").

    Raises ``UsageError`` when ``run_dir`` is not a run directory or its journal is damaged.
    """
    settings = RunSettings.read(run_dir)
    events, torn = read_journal(run_dir)
    return replay(settings, events, run_dir), torn


def replay(settings: RunSettings, events: Iterable[Event], run_dir: Path) -> RunState:
    """The state after ``events``; raises ``UsageError`` naming the line of a malformed one."""
    state = RunState(settings)
    for number, event in enumerate(events, 1):
        try:
            state.apply(event)
        except (ValidationError, ValueError, KeyError, TypeError):
            raise UsageError(f"{run_dir / FILE_NAME} is damaged in line {number}.") from None
    return state
