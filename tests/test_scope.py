"""Whose bug it is follows from the records of both models, and is said only where it does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made import VERSIONS, settings, state
from vbisect.probes import FailureKind
from vbisect.reasons import SkipReason
from vbisect.run.answer import finding_of
from vbisect.run.records import ControlRecord, Tally, TrialRecord
from vbisect.run.scope import Scope, scope_of
from vbisect.run.state import RunState
from vbisect.search import Outcome

KINDS = [FailureKind.CHOICES_MISSING, FailureKind.CRASHED]


def came_to(outcome: Outcome, kind: FailureKind, fails: int = 5, passes: int = 0) -> dict[str, Any]:
    """What a record of this outcome holds; a pass was asked often enough for 0.95."""
    if outcome is Outcome.PASS:
        return {"outcome": outcome, "observations": Tally(passes=18)}
    if outcome is Outcome.SKIP:
        return {"outcome": outcome, "reason": SkipReason.MODEL_NOT_SUPPORTED, "detail": "no"}
    seen = Tally(passes=passes, fails=fails)
    return {"outcome": outcome, "observations": seen, "failure_kind": kind, "signature": str(kind)}


def run_of(trials: dict[str, tuple[dict[str, Any], dict[str, Any] | None]]) -> RunState:
    """A finished run with a control, of these trials."""
    records = {
        version: TrialRecord(
            version=version,
            **model,
            boots=(model.get("observations", Tally()),),
            control=ControlRecord(model="other", **control) if control else None,
        )
        for version, (model, control) in trials.items()
    }
    made = RunState(settings(control_model="other"), records=records)
    made.finding = finding_of(made)
    return made


def scope(models: str, controls: str, kinds: str = "") -> tuple[Scope, str]:
    """The scope of a run: p, f, s or - for each release; x a failure of another kind."""
    letters = {"p": Outcome.PASS, "f": Outcome.FAIL, "x": Outcome.FAIL, "s": Outcome.SKIP}
    trials = {
        version: (
            came_to(letters[model], KINDS[0]),
            came_to(letters[control], KINDS[control == "x"]) if control != "-" else None,
        )
        for version, model, control in zip(VERSIONS, models, controls, strict=True)
        if model != "-"
    }
    found = scope_of(run_of(trials))
    assert found is not None
    return found.scope, found.message


@pytest.mark.parametrize(
    ("models", "controls", "expected"),
    [
        ("ffppp", "ppppp", Scope.MODEL),
        ("ffppp", "sp--s", Scope.MODEL),  # one failing release with both is enough
        ("pppff", "ppppp", Scope.MODEL),
        ("ffppp", "ffppp", Scope.EVERYONE),
        ("fffff", "fffff", Scope.EVERYONE),
        ("ffppp", "fppp-", Scope.DIFFERENT),
        ("ffppp", "fffpp", Scope.DIFFERENT),
        ("ffppp", "xxppp", Scope.DIFFERENT),
        ("ffppp", "ppfff", Scope.DIFFERENT),
        ("ppppp", "ffppp", Scope.DIFFERENT),
        ("ffppp", "fsppp", Scope.UNKNOWN),  # the last failing release was not tested with both
        ("ffppp", "fs--p", Scope.UNKNOWN),
        ("ffppp", "ssppp", Scope.UNKNOWN),
        ("ffppp", "-----", Scope.UNKNOWN),
        ("sssss", "pppff", Scope.UNKNOWN),
        ("ppppp", "ppppp", Scope.UNKNOWN),
    ],
)
def test_whose_bug_it_is(models: str, controls: str, expected: Scope) -> None:
    assert scope(models, controls)[0] is expected


def test_a_control_that_was_asked_too_seldom_says_nothing() -> None:
    """The model fails in one of a hundred requests; eighteen passes of another prove nothing."""
    rare = came_to(Outcome.FAIL, KINDS[0], fails=1, passes=99)
    clean = came_to(Outcome.PASS, KINDS[0])
    found = scope_of(run_of({v: (rare if v < "0.29" else clean, clean) for v in VERSIONS}))
    assert found is not None
    assert found.scope is Scope.UNKNOWN
    assert "not have been asked often enough" in found.message


def test_where_both_change_has_to_be_known() -> None:
    """A run that was killed has found no change that could be compared."""
    fail, clean = came_to(Outcome.FAIL, KINDS[0]), came_to(Outcome.PASS, KINDS[0])
    killed = run_of({"0.27.1": (fail, fail), "0.29.0": (clean, clean)})
    killed.finding = None
    found = scope_of(killed)
    assert found is not None
    assert found.scope is Scope.UNKNOWN


def test_without_a_control_there_is_nothing_to_say() -> None:
    assert scope_of(state()) is None


OUTCOMES = st.sampled_from("pfs")
MAYBE = st.sampled_from("pfsx-")


@given(st.lists(st.tuples(OUTCOMES, MAYBE), min_size=5, max_size=5))
def test_no_more_is_said_than_was_seen(trials: list[tuple[str, str]]) -> None:
    models, controls = ("".join(letters) for letters in zip(*trials, strict=True))
    found, message = scope(models, controls)
    both = [(m, c) for m, c in trials if m != "s" and c not in "s-"]
    if found is Scope.MODEL:
        assert ("f", "p") in both
        assert not {("p", "f"), ("f", "f"), ("p", "x"), ("f", "x")} & {*both}
    elif found is Scope.EVERYONE:
        assert ("f", "f") in both
        assert {*both} <= {("f", "f"), ("p", "p")}
    elif found is Scope.DIFFERENT:
        assert {("p", "f"), ("p", "x"), ("f", "x")} & {*both} or {
            ("f", "p"),
            ("f", "f"),
        } <= {*both}
    if not both:
        assert found is Scope.UNKNOWN
    assert message
