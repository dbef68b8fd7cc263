"""Trials of earlier runs that count again, so that nothing known is tested twice.

A trial counts again for the same release, build digest, probe, model, control and server, as
``sameness`` says, on the same host. What vbisect cannot compare does not count: a variable that was
passed on by its name alone, and files of a command, a local model, an argument or a variable that
were changed after that run began.
"""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from math import inf
from os import stat_result
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from vbisect.errors import UsageError
from vbisect.files import Below
from vbisect.launch.engine_version import to_be_told
from vbisect.locks import is_at_work
from vbisect.probes import FailureKind
from vbisect.run.journal import FILE_NAME as JOURNAL
from vbisect.run.journal import LARGEST, Event, EventKind, read_journal
from vbisect.run.records import ControlRecord, TrialRecord
from vbisect.run.sameness import trial_key
from vbisect.run.settings import RunSettings, read_settings
from vbisect.run.state import replay
from vbisect.run.trust import is_ours
from vbisect.search import BootContext, Outcome, judge_boot

MOST_RUNS = 200
"""How many run directories are looked at, those written to last."""

_LARGEST_JOURNAL = 64 * 2**20
"""Bytes; a usual journal has a thousandth of it."""

_CLOCKS_DIFFER = 2.0
"""Seconds: file systems keep time more coarsely than events do."""


@dataclass(frozen=True)
class Earlier:
    """A trial that counts again, and the id of the run that carried it out."""

    record: TrialRecord
    run_id: str


class EarlierTrials:
    """The trials in the run directories below ``results`` but ``own``, for a run of ``settings``.

    The directories are listed once, and read as far as a question needs it. May be asked by
    several threads at once; whatever is found there, nothing is raised.
    """

    def __init__(self, results: Path, settings: RunSettings, own: Path) -> None:
        self._settings = settings
        self._runs = earlier_runs(results, own)
        self._changed = _changed(settings)
        self._lock = threading.Lock()

    def find(self, version: str, digest: str, engine: str | None = None) -> Earlier | None:
        """The newest pass or fail of ``version`` that counts again with the build ``digest``.

        ``engine`` is the one that the run is about; ``None``: what the release runs by itself.
        """
        newest: Finished | None = None
        run_id = ""
        with self._lock:
            for run, settings in self._alike(version):
                if newest is not None and newest.at > run.written + _CLOCKS_DIFFER:
                    break  # nothing in this run and the following ones is as new
                trial = self._judged(run, version, engine) if run.mentions(digest) else None
                if trial is None or trial.digest != digest:
                    continue
                if newest is None or trial.at > newest.at:
                    newest, run_id = trial, settings.run_id
        if newest is None:
            return None
        return Earlier(newest.record, newest.record.earlier_run or run_id)

    def may_find(self, version: str, engine: str | None = None) -> bool:
        """Whether ``find`` finds ``version`` by any digest; if not, fetching it to ask is vain."""
        with self._lock:
            runs = (run for run, _ in self._alike(version) if run.mentions(version))
            return any(self._judged(run, version, engine) is not None for run in runs)

    def _judged(self, run: EarlierRun, version: str, engine: str | None) -> Finished | None:
        """What ``version`` came to there, unless the probe or the model was changed since."""
        asked = to_be_told(engine, version)
        trials = [t for t in run.judged if t.record.version == version]
        trial = next((t for t in trials if t.record.counts_for(asked)), None)
        return trial if trial is not None and self._changed < run.began else None

    def _alike(self, version: str) -> Iterator[tuple[EarlierRun, RunSettings]]:
        """The runs that test ``version`` as this one does, those written to last first."""
        asked = trial_key(self._settings, version)
        # what another host found may be due to its hardware
        if asked is None or self._changed == inf or self._settings.host is None:
            return
        for run in self._runs:
            settings = run.settings
            if settings is None or settings.host != self._settings.host:
                continue
            if trial_key(settings, version) == asked and run.is_ours:
                yield run, settings


@dataclass(frozen=True)
class Finished:
    """A record, and when it was made, in seconds since the epoch."""

    record: TrialRecord
    at: float

    @property
    def digest(self) -> str:
        """The digest of the build; empty when there was none."""
        return self.record.build.digest if self.record.build else ""


