"""The trials of one run: which come next, each carried out, begun again when the engine was lost.

Everything here may be called by several threads at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cache, partial
from itertools import islice
from pathlib import Path

from vbisect.errors import Cancelled, EngineLost, HostError
from vbisect.launch import Limited, effective_arguments, effective_environment
from vbisect.launch.engine_version import engines_of, to_be_told, variables_for
from vbisect.launch.hub_cache import StillLoading
from vbisect.reasons import SkipReason
from vbisect.releases import Release
from vbisect.run.answer import moved_ends
from vbisect.run.common_fault import common_fault, end_to_compare
from vbisect.run.control import FOLDER, control_context, control_wanted, run_control
from vbisect.run.earlier import EarlierTrials, usable
from vbisect.run.engine_choice import next_choice
from vbisect.run.journal import EventKind
from vbisect.run.model import see_to_model
from vbisect.run.records import ControlRecord, Partial, Seconds, TrialRecord, TrialSpec
from vbisect.run.runtimes import Fetched, Runtime
from vbisect.run.slots import Place, Slot, SlotPool
from vbisect.run.state import RunState
from vbisect.run.teardown import Teardown
from vbisect.run.times import Times, learn
from vbisect.run.trial import Emit, run_trial
from vbisect.run.weights import Weights
from vbisect.search import (
    BootContext,
    Costs,
    Counts,
    Outcome,
    Seen,
    boot_context,
    find_ends,
    leads_on,
    likely_after,
    next_picks,
    open_range,
    pointless,
)

_LOST_TIMES = 3
"""How often one trial is repeated because the runtime was lost."""

_KILLED_TIMES = 2
"""Servers of one trial that may be killed before the release is skipped for it."""

_GLANCE_SECONDS = 0.25

_AHEAD = 2
"""Builds fetched ahead of each trial: it comes to one of two things. What may come after those is
three times out of four in vain, and where waiting is to be saved, these two are nearer.
"""


class Trials:
    """What is to be tested of a run, and the testing. ``lock`` guards ``state``."""

    def __init__(
        self,
        state: RunState,
        run_dir: Path,
        emit: Emit,
        lock: threading.RLock,
        *,
        runtime: Runtime,
        teardown: Teardown,
        slots: SlotPool,
        weights: Weights,
    ) -> None:
        self._state = state
        self._run_dir = run_dir
        self._emit = emit
        self._lock = lock
        self._trial_over = threading.Condition(lock)
        self._under_trial: dict[int, None] = {}
        self._lost_lock = threading.Lock()
        self._losses = 0
        self._runtime = runtime
        self._teardown = teardown
        self._slots = slots
        self._weights = weights
        self._earlier = EarlierTrials(run_dir.parent, state.settings, run_dir)
        self._times = learn(run_dir.parent, state.settings, state)

    def next(self, running: frozenset[int], free: int) -> tuple[int, ...]:
        """Up to ``free`` candidates to begin with now, beside those ``running``.

        Raises ``HostError`` once it shows that nothing can be tested, and nothing is running.
        """
        if not free:
            return ()
        with self._lock:
            seen, fault = self._state.seen(running), common_fault(self._state)
            compared = end_to_compare(self._state, seen)
        if running and (fault is not None or compared in running):
            return ()
        if fault is not None:
            raise HostError(fault)
        picks = next_picks(self._state.aim, seen, self._costs(), free=free)
        if compared is not None:
            return (compared, *(i for i in picks if i != compared))[:free]
        with self._lock:
            choice = next_choice(self._state, over=not picks and not running)
        if choice is None:
            return picks
        if running:  # they are of the engine that is left
            return ()
        self._emit(EventKind.ENGINE_CHOSEN, choice=choice.model_dump(mode="json"))
        return self.next(running, free)

    def needless_now(self, running: frozenset[int]) -> frozenset[int]:
        """Those of ``running`` whose outcome can no longer matter."""
        return pointless(self._state.aim, self._seen(running))

    def begin(self, pick: int) -> None:
        """The candidate counts as under trial from now on."""
        with self._lock:
            self._under_trial[pick] = None

    def test(self, pick: int, given_up: threading.Event) -> None:
        """Carry out a trial that was begun, and record what it came to."""
        release = self._state.settings.candidates[pick]
        try:
            record = self._without_engine(release) or self._known(release)
            if record is None:
                record = self._on_a_slot(release, given_up)
        except Cancelled:
            self._emit(EventKind.TRIAL_GIVEN_UP, version=release.version)
            return
        else:
            self._emit(
                EventKind.TRIAL_FINISHED, record=record.model_dump(mode="json", by_alias=True)
            )
        finally:
            self._over(pick)
        if record.outcome is not Outcome.SKIP:
            self._say_when_an_end_moved(pick)

    def _without_engine(self, release: Release) -> TrialRecord | None:
        """The skip of a release that has not got the engine which the run is about."""
        engine, version = self._state.engine, release.version
        if engine is None or engine in engines_of(version):
            return None
        return TrialRecord(
            version=version,
            outcome=Outcome.SKIP,
            reason=SkipReason.ENGINE_MISSING,
            detail=f"{version} has no {engine}, only {engines_of(version)[0]}",
            engine_asked=engine,
        )

    def _known(self, release: Release) -> TrialRecord | None:
        """What an earlier run found out about the same build, asked the same.

        A release of which this run has seen anything itself is tested to its end.
        """
        settings, state, version = self._state.settings, self._state, release.version
        if settings.fresh or any(
            version in k for k in (state.records, state.judged, state.partial)
        ):
            return None
        engine = state.engine
        if not self._earlier.may_find(version, engine):
            return None
        digest = self._runtime.digest(release)
        found = self._earlier.find(version, digest, engine) if digest else None
        if found is None:
            return None
        with self._lock:
            context, failing = self._context(release), self._failing()
            # of a suite, which variations fail tells whether it is the bug, and that comes later
            reference = None if settings.suite else self._state.reference
            control = control_context(context, found.record, failing)
            enough = usable(found.record, context, control, reference)
        if not enough:
            return None
        return found.record.model_copy(
            update={"earlier_run": found.run_id, "seconds": Seconds(), "notes": ()}
        )

    def _context(self, release: Release) -> BootContext:
        index = self._state.settings.candidates.index(release)
        return boot_context(self._state.aim, self._state.seen(), index, self._costs())

    def _failing(self) -> list[Counts]:
        """What was seen of the releases that fail."""
        records = self._state.records.values()
        return [r.observations.counts for r in records if r.outcome is Outcome.FAIL]

    def _on_a_slot(self, release: Release, given_up: threading.Event) -> TrialRecord:
        """The record of a trial, which is begun again alone if it lacked memory beside another.

        That says nothing of the release: the other one may have had what it lacked.
        """
        with self._slots.taken(given_up) as place:
            record = self._trial(release, given_up, place)
        lacked = _lacked_memory(record)
        if lacked is None or not place.shared:
            return record
        self._emit(
            EventKind.NOTE,
            text=f"The trial of {release.version} lacked memory while there were others "
            f"({lacked}): it begins again alone.",
        )
        with self._slots.taken_alone(given_up) as place:
            self._teardown.settle()
            return self._trial(release, given_up, place)

    def _trial(self, release: Release, given_up: threading.Event, place: Place) -> TrialRecord:
        """The record of a trial, begun again when the runtime was lost during it."""
        lost_times = killed_times = 0
        while True:
            losses = self._losses
            there = self._runtime.arrived([release]).get(release.version) == 1
            self._emit(EventKind.TRIAL_STARTED, version=release.version)
            try:
                again = killed_times + 1 < _KILLED_TIMES
                return self._attempt(release, given_up, place, there, again)
            except EngineLost as lost:
                if given_up.is_set():
                    raise Cancelled from None
                if isinstance(lost, StillLoading):
                    self._weights.forget()
                if isinstance(lost, _ServerKilled):
                    killed_times += 1
                else:
                    lost_times += 1
                if lost_times == _LOST_TIMES:
                    raise HostError(
                        f"{lost} That happened {_LOST_TIMES} times in one trial: look after "
                        "this host, then resume the run."
                    ) from None
                then = f"The trial of {release.version} begins again once it is back."
                self._emit(EventKind.NOTE, text=f"{lost} {then}")
                self._recover(losses)
                self._teardown.settle()  # what the lost trial opened writes into the same folder

    def _attempt(
        self, release: Release, given_up: threading.Event, place: Place, there: bool, again: bool
    ) -> TrialRecord:
        """The model's part of the trial, unless it is known already, then the control's.

        With ``again``, a server that was killed is lost, and says nothing of the release, unless
        that may be due to another one.
        """
        slot = place.slot

        @cache
        def fetch() -> Fetched:
            with self._lock:
                self._expect()
            return self._runtime.fetch(release, given_up)

        def fetch_for(model: str, path: str) -> Fetched:
            fetched = fetch()
            see_to_model(model, path)
            return fetched

        settings, spec = self._state.settings, self._spec(release, slot)
        record = self._state.judged.get(release.version)
        if record is None:
            turn = self._slots.boot_turn(slot, given_up)
            needed = partial(fetch_for, settings.model, spec.model)
            record = run_trial(
                spec, needed, self._weights.see_to, self._emit, self._teardown, given_up, turn
            )
            if place.shared and _lacked_memory(record):
                return record
            _lost_if_killed(record, again)
            record = record.model_copy(update={"was_there": there})
        control = self._control_spec(spec, slot, record)
        if control is None:
            return record
        model = settings.control_model
        assert model is not None
        self._emit(
            EventKind.CONTROL_STARTED,
            version=record.version,
            record=record.model_dump(mode="json", by_alias=True),
        )
        turn = self._slots.boot_turn(slot, given_up)
        needed = partial(fetch_for, model, control.model)
        found = run_control(
            model, control, needed, self._weights.see_to, self._emit, self._teardown, given_up, turn
        )
        _lost_if_killed(found, again and not place.shared)
        return record.model_copy(update={"control": found})

    def _recover(self, losses: int) -> None:
        """Have the runtime back, unless another trial that was lost with it has it back already."""
        with self._lost_lock:
            if losses == self._losses:
                self._runtime.recover()
                self._losses += 1

    def _over(self, pick: int) -> None:
        """The trial is over; what waits for its room is fetched now."""
        with self._trial_over:
            self._under_trial.pop(pick, None)
            self._trial_over.notify_all()
            if self._under_trial:
                self._expect()

    def _expect(self) -> None:
        """Have the builds fetched of what is under trial, then of what may come after it."""
        settings = self._state.settings
        seen = self._seen(frozenset(self._under_trial))
        with self._lock:
            compared = end_to_compare(self._state, seen)
        aim, costs, depth = self._state.aim, self._costs(), self._runtime.lookahead
        on = list(self._under_trial)
        following: Iterable[int] = [compared] if compared is not None else []
        one_more = compared is not None
        if compared is None:
            following = likely_after(aim, seen, costs, jobs=self._slots.size, depth=depth)
            # where there is time to boot while a build comes, what may not be needed can wait
            one_more = self._waits() or leads_on(aim, seen, costs, jobs=self._slots.size)
        new = (index for index in following if index not in on and index not in seen.outcomes)
        ahead = islice(new, _AHEAD * max(1, len(on)))
        self._runtime.expect(
            [settings.candidates[i] for i in (*on, *ahead)],
            self._worth_keeping(),
            of_use=len(on) + one_more,
        )

    def _seen(self, running: frozenset[int]) -> Seen:
        with self._lock:
            return self._state.seen(running)

    def _costs(self) -> Costs:
        candidates = self._state.settings.candidates
        return self._times_so_far().costs(candidates, self._runtime.arrived(candidates))

    def _waits(self) -> bool:
        """Whether builds take longer to come than to boot, as far as was measured."""
        times = self._times_so_far()
        return times.fetch > times.boot

    def _times_so_far(self) -> Times:
        with self._lock:
            return self._times.after(self._state)

    def _worth_keeping(self) -> list[Release]:
        """The tested neighbours of the change, as far as they are known."""
        settings = self._state.settings
        stretch = open_range(self._state.aim, self._seen(frozenset()))
        return [settings.candidates[index] for index in stretch or ()]

    def _spec(self, release: Release, slot: Slot) -> TrialSpec:
        settings, state = self._state.settings, self._state
        with self._lock:
            context = self._context(release)
            reference, bug = state.reference, state.bug
            earlier = state.partial.get(release.version, Partial())
        return TrialSpec(
            version=release.version,
            model=settings.model_path,
            arguments=self._arguments(settings.model_args, release.version, slot),
            environment=self._environment(settings.model_env, release.version),
            probe=settings.probe,
            boot_timeout=settings.boot_timeout,
            context=context,
            reference=reference,
            failure=settings.failure,
            bug=bug,
            earlier=earlier,
            run_dir=self._run_dir.absolute(),
            gpus=slot.gpus,
            engine=to_be_told(state.engine, release.version),
        )

    def _arguments(self, of_model: Iterable[Limited], version: str, slot: Slot) -> tuple[str, ...]:
        """What the server is started with: the model's own arguments, then the user's."""
        settings = self._state.settings
        given = effective_arguments((*settings.log_args, *settings.serve_args), version)
        return (*effective_arguments(of_model, version), *given, *slot.arguments)

    def _environment(self, of_model: dict[str, str], version: str) -> dict[str, str]:
        given = effective_environment(self._state.settings.variables, version)
        return {**of_model, **given, **variables_for(self._state.engine, version)}

    def _control_spec(self, spec: TrialSpec, slot: Slot, record: TrialRecord) -> TrialSpec | None:
        """The control's part of a trial whose model came to ``record``; ``None``: there is none."""
        settings, state, version = self._state.settings, self._state, spec.version
        with self._lock:
            tested = state.records.get(version)
            earlier = state.control_partial.get(version, Partial())
            failing = self._failing()
        known = tested.control if tested else None
        context = control_context(spec.context, record, failing)
        if settings.control_path is None or not control_wanted(record, known, context):
            return None
        return spec.model_copy(
            update={
                "model": settings.control_path,
                "arguments": self._arguments(settings.control_args, version, slot),
                "environment": self._environment(settings.control_env, version),
                "probe": settings.control_probe,
                "context": context,
                "reference": None,
                "failure": None,
                "bug": frozenset(),
                "earlier": earlier,
                "folder": FOLDER,
            }
        )

    def _say_when_an_end_moved(self, pick: int) -> None:
        """An end that could not be tested is replaced loudly, once both ends are known."""
        with self._lock:
            state, seen = self._state, self._state.seen()
            ends = find_ends(len(state.settings.versions), seen)
            if ends is None or pick not in (ends.low, ends.high):
                return
            if not {ends.low, ends.high} <= set(seen.judged):
                return
            texts = [t for t in moved_ends(state, ends.low, ends.high) if t not in state.notes]
        for text in texts:
            self._emit(EventKind.NOTE, text=text)


