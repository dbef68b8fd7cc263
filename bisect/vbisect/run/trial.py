"""One trial: a release fetched, launched, probed until its outcome is settled, and torn down."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from statistics import median_high
from typing import Any, TypeVar

from vbisect.errors import Cancelled
from vbisect.files import write_whole
from vbisect.full_disk import with_room_in
from vbisect.launch import LaunchSpec, Server
from vbisect.launch.diagnosis import ended_itself, known_cause
from vbisect.launch.engine_version import (
    VARIABLE,
    engine_version,
    has_fallen_back,
    why_fallen_back,
)
from vbisect.launch.server import Ended
from vbisect.paths import cache_root
from vbisect.probes import (
    CommandProbe,
    CommandSettings,
    FailureKind,
    NChoicesProbe,
    NChoicesSettings,
    NoResponse,
    Observation,
    Probe,
    ProbeTarget,
    SuiteSettings,
)
from vbisect.reasons import SkipReason, Untestable
from vbisect.run.journal import EventKind
from vbisect.run.parameters import ParametersCheck
from vbisect.run.records import (
    ANY_FAILURE,
    OTHER_FAILURE,
    Build,
    ParametersSeen,
    Partial,
    Seconds,
    Tally,
    TrialRecord,
    TrialSpec,
    another_failure,
)
from vbisect.run.rounds import Rounds
from vbisect.run.runtimes.interface import Fetched
from vbisect.run.variations import nothing_to_ask, words
from vbisect.search import CRASHED, Outcome, judge_boot
from vbisect.text import redact

T = TypeVar("T")

Emit = Callable[..., object]
"""Called as ``emit(EventKind, **fields)``; returns once the event is on disk."""

SeeToWeights = Callable[[Fetched, LaunchSpec, threading.Event], None]
"""Has the weights on disk that a server of the build loads."""

TearDown = Callable[[ExitStack], object]
"""Closes what a trial opened, the server above all, now or while something else goes on."""

_GLANCE_SECONDS = 0.25
_DEATH_SECONDS = 10.0
"""How long a server that gave no usable answer is watched for its own end."""


def run_trial(
    spec: TrialSpec,
    fetch: Callable[[], Fetched],
    weights: SeeToWeights,
    emit: Emit,
    tear_down: TearDown,
    given_up: threading.Event,
    boot_turn: AbstractContextManager[None],
) -> TrialRecord:
    """Carry out ``spec``. Whatever keeps the release from being judged becomes a typed skip.

    ``fetch`` gives the build, waiting for it; ``weights`` sees to what its server loads. Raises
    ``HostError``, ``ProbeAbort`` and ``KeyboardInterrupt``, which concern the run, not the release,
    and ``Cancelled`` once it is ``given_up``. The server boots inside of ``boot_turn``.
    """
    trial = _Trial(spec, weights, emit, tear_down, given_up, boot_turn)
    try:
        with with_room_in(spec.run_dir, cache_root()):
            trial.carry_out(fetch)
    except Untestable as skip:
        return trial.record(Outcome.SKIP, skip)
    assert trial.settled is not None
    return trial.record(trial.settled)


@dataclass
class _Trial:
    spec: TrialSpec
    weights: SeeToWeights
    emit: Emit
    tear_down: TearDown
    given_up: threading.Event
    boot_turn: AbstractContextManager[None]
    before: tuple[Tally, ...] = ()
    tally: Tally = field(default_factory=Tally)
    settled: Outcome | None = None
    signature: str | None = None
    kind: FailureKind | None = None
    reported_version: str | None = None
    build: Build | None = None
    size_bytes: int | None = None
    engine: str | None = None
    parameters: ParametersSeen | None = None
    signatures: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    distinct: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    rounds: Rounds | None = None

    def carry_out(self, fetch: Callable[[], Fetched]) -> None:
        probe, earlier = self.spec.probe, self.spec.earlier
        if isinstance(probe, SuiteSettings) and (skip := nothing_to_ask(probe, self.spec.version)):
            raise skip
        self.before, self.signature, self.kind = earlier.boots, earlier.signature, earlier.kind
        if self.before:
            told = self._whole.total
            self.notes.append(f"{told} observations are from before an interruption.")
        self.spec.directory.mkdir(parents=True, exist_ok=True)
        fetched = self._timed("fetch", fetch)
        self.build, self.size_bytes = fetched.build, fetched.size_bytes
        self.notes += fetched.notes
        self.weights(fetched, self._launch_spec(), self.given_up)
        self.emit(
            EventKind.BUILD_READY,
            version=self.spec.version,
            build=self.build.model_dump(),
            seconds=self.seconds["fetch"],
        )
        running = ExitStack()
        try:
            self._launch_and_observe(fetched, running)
        finally:
            self.tear_down(running)

    def _launch_and_observe(self, fetched: Fetched, running: ExitStack) -> None:
        began = time.monotonic()
        earlier = self._log.stat().st_size if self._log.exists() else 0
        try:
            with self.boot_turn:
                launched = fetched.launch(self._launch_spec(), self.given_up)
                server = running.enter_context(launched)
        except Untestable:
            self.seconds["boot"] = time.monotonic() - began
            raise
        self.seconds["boot"] = server.boot_seconds
        self.reported_version = server.reported_version
        self._keep_environment(fetched, server)
        self.emit(
            EventKind.SERVER_READY,
            version=self.spec.version,
            reported_version=server.reported_version,
            seconds=round(server.boot_seconds, 3),
        )
        self._check_engine(since=earlier)
        with self._ended_when_given_up(running):
            self._timed("probe", lambda: self._observe(server))

    def _check_engine(self, since: int) -> None:
        """Raise ``Untestable`` where another engine runs than the one that is asked about."""
        self.engine = engine_version(self._log, since)
        asked = self.spec.engine
        why = why_fallen_back(self._log, since) or "the log does not say why"
        if asked is not None and self.engine not in (asked, None):
            raise Untestable(
                SkipReason.ENGINE_NOT_USED, f"{self.engine} ran where {asked} was asked for: {why}"
            )
        silent = asked is None and VARIABLE not in self.spec.environment
        if silent and has_fallen_back(self.engine, self.spec.version):
            self.notes.append(f"V0 ran, though V1 is the usual engine of this release: {why}.")

    def _observe(self, server: Server) -> None:
        """Ask until the outcome is settled, the server has died, or another failure shows."""
        target = ProbeTarget(
            base_url=server.base_url,
            model=server.model,
            version=self.spec.version,
            directory=self.spec.directory,
            owner=self.spec.run_dir,
            given_up=self.given_up,
        )
        check = ParametersCheck(self._log, server.log_bytes, self.given_up)
        if isinstance(self.spec.probe, SuiteSettings):
            self._observe_suite(self.spec.probe, target, server, check)
            return
        probe = _probe(self.spec.probe)
        while (settled := self._judge()) is None:
            seen = self._ask(probe, target, server)
            self._take(seen, is_bug=self._is_bug(seen))
            self._look_for(target, check)
            if seen.kind is FailureKind.CRASHED:
                settled = self._judge_crash()
                break
        self.settled = settled

    def _look_for(self, target: ProbeTarget, check: ParametersCheck) -> None:
        """Look in the server's log for what was sent since the last time."""
        check.look_for(target.sent)
        target.sent.clear()
        self.parameters = check.seen

    def _observe_suite(
        self, suite: SuiteSettings, target: ProbeTarget, server: Server, check: ParametersCheck
    ) -> None:
        """The same in rounds of all variations that decide; then the others along."""
        rounds = self.rounds = Rounds(
            suite,
            self.spec.version,
            self.spec.bug,
            ask=lambda probe: self._ask(probe, target, server),
            alive=lambda: server.wait(0) is None,
            earlier=self.spec.earlier.variations,
        )
        while (settled := self._judge()) is None:
            seen = rounds.deciding()
            self._take(seen.observation, is_bug=seen.shows_bug and self._is_asked(seen.observation))
            self._look_for(target, check)
            if rounds.crashed:
                settled = self._judge_crash()
                break
        with suppress(Untestable):  # what does not decide does not undo a verdict either
            while (along := rounds.along(self._whole.total)) is not None:
                self._emit_observation(along.observation)
        if settled is Outcome.PASS and (skip := rounds.without_verdict()) is not None:
            raise skip
        self.settled = settled

    def _ask(self, probe: Probe, target: ProbeTarget, server: Server) -> Observation:
        """One observation; what a server says while it is being ended for us is none."""
        try:
            seen = probe.observe(target)
        except NoResponse as silence:
            if self.given_up.is_set():
                raise Cancelled from None
            seen = self._after_silence(server, silence)
        except Untestable:
            if self.given_up.is_set():
                raise Cancelled from None
            self._raise_if_killed(server)
            raise
        if self.given_up.is_set():
            raise Cancelled
        if not seen.passed:
            self._raise_if_killed(server)
        return seen

    def _raise_if_killed(self, server: Server) -> None:
        """What a command says of a server that was killed meanwhile is nothing of its release."""
        ended = None if server.listens() else server.wait(_DEATH_SECONDS)
        if ended is not None and (killed := self._killed(ended, server)) is not None:
            raise killed

    @contextmanager
    def _ended_when_given_up(self, running: ExitStack) -> Iterator[None]:
        """End the server once it is given up: a request to it may take long to be answered."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_GLANCE_SECONDS):
                if self.given_up.is_set():
                    running.close()
                    return

        watcher = threading.Thread(target=watch, name="watch trial", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _judge(self) -> Outcome | None:
        interrupted = ((tally.passes, tally.fails) for tally in self.before)
        known = self.spec.context.earlier
        context = replace(self.spec.context, earlier=(*known, *interrupted))
        settled = judge_boot(self.tally.counts, context, self.tally.other)
        if settled is Outcome.SKIP:
            raise self._different_failure()
        return settled

    @property
    def _whole(self) -> Tally:
        """All observations of this trial, those of boots that were interrupted among them."""
        return reduce(Tally.plus, self.before, self.tally)

    def _judge_crash(self) -> Outcome:
        """A crash ends the boot, so one is all that can be seen of it; it has to come again."""
        self.notes.append("The server died while it was being probed, which ends a boot.")
        if not self._whole.counts.total:
            raise self._different_failure()
        return Outcome.FAIL if self._whole.fails else Outcome.PASS

    def _different_failure(self) -> Untestable:
        known = self.spec.failure or words(self.spec.bug) or self.spec.reference
        return Untestable(SkipReason.DIFFERENT_FAILURE, another_failure(self.signature, known))

    def _is_bug(self, seen: Observation) -> bool:
        """Whether an observation that failed shows what the run is about, as far as is known."""
        if self.spec.failure is not None:
            return self._is_asked(seen)
        first = next(iter(self.tally.kinds), None)
        return seen.kind == (self.spec.reference or first or seen.kind)

    def _is_asked(self, seen: Observation) -> bool:
        """Whether its signature has the piece of one that was given, if any."""
        return (self.spec.failure or "").casefold() in str(seen.signature).casefold()

    def _take(self, seen: Observation, *, is_bug: bool) -> None:
        """Count an observation and put it into the journal."""
        passes, fails, other = self.tally.passes, self.tally.fails, self.tally.other
        kinds = Counter(self.tally.kinds)
        if seen.passed:
            passes += 1
        else:
            kind = self._kind(seen, is_bug)
            kinds[kind] += 1
            self.signatures.setdefault(kind, Counter())[str(seen.signature)] += 1
            if is_bug:
                fails += 1
                self.signature, self.kind = self._usual(kind), seen.kind
            else:
                other += 1
                self.signature = self.signature or seen.signature
        self.tally = Tally(passes=passes, fails=fails, other=other, kinds=dict(kinds))
        self.lengths.append(seen.seconds)
        if seen.latency is not None:
            self.latencies.append(seen.latency)
        self.distinct += [
            value["distinct_texts"]
            for value in seen.evidence.values()
            if isinstance(value, dict) and "distinct_texts" in value
        ]
        self._emit_observation(seen)

    def _kind(self, seen: Observation, is_bug: bool) -> str:
        """Under which name a failure is counted."""
        given = self.spec.failure is not None
        if seen.kind is FailureKind.CRASHED and not (given and is_bug):
            return CRASHED
        if given or isinstance(self.spec.probe, SuiteSettings):
            return ANY_FAILURE if is_bug else OTHER_FAILURE
        return str(seen.kind)

    def _usual(self, kind: str) -> str:
        return self.signatures[kind].most_common(1)[0][0]

    def _emit_observation(self, seen: Observation) -> None:
        partial = Partial(
            tally=self.tally,
            before=self.before,
            signature=self.signature,
            kind=self.kind,
            variations=tuple(self.rounds.records.values()) if self.rounds else (),
        )
        self.emit(
            EventKind.OBSERVATION,
            version=self.spec.version,
            observation=seen.model_dump(mode="json"),
            partial=partial.model_dump(mode="json", by_alias=True),
        )

    def _after_silence(self, server: Server, silence: NoResponse) -> Observation:
        """A server that died of its own doing failed; one that lives, or was starved, is a skip."""
        ended = server.wait(_DEATH_SECONDS)
        if ended is None:
            raise Untestable(silence.otherwise, silence.detail)
        cause = None if ended.out_of_memory else known_cause(self._log, since=server.log_bytes)
        if cause is not None:
            raise cause
        if (killed := self._killed(ended, server)) is not None:
            raise killed
        return Observation(
            passed=False,
            kind=FailureKind.CRASHED,
            signature=f"the server died on the request ({ended})",
        )

    def _killed(self, ended: Ended, server: Server) -> Untestable | None:
        """The skip of a server that did not end of its own doing while it was asked."""
        if ended.out_of_memory:
            told = "killed while answering by the kernel, which ran out of memory"
            return Untestable(SkipReason.OUT_OF_MEMORY, told)
        if ended.code == -9 and not ended_itself(self._log, since=server.log_bytes):
            told = "killed while answering by signal 9, mostly for memory"
            return Untestable(SkipReason.KILLED, told)
        return None

    def record(self, outcome: Outcome, skip: Untestable | None = None) -> TrialRecord:
        """The record of this trial as it stands; an interrupted boot is a boot of its own."""
        whole = self._whole
        return TrialRecord(
            version=self.spec.version,
            outcome=outcome,
            reason=skip.reason if skip else None,
            detail=skip.detail if skip else None,
            signature=self.signature if outcome is not Outcome.PASS or whole.fails else None,
            signatures={kind: self._usual(kind) for kind in self.signatures},
            failure_kind=self.kind if outcome is not Outcome.SKIP and whole.fails else None,
            observations=whole,
            boots=(*self.before, self.tally),
            reported_version=self.reported_version,
            build=self.build,
            seconds=Seconds(**{name: round(value, 3) for name, value in self.seconds.items()}),
            measured=self._measured(),
            engine=self.engine,
            engine_asked=self.spec.engine,
            size_bytes=self.size_bytes,
            parameters=self.parameters,
            variations=self.rounds.finished(outcome) if self.rounds else (),
            notes=(*self.notes, *(skip.notes if skip else ())),
        )

    def _measured(self) -> dict[str, Any]:
        if not self.lengths:
            return {}
        measured: dict[str, Any] = {
            "boot_seconds": round(self.seconds["boot"], 3),  # it became ready, as it was asked
            "observation_median": round(median_high(self.lengths), 4),
        }
        if self.latencies:
            measured["latency_median"] = round(median_high(self.latencies), 4)
        if self.signatures:
            told = sum(self.signatures.values(), Counter())
            measured["signatures"] = dict(told.most_common())
        if self.distinct:
            measured["distinct_texts_mean"] = round(sum(self.distinct) / len(self.distinct), 2)
        return measured

    @property
    def _log(self) -> Path:
        return self.spec.directory / "server.log"

    def _launch_spec(self) -> LaunchSpec:
        return LaunchSpec(
            version=self.spec.version,
            model=self.spec.model,
            arguments=self.spec.arguments,
            environment=self.spec.environment,
            boot_timeout=self.spec.boot_timeout,
            log=self._log,
            owner=self.spec.run_dir,
            gpus=self.spec.gpus,
        )

    def _keep_environment(self, fetched: Fetched, server: Server) -> None:
        facts = {
            "command": server.command,
            "variables": sorted(self.spec.environment),
            **fetched.evidence,
        }
        path = self.spec.directory / "environment.json"
        write_whole(path, redact(json.dumps(facts, indent=1)) + "\n")

    def _timed(self, name: str, action: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return action()
        finally:
            self.seconds[name] = time.monotonic() - began


def _probe(settings: NChoicesSettings | CommandSettings) -> Probe:
    if isinstance(settings, CommandSettings):
        return CommandProbe(settings)
    return NChoicesProbe(settings)
