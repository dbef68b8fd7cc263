"""What is recorded of a run: the serialisable spec of a trial, its record, and the answer."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vbisect.launch.engine_version import engines_of
from vbisect.probes import CommandSettings, FailureKind, NChoicesSettings, SuiteSettings
from vbisect.reasons import SkipReason
from vbisect.search import CRASHED, Boot, BootContext, Change, Counts, Outcome


class Frozen(BaseModel):
    """Records are values: they can be compared, stored and sent elsewhere."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


ANY_FAILURE, OTHER_FAILURE = "failure", "another failure"
"""Kinds of failures where not their own kind tells the bug, but what the run looks for."""


Count = Annotated[int, Field(ge=0, le=10**6)]


class Tally(Frozen):
    """Observations of a release; ``other`` are failures of another kind than the run's.

    ``kinds`` has all failures by their kind, from which the other two follow once it is known which
    one is the bug. It is empty where there are none, and where an older vbisect did not keep it.
    """

    passes: Count = Field(0, alias="pass")
    fails: Count = Field(0, alias="fail")
    other: Count = 0
    kinds: dict[str, Count] = {}

    @property
    def counts(self) -> Counts:
        """What the search judges by."""
        return Counts(self.passes, self.fails)

    @property
    def total(self) -> int:
        """All observations."""
        return self.passes + self.fails + self.other

    def boot(self, kind: str = ANY_FAILURE) -> Boot:
        """What the search takes one boot for; ``kind`` is that of failures recorded without."""
        unknown = {kind: self.fails, OTHER_FAILURE: self.other}
        kinds = self.kinds or {kind: number for kind, number in unknown.items() if number}
        return Boot(self.passes, kinds)

    def told_by(self, bug: str | None) -> Tally:
        """The same, where ``bug`` is the kind of failure that counts."""
        if not self.kinds:
            return self
        fails = self.kinds.get(bug or "", 0)
        other = sum(self.kinds.values()) - fails
        return self.model_copy(update={"fails": fails, "other": other})

    def plus(self, more: Tally) -> Tally:
        """Both together."""
        return Tally(
            passes=self.passes + more.passes,
            fails=self.fails + more.fails,
            other=self.other + more.other,
            kinds=dict(Counter(self.kinds) + Counter(more.kinds)),
        )


class VariationRecord(Frozen):
    """What one variation of the request came to in a release, over all its boots.

    One that was asked of no server yet is a skip without a reason.
    """

    name: str
    outcome: Outcome
    reason: SkipReason | None = None
    detail: str | None = None
    signature: str | None = None
    failure_kind: FailureKind | None = None
    observations: Tally = Tally()

    def after(self, earlier: VariationRecord | None, *, passed: bool) -> VariationRecord:
        """This boot's record taken together with that of ``earlier`` boots.

        ``passed`` tells whether the release counts as passing in spite of single failures.
        """
        if earlier is None:
            return self
        failed = earlier.outcome is Outcome.FAIL and not passed
        kept = earlier if failed or self.outcome is Outcome.SKIP else self
        return kept.model_copy(
            update={
                "observations": earlier.observations.plus(self.observations),
                "signature": kept.signature or earlier.signature,
                "failure_kind": kept.failure_kind or earlier.failure_kind,
            }
        )


Bug = frozenset[tuple[str, FailureKind]]
"""How the failing end of a suite's range fails: in which variations, and each in which way."""


class Partial(Frozen):
    """What was observed in a trial that has not finished: tally, last failure and its kind.

    ``tally`` is of its latest boot; ``before`` are those of boots that were interrupted before.
    """

    tally: Tally = Tally()
    before: tuple[Tally, ...] = ()
    signature: str | None = None
    kind: FailureKind | None = None
    variations: tuple[VariationRecord, ...] = ()

    @property
    def boots(self) -> tuple[Tally, ...]:
        """The boots that were asked anything, in order."""
        return tuple(tally for tally in (*self.before, self.tally) if tally.total)


class Build(Frozen):
    """The artefact that was tested: its kind, where it is or was, and a digest of all of it."""

    kind: str
    ref: str
    digest: str


class Seconds(Frozen):
    """Where the time of a trial went; ``fetch`` is the time waited for the build."""

    fetch: float = 0.0
    boot: float = 0.0
    probe: float = 0.0

    def plus(self, more: Seconds) -> Seconds:
        """Both together."""
        return Seconds(
            fetch=round(self.fetch + more.fetch, 3),
            boot=round(self.boot + more.boot, 3),
            probe=round(self.probe + more.probe, 3),
        )


class TrialSpec(Frozen):
    """Everything a trial depends on. ``earlier`` are observations of an interrupted try at it.

    ``context`` is what the search knows beside; it decides when enough was asked. ``reference`` is
    the kind of failure that is the bug as far as is known, ``failure`` a piece of its signature
    where the run was given one; of a suite ``bug`` is how the failing end fails. ``engine`` is the
    one that has to run, ``None`` where the release's own choice is as good. ``folder`` is where in
    the release's folder the evidence goes: a control's is kept apart.
    """

    version: str
    model: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    probe: NChoicesSettings | CommandSettings | SuiteSettings
    boot_timeout: float
    context: BootContext
    reference: str | None
    failure: str | None = None
    bug: Bug = frozenset()
    earlier: Partial
    run_dir: Path
    gpus: tuple[str, ...] = ()
    engine: str | None = None
    folder: str = ""

    @property
    def directory(self) -> Path:
        """Where the evidence of this trial goes."""
        return self.run_dir / "trials" / self.version / self.folder


