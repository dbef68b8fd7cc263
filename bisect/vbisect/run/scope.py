"""Whose bug it is: the model's own or every model's, read from the records of both.

Only releases count in which both were tested. Whatever they leave open is said to be open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from vbisect.probes import SuiteSettings
from vbisect.run.records import ControlRecord, TrialRecord
from vbisect.run.state import RunState
from vbisect.run.variations import bug_of
from vbisect.search import Outcome, passes_to_show, rarest

_MOST_NAMED = 6
"""Releases named one by one in a sentence."""


class Scope(StrEnum):
    """Which models the change of the answer concerns."""

    MODEL = "model"
    """It fails with the model, and passes with the control."""
    EVERYONE = "everyone"
    """It fails with both in the same way, in the same releases."""
    DIFFERENT = "different"
    """The control fails as well, but otherwise or elsewhere."""
    UNKNOWN = "unknown"
    """The releases tested do not tell."""


@dataclass(frozen=True)
class ScopeFound:
    """The scope, and the sentence that says what it was read from."""

    scope: Scope
    message: str


@dataclass(frozen=True)
class _Pair:
    """A release in which both were judged."""

    version: str
    model: TrialRecord
    control: ControlRecord


def scope_of(state: RunState) -> ScopeFound | None:
    """Whose bug it is, by the records of ``state``; ``None`` for a run without a control."""
    settings = state.settings
    if settings.control_model is None:
        return None
    records = [state.records[v] for v in settings.versions if v in state.records]
    failing = [r for r in records if r.outcome is Outcome.FAIL and r.observations.fails]
    pairs = [
        _Pair(r.version, r, r.control)
        for r in records
        if r.control is not None and Outcome.SKIP not in (r.outcome, r.control.outcome)
    ]
    bad = [p for p in pairs if p.model in failing]
    good = [p for p in pairs if p.model.outcome is Outcome.PASS]
    elsewhere = [p for p in good if p.control.outcome is Outcome.FAIL]
    if not failing:
        return _without_failure(settings.model, settings.control_model, pairs, elsewhere)
    if not bad:
        return _unknown(f"no release that fails with {settings.model} could be tested with both")
    clean = [p for p in bad if p.control.outcome is Outcome.PASS]
    if len(clean) == len(bad) and not elsewhere:
        return _only_the_model(state, failing, bad)
    if any(p.model.observations.fails for p in good):
        return _unknown(
            "releases that pass fail now and then as well, so the failures of "
            f"{settings.control_model} cannot be told from that"
        )
    if clean or elsewhere:
        return _elsewhere(state, bad, elsewhere)
    other = [p for p in bad if not _alike(p, settings.suite)]
    if other:
        return ScopeFound(
            Scope.DIFFERENT,
            f"{settings.control_model} fails otherwise than {settings.model} in "
            f"{_listed(other)}: {other[0].control.signature}",
        )
    return _everyone(state, bad, good)


def _alike(pair: _Pair, suite: SuiteSettings | None) -> bool:
    """Whether both fail in the same way; of a suite, in one of the same variations."""
    if suite is None:
        return pair.control.failure_kind is pair.model.failure_kind
    return bool(bug_of(pair.control, suite) & bug_of(pair.model, suite))


def _without_failure(
    model: str, control: str, pairs: Sequence[_Pair], elsewhere: Sequence[_Pair]
) -> ScopeFound:
    if elsewhere:
        return ScopeFound(
            Scope.DIFFERENT,
            f"{control} fails in {_listed(elsewhere)}, where {model} passes: "
            f"{elsewhere[0].control.signature}",
        )
    passes = f"{model} fails in no release that was tested"
    if pairs:
        passes += f", and neither does {control} in {_listed(pairs)}"
    return _unknown(passes)


def _only_the_model(
    state: RunState, failing: Sequence[TrialRecord], bad: Sequence[_Pair]
) -> ScopeFound:
    settings = state.settings
    rate = rarest(record.observations.counts for record in failing)
    needed = passes_to_show(rate, settings.confidence)
    sure = [p for p in bad if p.control.observations.passes >= needed]
    if not sure:
        return _unknown(
            f"{settings.control_model} passes in {_listed(bad)}, but {settings.model} fails so "
            "rarely that it may not have been asked often enough"
        )
    return ScopeFound(
        Scope.MODEL,
        f"fails with {settings.model}, passes with {settings.control_model}, in {_listed(sure)}",
    )


def _elsewhere(state: RunState, bad: Sequence[_Pair], elsewhere: Sequence[_Pair]) -> ScopeFound:
    """The control fails in other releases than the model."""
    model, control = state.settings.model, state.settings.control_model
    failing = [p for p in (*bad, *elsewhere) if p.control.outcome is Outcome.FAIL]
    order = state.settings.versions.index
    failing.sort(key=lambda pair: order(pair.version))
    return ScopeFound(
        Scope.DIFFERENT,
        f"of the releases tested with both, {control} fails in {_listed(failing)} and {model} in "
        f"{_listed(bad)}",
    )


def _everyone(state: RunState, bad: Sequence[_Pair], good: Sequence[_Pair]) -> ScopeFound:
    """Both fail alike wherever both were tested; a change has to be seen with both as well."""
    model, control = state.settings.model, state.settings.control_model
    finding = state.finding
    changes = finding.changes if finding else ()
    answer = finding.answer if finding else None
    known = {p.version for p in (*bad, *good)}
    borders = [v for c in (*changes, answer) if c for v in (c.last_before, c.first_after)]
    untested = [v for v in dict.fromkeys(borders) if v not in known]
    passing = [r for r in state.records.values() if r.outcome is Outcome.PASS]
    alike = f"fails with {model} and with {control} in {_listed(bad)}"
    if untested:
        return _unknown(
            f"it {alike}, but {control} could not be tested in {', '.join(untested)}, so its "
            "change may be another one"
        )
    if passing and not borders:
        return _unknown(f"it {alike}, but where that changes is not known")
    same = f", and passes with both in {_listed(good)}" if good else ""
    return ScopeFound(Scope.EVERYONE, alike + same)


def _unknown(why: str) -> ScopeFound:
    return ScopeFound(Scope.UNKNOWN, why)


def _listed(pairs: Sequence[_Pair]) -> str:
    versions = [pair.version for pair in pairs]
    if len(versions) > _MOST_NAMED:
        return f"{len(versions)} releases from {versions[0]} to {versions[-1]}"
    return ", ".join(versions)
