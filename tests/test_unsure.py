"""What is said where the releases flake: never more than what was seen makes likely."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from made import failed, passed, releases, settings
from vbisect.report.comment import to_comment
from vbisect.report.markdown import to_markdown
from vbisect.report.upgrade.known import known_changes
from vbisect.run.answer import finding_of
from vbisect.run.records import Finding, Status, TrialRecord
from vbisect.run.state import RunState
from vbisect.search import Change, Counts, Find, Outcome, boot_context, judge_boot, next_picks

ALIKE = [0.05] * 5
"""Every release fails in one of twenty requests: there is no change."""

FLAKY_BREAKS = ([0, 0, 0.3, 0.3], [0.02, 0.02, 0.02, 0.2, 0.2], [0.05, 1.0, 0.05], [0.05, 1.0, 1.0])
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "fix": {"find": Find.FIX},
    "find-all": {"find_all": True},
    "find-all fix": {"find_all": True, "find": Find.FIX},
    "sweep": {"sweep": True},
}


def record(version: str, seen: Counts, outcome: Outcome) -> TrialRecord:
    """A boot that came to this."""
    if outcome is Outcome.PASS and not seen.fails:
        return passed(version, seen.passes)
    made = failed(version, "returned 1 of 8 choices", seen.fails, seen.passes)
    return made.model_copy(update={"outcome": outcome})


def run(rates: Sequence[float], seed: int, **mode: Any) -> RunState:
    """A whole run over releases that fail in this share of their requests."""
    versions = [f"1.{number}" for number in range(len(rates))]
    dice = random.Random(seed)
    state = RunState(settings(candidates=releases(versions), **mode))
    while picks := next_picks(state.aim, state.seen()):
        context, passes, fails, outcome = (
            boot_context(state.aim, state.seen(), picks[0]),
            0,
            0,
            None,
        )
        while outcome is None:
            failing = dice.random() < rates[picks[0]]
            passes, fails = passes + (not failing), fails + failing
            outcome = judge_boot(Counts(passes, fails), context)
        version = versions[picks[0]]
        made = record(version, Counts(passes, fails), outcome)
        state.records[version] = made.after(state.records.get(version))
    state.finding = finding_of(state)
    return state


def finding(state: RunState) -> Finding:
    """What it came to."""
    assert state.finding is not None
    return state.finding


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(8))
def test_releases_that_flake_alike_are_not_said_to_differ(mode: str, seed: int) -> None:
    """What a change is called probable for is likelier than not, and this hardly ever is."""
    state = run(ALIKE, seed, **MODES[mode])
    found = finding(state)
    for change in [*found.told, *known_changes(state)]:
        assert change.confidence >= 0.5
    if found.answer is None:
        assert "probably" not in found.message
        assert "robably" not in to_markdown(state)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rates", FLAKY_BREAKS)
@pytest.mark.parametrize("seed", range(4))
def test_no_change_that_was_seen_is_lost_or_bent(
    mode: str, rates: list[float], seed: int, tmp_path: Path
) -> None:
    """Of several changes each keeps its place; what is unsure of one is said of that one."""
    state = run(rates, seed, **MODES[mode])
    found = finding(state)
    if MODES[mode].keys() & {"find_all", "sweep"}:
        assert found.told == found.changes
        assert found.answer is None or found.answer in found.changes
    if found.answer is not None:
        assert state.settings.find.wants(found.answer.change)
        assert found.answer.exact == (len(found.answer.suspects) == 1)
        assert found.answer.confidence >= 0.5
        assert "in one of 1" not in to_comment(state, tmp_path).body
        before = state.records[found.answer.last_before].outcome
        fails = found.answer.change is Change.FIX
        if (before is Outcome.FAIL) != fails:
            assert "is the last" not in found.message
    elif found.status is Status.INCONCLUSIVE:
        assert (
            "allows no answer" in found.message
            or "is not sure" in found.message
            or ("cannot come from one change" in found.message)
        )


def test_a_change_of_the_other_kind_is_told_beside_the_doubt() -> None:
    """It is sure that it breaks; whether the flaky release at the end is a fix is not."""
    versions = ["1.0", "1.1", "1.2"]
    seen = {"1.0": Counts(124, 8), "1.1": Counts(0, 5), "1.2": Counts(0, 3)}
    state = RunState(settings(candidates=releases(versions), find_all=True, find=Find.FIX))
    for version, counts in seen.items():
        outcome = Outcome.FAIL if not counts.passes else Outcome.PASS
        one = record(version, counts, outcome)
        state.records[version] = one.after(None)
    found = finding_of(state)
    assert found.answer is None
    assert [change.change for change in found.changes] == [Change.BREAK]
    assert (found.status, found.message) == (
        Status.INCONCLUSIVE,
        "whether there is a fix in range is not sure: it passes in 1.0 and fails in 1.1",
    )
