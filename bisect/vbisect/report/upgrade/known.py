"""Each change a run saw, with how sure that is: one unsure change takes nothing from another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from vbisect.reasons import SkipReason
from vbisect.run.answer import reckoned
from vbisect.run.records import Answer, Status, Tally
from vbisect.run.state import RunState
from vbisect.search import Change, Outcome

_NAMED = 6
"""As many releases are named one by one; of more only the number is told."""


class Certainty(StrEnum):
    """How far a change is pinned down."""

    SURE = "sure"
    ONE_OF_SEVERAL = "in one of several releases"
    PROBABLE = "probable"


@dataclass(frozen=True)
class Evidence:
    """What was seen of a tested release, over all its boots."""

    version: str
    outcome: Outcome
    observations: Tally
    boots: int

    def __str__(self) -> str:
        seen = self.observations
        bad = self.outcome is Outcome.FAIL
        count, verb = (seen.fails, "failed") if bad else (seen.passes, "passed")
        boots = f"{self.boots} boot{'' if self.boots == 1 else 's'}"
        other = f" ({seen.other} more in another way)" if bad and seen.other else ""
        return f"{self.version} {verb} {count} of {seen.total} observations in {boots}{other}"


@dataclass(frozen=True)
class KnownChange:
    """A change between ``last_before`` and ``first_after``, both tested.

    ``sentence`` says where it is no surer than that is known; ``why`` is what it rests on.
    """

    change: Change
    last_before: str
    first_after: str
    suspects: tuple[str, ...]
    confidence: float
    certainty: Certainty
    sentence: str
    why: tuple[str, ...]

    @property
    def is_fix(self) -> bool:
        """Whether what failed before passes after it."""
        return self.change is Change.FIX


def known_changes(state: RunState) -> tuple[KnownChange, ...]:
    """Every change that the run's finding names, oldest first."""
    finding = state.finding
    if finding is None:
        return ()
    unsettled = finding.is_guess and finding.status is Status.INCONCLUSIVE
    return tuple(_known(state, each, unsettled and each is finding.answer) for each in finding.told)


def evidence(state: RunState, version: str) -> Evidence:
    """What was seen of ``version``, which was tested."""
    record = state.records[version]
    boots = sum(boot.total > 0 for boot in record.boots) or 1
    return Evidence(version, record.outcome, record.observations, boots)


def named(versions: tuple[str, ...] | list[str]) -> str:
    """Releases in words: all of them, or the first and last with their number."""
    if len(versions) <= _NAMED:
        return ", ".join(versions)
    return f"{versions[0]} … {versions[-1]} ({len(versions)} releases)"


def _known(state: RunState, answer: Answer, unsettled: bool) -> KnownChange:
    asked = state.settings.confidence
    if unsettled or answer.confidence < asked:
        certainty = Certainty.PROBABLE
    elif not answer.exact:
        certainty = Certainty.ONE_OF_SEVERAL
    else:
        certainty = Certainty.SURE
    return KnownChange(
        change=answer.change,
        last_before=answer.last_before,
        first_after=answer.first_after,
        suspects=answer.suspects,
        confidence=answer.confidence,
        certainty=certainty,
        sentence=_sentence(state, answer, certainty),
        why=tuple(_why(state, answer, certainty)),
    )


def _sentence(state: RunState, answer: Answer, certainty: Certainty) -> str:
    fix = answer.change is Change.FIX
    verb = "fixed" if fix else "broken"
    hedge = "probably " if certainty is Certainty.PROBABLE else ""
    if answer.exact:
        last = f"{reckoned(state, answer)} the last {'failing' if fix else 'passing'} release"
        return f"{hedge}{verb} in {answer.first_after}; {answer.last_before} {last}"
    where = f"{hedge}{verb} in one of {named(answer.suspects)}"
    if fix:
        known = "likely" if hedge else "known"
        return f"{where}; {answer.first_after} is the earliest that is {known} to be"
    return f"{where}; {answer.last_before} {reckoned(state, answer)} the last that passes"


def _why(state: RunState, answer: Answer, certainty: Certainty) -> list[str]:
    told = [
        f"{evidence(state, version)}."
        for version in (answer.last_before, answer.first_after)
        if version in state.records
    ]
    if (between := _not_tested(state, answer)) is not None:
        told.append(between)
    asked = state.settings.confidence
    if answer.confidence >= asked and certainty is not Certainty.PROBABLE:
        told.append(f"Confidence {answer.shown_confidence}.")
    elif not answer.exact:
        told.append(f"No single release reaches the confidence of {asked:g} that was asked for.")
    else:
        told.append(f"Confidence {answer.shown_confidence}, below the {asked:g} asked for.")
    return told


def _not_tested(state: RunState, answer: Answer) -> str | None:
    """Why releases between the two sides are suspects too."""
    versions = state.settings.versions
    low, high = versions.index(answer.last_before), versions.index(answer.first_after)
    why: dict[str, str] = {}
    for version in versions[low + 1 : high]:
        record = state.records.get(version)
        if version in state.settings.excluded:
            why[version] = "left out with --skip"
        elif record is None:
            why[version] = "not tested"
        elif record.outcome is Outcome.SKIP:
            otherwise = record.reason is SkipReason.DIFFERENT_FAILURE
            why[version] = (
                "failed in another way" if otherwise else f"not testable: {record.reason}"
            )
    if not why:
        return None
    counts = Counter(why.values())
    reasons = ", ".join(
        reason if len(counts) == 1 else f"{number} {reason}"
        for reason, number in counts.most_common()
    )
    return f"Nothing is known of {named([*why])} ({reasons})."
