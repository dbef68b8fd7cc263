"""Carry a run from where its journal stands to its answer."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from vbisect import __version__
from vbisect.errors import EngineLost, HostError, ProbeAbort, UsageError
from vbisect.launch import effective_arguments, effective_environment
from vbisect.locks import Locked, file_lock
from vbisect.releases import Release
from vbisect.run.answer import finding_of, moved_ends
from vbisect.run.journal import Event, EventKind, Journal, repair_torn_line
from vbisect.run.records import Finding, Partial, Status, TrialRecord, TrialSpec
from vbisect.run.runtimes import Fetched, Runtime, open_runtime
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState, load_state
from vbisect.run.teardown import Teardown
from vbisect.run.trial import run_trial
from vbisect.search import Outcome, likely_next, next_pick, remaining_range
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
        state = RunState(settings)
        with Journal(run_dir) as journal:
            session = _Session(run_dir, state, journal, display)
            session.emit(EventKind.RUN_STARTED, vbisect=__version__, argv=_argv())
            for note in settings.notes:
                session.emit(EventKind.NOTE, text=note)
            return session.work()


def resume_run(run_dir: Path, display: Display) -> RunState:
    """Go on with the run in ``run_dir``; nothing that was recorded is done again.

    Raises ``UsageError`` when it is not a run directory, is damaged, or another vbisect has it.
    """
    RunSettings.read(run_dir)  # before the lock file is made: this may not be a run directory
    with _owned(run_dir):
        state, torn = load_state(run_dir)
        if torn:
            repair_torn_line(run_dir, torn)
        if state.finding is not None and not state.finding.status.resumable:
            return state
        with Journal(run_dir) as journal:
            session = _Session(run_dir, state, journal, display)
            session.emit(EventKind.RUN_RESUMED, vbisect=__version__)
            if torn:
                session.emit(EventKind.NOTE, text=_torn_note(torn))
            return session.work()


_LOST_TIMES = 3
"""How often one trial is repeated because the runtime was lost."""


class _Session:
    def __init__(self, run_dir: Path, state: RunState, journal: Journal, display: Display) -> None:
        self._run_dir = run_dir
        self._state = state
        self._journal = journal
        self._display = display

    def emit(self, kind: EventKind, **fields: Any) -> None:
        """To the journal first, then to the state, then to the eye."""
        event = self._journal.append(kind, **fields)
        self._state.apply(event)
        self._display.show(event, self._state)

    def work(self) -> RunState:
        """Test until the search is over, the user stops it, or the host gives out."""
        try:
            with self._runtime() as runtime, Teardown(overlapped=runtime.stops_beside) as teardown:
                while (pick := self._next()) is not None:
                    self._test(pick, runtime, teardown)
        except KeyboardInterrupt:
            finding = Finding(status=Status.INTERRUPTED, message="interrupted; it can be resumed")
            self.emit(EventKind.RUN_STOPPED, finding=finding.model_dump(mode="json"))
        except (HostError, ProbeAbort) as error:
            finding = Finding(status=Status.FAILED, message=str(error))
            self.emit(EventKind.RUN_STOPPED, finding=finding.model_dump(mode="json"))
        else:
            finding = finding_of(self._state)
            self.emit(EventKind.RUN_FINISHED, finding=finding.model_dump(mode="json"))
        return self._state

    @contextmanager
    def _runtime(self) -> Iterator[Runtime]:
        """The run's runtime, rid of what a killed vbisect left there."""
        runtime = open_runtime(self._state.settings, self._run_dir.absolute(), self._display.say)
        try:
            if orphans := runtime.end_orphans():
                self.emit(EventKind.NOTE, text=f"{orphans} leftovers of a killed run were ended.")
            for log in self._run_dir.glob("trials/*/*.log"):
                scrub_file(log)  # a killed run leaves its last log as the server wrote it
            yield runtime
        finally:
            runtime.close(self._needless())

    def _next(self) -> int | None:
        settings = self._state.settings
        return next_pick(
            len(settings.candidates),
            self._state.outcomes,
            find=settings.find,
            sweep=settings.sweep,
        )

    def _test(self, pick: int, runtime: Runtime, teardown: Teardown) -> None:
        release = self._state.settings.candidates[pick]
        record = self._trial(release, pick, runtime, teardown)
        self.emit(EventKind.TRIAL_FINISHED, record=record.model_dump(mode="json", by_alias=True))
        if record.outcome is not Outcome.SKIP:
            self._say_when_an_end_moved(pick)

    def _trial(
        self, release: Release, pick: int, runtime: Runtime, teardown: Teardown
    ) -> TrialRecord:
        """The record of a trial, begun again when the runtime was lost during it."""

        def fetch() -> Fetched:
            following = self._likely_after(pick, runtime.lookahead)
            runtime.expect([release, *following], self._worth_keeping())
            return runtime.fetch(release)

        for attempt in range(_LOST_TIMES):
            self.emit(EventKind.TRIAL_STARTED, version=release.version)
            try:
                return run_trial(self._spec(release), fetch, self.emit, teardown)
            except EngineLost as lost:
                if attempt == _LOST_TIMES - 1:
                    raise HostError(
                        f"{lost} That happened {_LOST_TIMES} times in one trial: look after the "
                        "engine, then resume the run."
                    ) from None
                again = f"The trial of {release.version} begins again once it is back."
                self.emit(EventKind.NOTE, text=f"{lost} {again}")
                runtime.recover()
                teardown.settle()  # what the lost trial opened writes into the same folder
        raise AssertionError("the last attempt returns or raises")

    def _likely_after(self, pick: int, depth: int) -> list[Release]:
        settings = self._state.settings
        following = likely_next(
            len(settings.candidates),
            self._state.outcomes,
            pick,
            find=settings.find,
            sweep=settings.sweep,
            depth=depth,
        )
        return [settings.candidates[index] for index in following]

    def _worth_keeping(self) -> list[Release]:
        """The tested neighbours of the change, as far as they are known."""
        settings = self._state.settings
        stretch = remaining_range(len(settings.candidates), self._state.outcomes)
        return [settings.candidates[index] for index in stretch or ()]

    def _needless(self) -> list[Release]:
        """What the finished search never tested; all may still be wanted where it goes on."""
        if self._next() is not None:
            return []
        settings, records = self._state.settings, self._state.records
        return [release for release in settings.candidates if release.version not in records]

    def _spec(self, release: Release) -> TrialSpec:
        settings, state = self._state.settings, self._state
        weakest = state.weakest
        return TrialSpec(
            version=release.version,
            model=settings.model_path,
            arguments=(
                *effective_arguments(settings.model_args, release.version),
                *effective_arguments(settings.serve_args, release.version),
            ),
            environment={
                **settings.model_env,
                **effective_environment(settings.env, release.version),
            },
            probe=settings.probe,
            confidence=settings.confidence,
            boot_timeout=settings.boot_timeout,
            weakest=(weakest.passes, weakest.fails) if weakest else None,
            reference=state.reference,
            earlier=state.partial.get(release.version, Partial()),
            run_dir=self._run_dir.absolute(),
        )

    def _say_when_an_end_moved(self, pick: int) -> None:
        """An end that could not be tested is replaced loudly, by the nearest that could."""
        for text in moved_ends(self._state, pick, pick):
            self.emit(EventKind.NOTE, text=text)


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
    try:
        # one that looks whether this run is still alive holds the lock for a moment
        with file_lock(run_dir / "lock", wait=lambda: time.monotonic() < deadline):
            yield
    except Locked:
        raise UsageError(f"Another vbisect is at work on {run_dir}.") from None
