"""Carry a run from where its journal stands to its answer."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from vbisect import __version__
from vbisect.errors import HostError, ProbeAbort, UsageError
from vbisect.full_disk import is_full
from vbisect.locks import Locked, file_lock
from vbisect.run.answer import finding_of
from vbisect.run.crew import Crew
from vbisect.run.inherited import resumed_elsewhere
from vbisect.run.journal import Event, EventKind, Journal, repair_torn_line
from vbisect.run.records import Finding, Status
from vbisect.run.room import find_room
from vbisect.run.runtimes import Runtime, open_runtime
from vbisect.run.settings import FILE_NAME, RunSettings
from vbisect.run.slots import SlotPool
from vbisect.run.state import RunState, load_state
from vbisect.run.teardown import Teardown
from vbisect.run.trials import Trials, needless, unfit_records
from vbisect.run.trust import enter
from vbisect.run.weights import Weights
from vbisect.text import scrub_file


class Display(Protocol):
    """Shows progress; told of each event once the journal has it."""

    def show(self, event: Event, state: RunState) -> None:
        """``state`` already contains ``event``."""
        ...

    def say(self, line: str) -> None:
        """What goes on in the background: pulls, waits for a registry."""
        ...


def start_run(settings: RunSettings, run_dir: Path, display: Display) -> RunState:
    """Begin a new run in ``run_dir``, which exists and is empty, and carry it to its end."""
    with _owned(run_dir):
        settings.write(run_dir)
        enter(run_dir, settings.to_toml())
        state = RunState(settings)
        with Journal(run_dir) as journal:
            session = _Session(run_dir, state, journal, display)
            session.begin()
            return session.work()


def resume_run(run_dir: Path, agreed: RunSettings, display: Display) -> RunState:
    """Go on with the run in ``run_dir``; nothing that was recorded is done again.

    Raises ``UsageError`` when it is damaged, when another vbisect has it, or when its settings are
    no longer those that were ``agreed`` to.
    """
    with _owned(run_dir):
        state, torn = load_state(run_dir)
        if state.settings != agreed:
            raise UsageError(f"{run_dir / FILE_NAME} was changed meanwhile; nothing was run.")
        if torn:
            repair_torn_line(run_dir, torn)
        if state.finding is not None and not state.finding.status.resumable:
            return state
        with Journal(run_dir) as journal:
            session = _Session(run_dir, state, journal, display)
            display.say(f"going on with: {state.settings.replay_command()}")
            if not state.begun:  # it was killed before its first event
                session.begin()
            session.emit(EventKind.RUN_RESUMED, vbisect=__version__)
            if torn:
                session.emit(EventKind.NOTE, text=_torn_note(torn))
            for note in resumed_elsewhere(state.settings):
                session.emit(EventKind.NOTE, text=note)
            return session.work()


class _Session:
    def __init__(self, run_dir: Path, state: RunState, journal: Journal, display: Display) -> None:
        self._run_dir = run_dir.resolve()  # what it starts is known by one name for ever
        self._state = state
        self._journal = journal
        self._display = display
        self._lock = threading.RLock()

    def emit(self, kind: EventKind, **fields: Any) -> None:
        """To the journal first, then to the state, then to the eye."""
        with self._lock:
            event = self._journal.append(kind, **fields)
            self._state.apply(event)
            self._display.show(event, self._state)

    def begin(self) -> None:
        """What a journal begins with."""
        self.emit(EventKind.RUN_STARTED, vbisect=__version__, argv=_argv())
        for note in self._state.settings.notes:
            self.emit(EventKind.NOTE, text=note)

    def work(self) -> RunState:
        """Test until the search is over, the user stops it, or the host gives out."""
        try:
            for record in unfit_records(self._state, self._run_dir):
                self.emit(
                    EventKind.TRIAL_FINISHED, record=record.model_dump(mode="json", by_alias=True)
                )
            with self._runtime() as runtime, Teardown(overlapped=runtime.stops_beside) as teardown:
                slots, notes = find_room(self._state.settings, runtime.capacity())
                for note in notes:
                    self.emit(EventKind.NOTE, text=note)
                trials = Trials(
                    self._state,
                    self._run_dir,
                    self.emit,
                    self._lock,
                    runtime=runtime,
                    teardown=teardown,
                    slots=SlotPool(slots),
                    weights=Weights(self._state, self.emit, self._display.say),
                )
                if len(slots) == 1:
                    _one_by_one(trials)
                else:
                    _side_by_side(trials, len(slots))
            finding = finding_of(self._state)
            self.emit(EventKind.RUN_FINISHED, finding=finding.model_dump(mode="json"))
        except KeyboardInterrupt:
            self._stop(Status.INTERRUPTED, "stopped by Ctrl-C or a signal; it can be resumed")
        except (HostError, ProbeAbort) as error:
            self._stop(Status.FAILED, str(error))
        except OSError as error:
            if not is_full(error):
                raise
            where = f": {error.filename}" if error.filename else ""
            self._stop(Status.FAILED, f"The disk is full{where}. Free space, then resume the run.")
        return self._state

    def _stop(self, status: Status, message: str) -> None:
        """Record how the run stopped; where that cannot be written, it is only told."""
        finding = Finding(status=status, message=message)
        try:
            self.emit(EventKind.RUN_STOPPED, finding=finding.model_dump(mode="json"))
        except HostError:
            self._state.finding = finding

    @contextmanager
    def _runtime(self) -> Iterator[Runtime]:
        """The run's runtime, rid of what a killed vbisect left there."""
        runtime = open_runtime(self._state.settings, self._run_dir, self._display.say)
        try:
            if orphans := runtime.end_orphans():
                self.emit(EventKind.NOTE, text=f"{orphans} leftovers of a killed run were ended.")
            for log in self._run_dir.glob("trials/**/*.log"):
                scrub_file(log)  # a killed run leaves its last log as the server wrote it
            yield runtime
        finally:
            runtime.close(needless(self._state))


def _one_by_one(trials: Trials) -> None:
    """In this thread, so that an interrupt ends a trial wherever it is."""
    while picks := trials.next(frozenset(), 1):
        trials.begin(picks[0])
        trials.test(picks[0], threading.Event())


def _side_by_side(trials: Trials, size: int) -> None:
    """Several trials at once, each result used as it arrives."""
    with Crew(size, trials.test) as crew:
        while True:
            for pick in trials.next(crew.running, crew.free):
                trials.begin(pick)
                crew.begin(pick)
            if not crew.running:
                return
            crew.take_back()
            crew.give_up(trials.needless_now(crew.running))


def _torn_note(torn: bytes) -> str:
    return (
        f"The journal's last line was torn ({len(torn)} bytes, kept in journal.torn): the event "
        "being written when vbisect was killed is lost, everything before it is kept."
    )


def _argv() -> str:
    return shlex.join(sys.argv[1:])


@contextmanager
def _owned(run_dir: Path) -> Iterator[None]:
    deadline = time.monotonic() + 0.5
    with ExitStack() as held:
        try:
            # one that looks whether this run is still alive holds the lock for a moment
            lock = file_lock(run_dir / "lock", wait=lambda: time.monotonic() < deadline)
            held.enter_context(lock)
        except Locked:
            raise UsageError(f"Another vbisect is at work on {run_dir}.") from None
        except OSError as error:
            if is_full(error):
                raise
            raise HostError(f"{run_dir}/lock cannot be written: {error.strerror}.") from error
        yield