class ParametersStatus(StrEnum):
    """Whether a server got the sampling parameters that were sent."""

    RECEIVED = "received"
    DIFFERENT = "different"
    NOT_FOUND = "not found in the log"


class ParametersSeen(Frozen):
    """The sampling parameters of a request as the server's log has them, beside what was sent.

    ``sentence`` says it in the words of a table: "received n=8", or "not found in the log".
    """

    status: ParametersStatus
    sentence: str
    sent: dict[str, Any] = {}
    received: dict[str, Any] = {}


class ControlRecord(Frozen):
    """What the control model came to in a release: the same request, another model.

    As in a trial's own record, ``observations`` and ``seconds`` are sums over its boots.
    """

    model: str
    outcome: Outcome
    reason: SkipReason | None = None
    detail: str | None = None
    signature: str | None = None
    failure_kind: FailureKind | None = None
    observations: Tally = Tally()
    boots: tuple[Tally, ...] = ()
    seconds: Seconds = Seconds()
    engine: str | None = None
    parameters: ParametersSeen | None = None
    variations: tuple[VariationRecord, ...] = ()

    def after(self, earlier: ControlRecord | None) -> ControlRecord:
        """This record taken together with that of the release's ``earlier`` trials."""
        if earlier is None:
            return self
        kept = earlier if self.outcome is Outcome.SKIP else self
        return kept.model_copy(
            update={
                "observations": earlier.observations.plus(self.observations),
                "boots": (*earlier.boots, *self.boots),
                "seconds": earlier.seconds.plus(self.seconds),
            }
        )


class TrialRecord(Frozen):
    """What the trials of a release came to.

    ``observations`` and ``seconds`` are sums over its boots, all else is of the last one that was
    no skip. ``boots`` holds the observations of each, in order; one that could not be tested has
    none. ``signatures`` has the usual signature of each kind of failure. ``was_there`` tells
    whether the build was on the host before, and ``earlier_run`` is the id of the run that carried
    it out before. ``engine`` is V0 or V1 where the log tells, ``engine_asked`` the one that had to
    run where that was not left to the release;
    ``size_bytes`` is that of the image, unpacked, where the engine tells.
    """

    version: str
    outcome: Outcome
    reason: SkipReason | None = None
    detail: str | None = None
    signature: str | None = None
    signatures: dict[str, str] = {}
    failure_kind: FailureKind | None = None
    observations: Tally = Tally()
    boots: tuple[Tally, ...] = ()
    reported_version: str | None = None
    build: Build | None = None
    was_there: bool | None = None
    seconds: Seconds = Seconds()
    measured: dict[str, Any] = {}
    engine: str | None = None
    engine_asked: str | None = None
    size_bytes: int | None = None
    parameters: ParametersSeen | None = None
    control: ControlRecord | None = None
    variations: tuple[VariationRecord, ...] = ()
    notes: tuple[str, ...] = ()
    earlier_run: str | None = None

    def counts_for(self, engine: str | None) -> bool:
        """Whether it is evidence about ``engine``; ``None``: about what releases run by themselves.

        A trial of another engine never is, whatever was asked for.
        """
        if engine is None:
            return self.engine_asked is None
        asked = self.engine_asked or (engine if engines_of(self.version) == (engine,) else None)
        if self.outcome is Outcome.SKIP:
            return asked == engine
        return (self.engine or asked) == engine

    def after(self, earlier: TrialRecord | None) -> TrialRecord:
        """This trial's record taken together with that of the release's ``earlier`` trials."""
        mine = self._boots
        if earlier is None:
            return self.model_copy(update={"boots": mine})
        # a boot that came to a skip counts for nothing; else the earlier sum stands
        before_this = Tally() if earlier.boots == (Tally(),) else earlier.observations
        again_skipped = self.outcome is Outcome.SKIP and bool(earlier.observations.total)
        kept = earlier if again_skipped else self
        before = {variation.name: variation for variation in earlier.variations}
        variations = () if again_skipped else self.variations
        passed = kept.outcome is Outcome.PASS
        notes = (*earlier.notes, *(note for note in self.notes if note not in earlier.notes))
        if self.outcome is Outcome.SKIP:
            notes += (f"Booted again, it could not be judged: {self.reason}: {self.detail}",)
        return kept.model_copy(
            update={
                "observations": reduce(Tally.plus, mine, before_this),
                "boots": (*earlier.boots, *mine),
                "signature": kept.signature or earlier.signature,
                "signatures": earlier.signatures | self.signatures,
                "was_there": earlier.was_there,
                "earlier_run": kept.earlier_run or earlier.earlier_run,
                "failure_kind": kept.failure_kind or earlier.failure_kind,
                "seconds": earlier.seconds.plus(self.seconds),
                "control": self.control.after(earlier.control) if self.control else earlier.control,
                "variations": tuple(v.after(before.get(v.name), passed=passed) for v in variations)
                or earlier.variations,
                "notes": notes,
            }
        )

    @property
    def ran(self) -> bool:
        """Whether a server of the release became ready: nothing that all need was missing then."""
        return self.reported_version is not None or self.observations.total > 0

    @property
    def _boots(self) -> tuple[Tally, ...]:
        """The boots of one trial; one that could not be tested counts for nothing."""
        if self.outcome is Outcome.SKIP and self.reason is not SkipReason.DIFFERENT_FAILURE:
            return (Tally(),)
        return self.boots or (self.observations,)

    def told_by(self, bug: str | None, judged: Outcome | None, words: str | None) -> TrialRecord:
        """The record as it stands where ``bug`` is the kind of failure that counts.

        ``judged`` is what the release counts as then; ``None`` while that is open. ``words`` say
        for people what the bug is.
        """
        if not any(boot.kinds for boot in self.boots):
            return self
        seen = self.observations.told_by(bug)
        told: dict[str, Any] = {
            "observations": seen,
            "boots": tuple(boot.told_by(bug) for boot in self.boots),
        }
        if judged in (Outcome.PASS, Outcome.FAIL):
            kind = bug if seen.fails else None
            told |= {"outcome": judged, "reason": None, "detail": None}
            told["signature"] = self.signatures.get(kind or "", self.signature) if kind else None
            told["failure_kind"] = FailureKind(kind) if kind in set(FailureKind) else None
        elif seen.total:
            kind = max(seen.kinds, key=lambda each: seen.kinds[each])
            shown = self.signatures.get(kind, self.signature)
            told |= {"outcome": Outcome.SKIP, "reason": SkipReason.DIFFERENT_FAILURE}
            told |= {
                "signature": shown,
                "failure_kind": None,
                "detail": _otherwise(shown, kind, words),
            }
        return self.model_copy(update=told)