class _ServerKilled(EngineLost):
    """The server was killed; what it ran from is still there."""


def _lost_if_killed(record: TrialRecord | ControlRecord, again: bool) -> None:
    """Raises ``_ServerKilled`` for a server that was killed, if its trial may begin ``again``."""
    if again and record.reason is SkipReason.KILLED:
        raise _ServerKilled(f"The server was lost: {record.detail}.")


def _lacked_memory(record: TrialRecord) -> str | None:
    """What was seen of a server of a trial that had too little memory, as it seems."""
    reasons = (SkipReason.OUT_OF_MEMORY, SkipReason.KILLED)
    parts: list[TrialRecord | ControlRecord] = [record]
    parts += [record.control] if record.control else []
    return next((str(part.detail) for part in parts if part.reason in reasons), None)


def unfit_records(state: RunState, run_dir: Path) -> list[TrialRecord]:
    """The skips of what the host cannot run, but for what it has run before all the same."""
    settings = state.settings
    known = {*settings.excluded, *state.records, *state.partial, *state.judged}
    earlier = EarlierTrials(run_dir.parent, settings, run_dir)
    return [
        TrialRecord(
            version=unfit.version, outcome=Outcome.SKIP, reason=unfit.reason, detail=unfit.detail
        )
        for unfit in settings.unfit
        if unfit.version not in known and not earlier.may_find(unfit.version)
    ]


def needless(state: RunState) -> list[Release]:
    """What a finished search never tested; all may still be wanted where it goes on."""
    if next_picks(state.aim, state.seen()):
        return []
    return [r for r in state.settings.candidates if r.version not in state.records]