class EarlierRun:
    """A run directory, read as far as it is asked about.

    ``written`` is when its journal was last written to, in seconds since the epoch: none of its
    trials is later.
    """

    def __init__(self, run_dir: Path, written: float) -> None:
        self._run_dir = run_dir
        self.written = written

    @cached_property
    def settings(self) -> RunSettings | None:
        """The settings; ``None`` when they cannot be read, or are of another schema."""
        try:
            return RunSettings.read(self._run_dir)
        except UsageError:
            return None

    @cached_property
    def is_ours(self) -> bool:
        """Whether this user began it on this host: what somebody else sent decides nothing."""
        return is_ours(read_settings(self._run_dir))

    def mentions(self, text: str) -> bool:
        """Whether the journal has ``text`` as a value: quicker to tell than what it says of it."""
        if "_told" in vars(self):  # replayed already
            return True
        try:
            return json.dumps(text).encode() in (Below(self._run_dir) / JOURNAL).read(LARGEST)
        except OSError:
            return False

    @property
    def trials(self) -> tuple[Finished, ...]:
        """Its trials in their order; none while it is at work, or when its journal is damaged."""
        return self._told[1]

    @property
    def began(self) -> float:
        """When it began, in seconds since the epoch; minus infinity when it has no trials."""
        return self._told[0]

    @cached_property
    def judged(self) -> tuple[Finished, ...]:
        """Its passes and fails, one of each release and engine."""
        judged = (trial for trial in self.trials if _is_judged(trial.record, self.settings))
        return tuple(trial for trial in judged if trial.digest)

    @cached_property
    def _told(self) -> tuple[float, tuple[Finished, ...]]:
        """What the journal tells: the beginning and the trials."""
        nothing: tuple[float, tuple[Finished, ...]] = (-inf, ())
        if self.settings is None or is_at_work(self._run_dir):
            return nothing
        try:
            events, _ = read_journal(self._run_dir)
            state = replay(self.settings, events, self._run_dir)
        except UsageError:
            return nothing
        at = {
            (event["record"]["version"], event["record"].get("engine_asked")): _moment(event)
            for event in events
            if event["event"] == EventKind.TRIAL_FINISHED
        }
        records = (*state.records.values(), *state.set_aside)
        trials = tuple(Finished(r, at[r.version, r.engine_asked]) for r in records)
        return (_moment(events[0]), trials) if trials else nothing


def earlier_runs(results: Path, own: Path | None = None) -> list[EarlierRun]:
    """The run directories below ``results`` but ``own``, those written to last first, 200 at most.

    Nothing is read yet. A folder without a journal is none; what cannot be listed is empty.
    """
    found: list[EarlierRun] = []
    with suppress(OSError):
        besides = own.resolve() if own else None
        for folder in results.iterdir():
            with suppress(OSError):
                journal = (folder / JOURNAL).lstat()
                readable = S_ISREG(journal.st_mode) and journal.st_size <= _LARGEST_JOURNAL
                if readable and folder.resolve() != besides:
                    found.append(EarlierRun(folder, journal.st_mtime))
    return sorted(found, key=lambda run: run.written, reverse=True)[:MOST_RUNS]


def usable(
    record: TrialRecord, context: BootContext, control: BootContext, reference: str | None
) -> bool:
    """Whether the ``record`` of an earlier run settles its release in this one.

    ``context`` and ``control`` are those of a boot that would be made instead, ``reference`` is the
    kind of failure that is this run's bug; ``None`` as long as nothing has failed.
    """
    if record.control is not None and not _carries(record.control, control):
        return False
    if record.outcome is Outcome.FAIL and reference not in (None, record.failure_kind):
        return False
    if record.failure_kind is FailureKind.CRASHED:
        return True  # a crash ends the boot: more than one cannot be seen of it
    context = replace(context, earlier=())
    return any(judge_boot(boot.counts, context) is not None for boot in record.boots)


def _is_judged(record: TrialRecord, settings: RunSettings | None) -> bool:
    """Whether the model passed or failed, and so did the control, where there was to be one."""
    wanted = settings is not None and settings.control_model is not None
    outcomes = [record.outcome]
    if wanted:
        outcomes.append(record.control.outcome if record.control else Outcome.SKIP)
    return Outcome.SKIP not in outcomes


def _carries(control: ControlRecord, context: BootContext) -> bool:
    """Whether the control was asked often enough for this run."""
    crashed = control.failure_kind is FailureKind.CRASHED
    return crashed or judge_boot(control.observations.counts, context) is control.outcome


def _changed(settings: RunSettings) -> float:
    """When a file last changed that probe, model or server are given, in seconds since the epoch.

    Minus infinity when there is none, infinity when it cannot be told.
    """
    words = [*(settings.command.command if settings.command else ())]
    words += [w for limited in settings.serve_args for w in shlex.split(limited.text)]
    files = _named_by(words)
    if any(S_ISDIR(file.st_mode) for file in files):
        return inf  # whatever is in there may be part of the check, or of the server
    given = _named_by(variable.text for variable in settings.variables)
    files += [file for file in given if S_ISREG(file.st_mode)]  # their folders are caches
    named = ((settings.model, settings.model_path), (settings.control_model, settings.control_path))
    try:
        for name, place in named:
            # the digest of a tiny model is part of its path
            if name and place and not name.startswith("tiny:"):
                folder = Path(place).expanduser()
                files += [f.stat() for f in (folder, *folder.iterdir())] if folder.is_dir() else []
    except (OSError, RuntimeError):
        return inf
    return max((file.st_ctime for file in files), default=-inf)


def _named_by(words: Iterable[str]) -> list[stat_result]:
    """The files and folders that ``words`` are, or name behind an equals sign."""
    found = []
    for word in words:
        for path in (Path(word), Path(word.partition("=")[2] or word)):
            with suppress(OSError, ValueError):  # most words are no paths, some cannot be any
                found.append(path.stat())
    return found


def _moment(event: Event) -> float:
    """When an event that was replayed happened, in seconds since the epoch."""
    return datetime.fromisoformat(event["at"]).timestamp()