def _otherwise(shown: str | None, kind: str, bug: str | None) -> str:
    """Why failures of this ``kind`` say nothing of the ``bug``, which is told in words."""
    if kind == CRASHED and bug is None:
        return f"{shown}; one crash may have any cause"
    return another_failure(shown, bug)


def another_failure(shown: str | None, bug: str | None) -> str:
    """What was seen where that is not the ``bug``, which is told in words as far as is known."""
    return f"{shown}; the bug is another failure" + (f" ({bug})" if bug else "")


class EngineChoice(Frozen):
    """A decision of the run: its trials are to run ``engine``, ``None``: each release's own.

    Until it is ``settled`` that is to find out what ``version``, the older end, does with it.
    """

    engine: Literal["V0", "V1"] | None = None
    version: str
    settled: bool = False
    text: str


class Status(StrEnum):
    """How a run ended; each has one exit code."""

    FOUND = "found"
    NONE = "none"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def exit_code(self) -> int:
        """The documented exit code of ``vbisect run``."""
        return _EXIT_CODES[self]

    @property
    def resumable(self) -> bool:
        """Whether ``--resume`` goes on with a run that ended so."""
        return self in (Status.INTERRUPTED, Status.FAILED)


_EXIT_CODES = {
    Status.FOUND: 0,
    Status.NONE: 1,
    Status.INCONCLUSIVE: 3,
    Status.FAILED: 4,
    Status.INTERRUPTED: 130,
}


class Answer(Frozen):
    """A boundary: the change is in one of ``suspects``; ``exact`` when that is one release.

    ``confidence`` is the probability that it is in one of them.
    """

    change: Change
    last_before: str
    first_after: str
    exact: bool
    suspects: tuple[str, ...]
    confidence: float = Field(ge=-0.001, le=1.001)  # a sum of shares

    @property
    def shown_confidence(self) -> str:
        """The confidence for people, rounded down: nothing is said to be surer than it is."""
        return f"{int(self.confidence * 1000 + 1e-9) / 1000:.3f}"


class Finding(Frozen):
    """How a run ended. ``answer`` is the change asked for, ``changes`` every one that was seen.

    ``excluded`` is what "no change" rules out: a bug that shows in at least these shares.
    """

    status: Status
    message: str
    answer: Answer | None = None
    changes: tuple[Answer, ...] = ()
    tested_from: str | None = None
    tested_to: str | None = None
    warnings: tuple[str, ...] = ()
    excluded: dict[str, float] | None = None

    @property
    def is_guess(self) -> bool:
        """Whether the answer is less narrow than any change that was seen."""
        return self.answer is not None and self.answer not in self.changes

    @property
    def told(self) -> tuple[Answer, ...]:
        """The changes as they may be told: a less narrow answer takes its change's place."""
        if self.answer is None or not self.is_guess:
            return self.changes
        same = [i for i, each in enumerate(self.changes) if each.change is self.answer.change]
        at = same[-1] if same else len(self.changes)
        return (*self.changes[:at], self.answer, *self.changes[at + 1 :])
