"""What a journal amounts to: the state of a run, built from its events alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from vbisect.errors import UsageError
from vbisect.reasons import CAN_PASS, SkipReason
from vbisect.run.journal import FILE_NAME, Event, EventKind, read_journal
from vbisect.run.prior import prior_weights
from vbisect.run.records import (
    ANY_FAILURE,
    OTHER_FAILURE,
    Answer,
    Bug,
    EngineChoice,
    Finding,
    Partial,
    TrialRecord,
    VariationRecord,
)
from vbisect.run.settings import RunSettings
from vbisect.run.variations import against, bug_of, words
from vbisect.search import CRASHED, Aim, Boot, Boots, Outcome, Seen, bug_kind, outcome_by, told_of


@dataclass
class RunState:
    """A run as its journal tells it. ``finding`` is ``None`` for one that was killed.

    ``active`` maps each version under trial to its step. ``judged`` are the records of trials whose
    control has yet to be tested, ``control_partial`` what was observed of it so far. All but the
    trials themselves is of the engine that the run is about at the moment. ``weights`` are the
    models whose weights were fetched, as ``MODEL`` or ``MODEL@REVISION``.

    ``seconds`` is the time vbisect was at work on the run, over all its sessions.
    """

    settings: RunSettings
    records: dict[str, TrialRecord] = field(default_factory=dict)
    partial: dict[str, Partial] = field(default_factory=dict)
    judged: dict[str, TrialRecord] = field(default_factory=dict)
    control_partial: dict[str, Partial] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    finding: Finding | None = None
    active: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    engine_choices: list[EngineChoice] = field(default_factory=list)
    _trials: list[TrialRecord] = field(default_factory=list)
    _tested: dict[str, TrialRecord] = field(default_factory=dict)
    _kept: dict[int, tuple[Boot, ...]] = field(default_factory=dict)
    _new: dict[str, None] = field(default_factory=dict)
    _told_by: str | None = None
    _session_began: datetime | None = None
    _earlier_sessions: float = 0.0

    @property
    def begun(self) -> bool:
        """Whether its first event is recorded."""
        return self._session_began is not None

    def apply(self, event: Event) -> None:
        """Take one event in. Raises ``ValueError`` or ``KeyError`` when it is malformed."""
        self._take(event)
        self._reckon()

    def _take(self, event: Event) -> None:
        """As ``apply``, but that the records of trials which are over are not yet reckoned."""
        self._take_time(event)
        kind = EventKind(event["event"])
        if kind is EventKind.RUN_RESUMED:
            self.active, self.finding = {}, None
            self._forget_common_fault()
        elif kind in (EventKind.RUN_STOPPED, EventKind.RUN_FINISHED):
            self.active, self.finding = {}, self._finding(event)
        elif kind is EventKind.NOTE:
            self.notes.append(_text(event["text"]))
        elif kind is EventKind.TRIAL_STARTED:
            self.active[self._version(event)] = "fetching"
        elif kind is EventKind.WEIGHTS_STARTED:
            self.active[self._version(event)] = "fetching the weights"
        elif kind is EventKind.WEIGHTS_READY:
            self.weights.add(_text(event["model"]))
        elif kind is EventKind.BUILD_READY:
            self.active[self._version(event)] = "booting"
        elif kind is EventKind.SERVER_READY:
            self.active[self._version(event)] = "probing"
        elif kind is EventKind.OBSERVATION:
            self.partial[self._version(event)] = self._partial(event)
        elif kind is EventKind.CONTROL_STARTED:
            record = self._record(event)
            self.judged[record.version] = record
            self.active[record.version] = "control booting"
        elif kind is EventKind.CONTROL_READY:
            self.active[self._version(event)] = "control probing"
        elif kind is EventKind.CONTROL_OBSERVATION:
            self.control_partial[self._version(event)] = self._partial(event)
        elif kind is EventKind.TRIAL_FINISHED:
            record = self._record(event)
            self._trials.append(record)
            if record.counts_for(self.engine):
                self._count(record)
            for unfinished in (self.partial, self.judged, self.control_partial, self.active):
                unfinished.pop(record.version, None)
        elif kind is EventKind.TRIAL_GIVEN_UP:
            self.active.pop(self._version(event), None)
        elif kind is EventKind.ENGINE_CHOSEN:
            self._choose(EngineChoice.model_validate(event["choice"]))

    def _count(self, record: TrialRecord) -> None:
        earlier = self._tested.get(record.version, self.records.get(record.version))
        self._tested[record.version] = record.after(earlier)
        self._new[record.version] = None

    def _choose(self, choice: EngineChoice) -> None:
        """From now on those trials count that are of the engine chosen."""
        self._candidates(choice.version)
        before = self.engine
        self.engine_choices.append(choice)
        self.notes.append(choice.text)
        if self.engine == before:
            return
        self.records, self._tested, self._kept, self._new = {}, {}, {}, {}
        self.partial, self.judged, self.control_partial = {}, {}, {}
        self._told_by = None
        for record in self._trials:
            if record.counts_for(self.engine):
                self._count(record)

    @property
    def engine(self) -> str | None:
        """The engine that the run is about; ``None`` where each release runs its own."""
        if self.settings.engine.only is not None:
            return self.settings.engine.only
        return self.engine_choices[-1].engine if self.engine_choices else None

    @property
    def set_aside(self) -> tuple[TrialRecord, ...]:
        """What the trials of another engine came to, one record for each release and engine."""
        found: dict[tuple[str, str | None], TrialRecord] = {}
        for record in list(self._trials):
            if not record.counts_for(self.engine):
                ran = record.version, record.engine or record.engine_asked
                found[ran] = record.after(found.get(ran))
        return tuple(found.values())

    @property
    def has_run(self) -> bool:
        """Whether any server became ready, with whichever engine."""
        return any(record.ran for record in list(self._trials))

    def _forget_common_fault(self) -> None:
        """While nothing ran, skips that are no release's doing are forgotten: it may be mended.

        What the engine did not start is forgotten in any case.
        """
        ran = self.has_run
        for version, record in list(self._tested.items()):
            reason = record.reason
            if reason is SkipReason.NOT_STARTED or (reason and reason.of_the_run and not ran):
                for known in (self._tested, self.records, self._new):
                    known.pop(version, None)
                self._kept.pop(self._places[version], None)

    def _record(self, event: Event) -> TrialRecord:
        record = TrialRecord.model_validate(event["record"])
        self._candidates(record.version)
        self._asked((*record.variations, *(record.control.variations if record.control else ())))
        return record

    def _partial(self, event: Event) -> Partial:
        partial = Partial.model_validate(event["partial"])
        self._asked(partial.variations)
        return partial

    def _version(self, event: Event) -> str:
        version = _text(event["version"])
        self._candidates(version)
        return version

    def _finding(self, event: Event) -> Finding:
        finding = Finding.model_validate(event["finding"])
        for answer in (finding.answer, *finding.changes):
            if answer is not None:
                self._candidates(answer.last_before, answer.first_after, *answer.suspects)
                self._possible(answer)
        self._candidates(*filter(None, (finding.tested_from, finding.tested_to)))
        return finding

    def _possible(self, answer: Answer) -> None:
        """Raise ``ValueError`` for an answer that no trials can have led to."""
        if not {answer.last_before, answer.first_after} <= self._tested.keys():
            raise ValueError("a side of the change was not tested")
        low, high = self._places[answer.last_before], self._places[answer.first_after]
        suspects = {self._places[version] for version in answer.suspects}
        if not suspects or not suspects <= set(range(low + 1, high + 1)):
            raise ValueError("the suspects are not between the sides")
        if answer.exact and len(suspects) > 1:
            raise ValueError("an exact answer has one suspect")

    def _asked(self, told: Iterable[VariationRecord]) -> None:
        """Raise ``ValueError`` unless all variations that are ``told`` of are the suite's."""
        suite = self.settings.suite
        names = {variation.name for variation in suite.variations} if suite else set()
        if unknown := {each.name for each in told} - names:
            raise ValueError(f"{', '.join(unknown)} is no variation")

    def _candidates(self, *versions: str) -> None:
        """Raise ``ValueError`` unless all ``versions`` are candidates."""
        if unknown := set(versions) - self._places.keys():
            raise ValueError(f"{', '.join(unknown)} is no candidate")

    @property
    def outcomes(self) -> dict[int, Outcome]:
        """Outcomes by index into the candidates; releases left out on request are skips."""
        found = {self._places[version]: Outcome.SKIP for version in self.settings.excluded}
        for version, record in list(self.records.items()):  # a display looks at any time
            found[self._places[version]] = record.outcome
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
        return told_of(
            self.boots,
            self.reference,
            judged_as=self.outcomes,
            running=running,
            cheap_skips=self.skipped_unbooted,
            passing_skips=frozenset(
                self._places[version]
                for version, record in list(self.records.items())
                if record.reason in CAN_PASS
            ),
        )

    @cached_property
    def _places(self) -> dict[str, int]:
        return {version: index for index, version in enumerate(self.settings.versions)}

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
    def boots(self) -> dict[int, tuple[Boot, ...]]:
        """What was seen in each boot of the releases that were tried, by index."""
        return {
            self._places[version]: self._boots_of(record)
            for version, record in list(self.records.items())
        }

    def _boots_of(self, record: TrialRecord) -> tuple[Boot, ...]:
        """The boots of a release; without observations where those say nothing of it.

        Of a suite a skip says nothing, whatever was seen, unless it only crashed.
        """
        whole = self.settings.suite is not None
        boots = record.boots or (record.observations,)
        other = record.reason is SkipReason.DIFFERENT_FAILURE and not (
            whole and record.observations.kinds.keys() - {CRASHED}
        )
        untestable = record.outcome is Outcome.SKIP and not other
        by_kind = self.settings.failure is None and self.settings.suite is None
        kind = str(record.failure_kind) if by_kind and record.failure_kind else ANY_FAILURE
        return tuple(Boot() if untestable else tally.boot(kind) for tally in boots)

    @property
    def reference(self) -> str | None:
        """The kind of failure that is the bug this run is about, as far as is known."""
        return self._reference(self.boots)

    def _reference(self, boots: Boots) -> str | None:
        if self.settings.failure is not None:
            return ANY_FAILURE
        return bug_kind(boots, never=(OTHER_FAILURE,))

    @property
    def bug(self) -> Bug:
        """How the first failing end fails in the variations of a suite: what this run is about."""
        suite = self.settings.suite
        if suite is None:
            return frozenset()
        known = (r for r in self._tested.values() if not _only_crashed_once(r))
        return next((bug for record in known if (bug := bug_of(record, suite))), frozenset())

    def _reckon(self) -> None:
        """Take over the records that are new, and all as they stand once the bug is another."""
        if not self._new:
            return
        suite, before = self.settings.suite, self._told_by
        new, self._new = self._new, {}
        for version in new:
            self._kept[self._places[version]] = self._boots_of(self._tested[version])
        self._told_by, bug = self._reference(self._kept), self.bug
        changed = before != self._told_by or suite is not None
        shown = self.settings.failure or words(bug) or self._told_by
        for each in list(self._tested if changed else new):
            raw = self._tested[each]
            judged = outcome_by(self._kept[self._places[each]], self._told_by, raw.outcome)
            record = raw.told_by(self._told_by, judged, shown)
            self.records[each] = against(record, bug, suite) if suite else record

    def _take_time(self, event: Event) -> None:
        """Time never goes back, whatever was done to the clock."""
        at = datetime.fromisoformat(event["at"])
        if event["event"] in (EventKind.RUN_STARTED, EventKind.RUN_RESUMED):
            self._earlier_sessions = self.seconds
            self._session_began = at
        if self._session_began is not None:
            by_clock = (at - self._session_began).total_seconds()
            elapsed = float(event.get("elapsed", by_clock))
            if not math.isfinite(elapsed):
                raise ValueError(f"{elapsed} seconds have not elapsed")
            self.seconds = max(self.seconds, self._earlier_sessions + elapsed)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("it is no text")
    return value


def _only_crashed_once(record: TrialRecord) -> bool:
    return record.observations.kinds == {CRASHED: 1}


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
            state._take(event)
        except (ValidationError, ValueError, KeyError, TypeError):
            raise UsageError(f"{run_dir / FILE_NAME} is damaged in line {number}.") from None
    state._reckon()  # once for all: each time takes as long as there are records
    return state
