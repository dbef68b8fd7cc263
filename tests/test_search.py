"""The search over arbitrary outcomes: it ends, wastes nothing, and never names a wrong release."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from vbisect.search import (
    Change,
    Find,
    Outcome,
    Verdict,
    conclude,
    expected_trials,
    likely_next,
    next_pick,
    remaining_range,
)

P, F, S = Outcome.PASS, Outcome.FAIL, Outcome.SKIP
Worlds = st.lists(st.sampled_from([P, F, S]), min_size=2, max_size=200)
"""What every candidate would come to if it were tested."""


@st.composite
def single_change(draw: st.DrawFn, skips: bool = True) -> tuple[list[Outcome], int]:
    """A world with one change, and the index of the first candidate after it."""
    count = draw(st.integers(2, 200))
    at = draw(st.integers(1, count - 1))
    before, after = draw(st.sampled_from([(F, P), (P, F)]))
    world = [before] * at + [after] * (count - at)
    if skips:
        for index in draw(st.sets(st.integers(0, count - 1), max_size=count)):
            world[index] = S
    return world, at


def search(
    world: Sequence[Outcome],
    known: dict[int, Outcome] | None = None,
    *,
    find: Find = Find.AUTO,
    sweep: bool = False,
) -> list[dict[int, Outcome]]:
    """The outcomes known before each pick and after the last one; no release is picked twice."""
    outcomes = dict(known or {})
    history = [dict(outcomes)]
    while (pick := next_pick(len(world), outcomes, find=find, sweep=sweep)) is not None:
        assert 0 <= pick < len(world)
        assert pick not in outcomes, "a release was picked twice"
        outcomes[pick] = world[pick]
        history.append(dict(outcomes))
    return history


@given(Worlds, st.sampled_from(Find), st.booleans())
def test_a_search_ends_and_never_names_a_wrong_release(
    world: list[Outcome], find: Find, sweep: bool
) -> None:
    """Every boundary lies between tested candidates that really differ in the way it says."""
    outcomes = search(world, find=find, sweep=sweep)[-1]
    conclusion = conclude(len(world), outcomes, find=find)
    for boundary in conclusion.boundaries:
        sides = (F, P) if boundary.change is Change.FIX else (P, F)
        assert (world[boundary.last_before], world[boundary.first_after]) == sides
        assert {boundary.last_before, boundary.first_after} <= outcomes.keys()
        assert boundary.suspects == tuple(range(boundary.last_before + 1, boundary.first_after + 1))
        assert boundary.exact == (boundary.first_after - boundary.last_before == 1)
    wanted = [b for b in conclusion.boundaries if find.wants(b.change)]
    assert (conclusion.verdict is Verdict.FOUND) == bool(wanted)
    if wanted and next_pick(len(world), outcomes, find=find) is None and not sweep:
        newest = conclusion.boundaries[-1]
        between = range(newest.last_before + 1, newest.first_after)
        assert all(world[index] is S for index in between), "an untested release was answered for"


@given(single_change())
def test_the_suspects_cover_a_single_change(case: tuple[list[Outcome], int]) -> None:
    """With one change, skips widen the answer and never move it off the truth."""
    world, at = case
    conclusion = conclude(len(world), search(world)[-1])
    kinds = {outcome for outcome in world if outcome is not S}
    assert (conclusion.verdict is Verdict.FOUND) == (len(kinds) == 2)
    if len(kinds) == 2:
        (boundary,) = conclusion.boundaries
        assert at in boundary.suspects
        assert boundary.change is (Change.FIX if F in world[:at] else Change.BREAK)
    elif sum(outcome is not S for outcome in world) >= 2:
        assert conclusion.verdict is Verdict.NO_CHANGE
    else:
        assert conclusion.verdict is Verdict.TOO_FEW


@given(single_change(skips=False))
def test_an_unskipped_search_is_logarithmic_and_exact(case: tuple[list[Outcome], int]) -> None:
    """Both ends and one halving after the other, down to the release itself."""
    world, at = case
    history = search(world)
    assert len(history[-1]) <= math.ceil(math.log2(len(world))) + 2
    (boundary,) = conclude(len(world), history[-1]).boundaries
    assert boundary.exact
    assert boundary.first_after == at


@given(st.integers(2, 200), st.sampled_from([P, F]))
def test_ends_that_agree_cost_two_trials(count: int, outcome: Outcome) -> None:
    """Where nothing changes, the two ends are all that is started."""
    outcomes = search([outcome] * count)[-1]
    assert outcomes == {0: outcome, count - 1: outcome}
    assert conclude(count, outcomes).verdict is Verdict.NO_CHANGE
    assert remaining_range(count, outcomes) is None


@given(Worlds, st.sampled_from(Find))
def test_a_sweep_tests_everything_and_reports_every_boundary(
    world: list[Outcome], find: Find
) -> None:
    """A sweep leaves nothing out, whatever is looked for."""
    outcomes = search(world, find=find, sweep=True)[-1]
    assert outcomes == dict(enumerate(world))
    testable = [index for index, outcome in enumerate(world) if outcome is not S]
    changes = [(a, b) for a, b in pairwise(testable) if world[a] is not world[b]]
    found = conclude(len(world), outcomes, find=find).boundaries
    assert [(b.last_before, b.first_after) for b in found] == changes


@given(Worlds)
def test_skipped_ends_move_inward_to_the_nearest_testable(world: list[Outcome]) -> None:
    """The ends of a search are the outermost releases that can be tested."""
    outcomes = search(world)[-1]
    ends = conclude(len(world), outcomes).ends
    testable = [index for index, outcome in enumerate(world) if outcome is not S]
    if not testable:
        assert ends is None
        assert outcomes.keys() == set(range(len(world)))
        return
    assert ends is not None
    assert (ends.low, ends.high) == (testable[0], testable[-1])
    assert outcomes.keys() >= set(range(ends.low + 1)) | set(range(ends.high, len(world)))


@given(single_change(skips=False), st.sampled_from([Find.FIX, Find.BREAK]))
def test_a_change_the_other_way_round_ends_the_search(
    case: tuple[list[Outcome], int], find: Find
) -> None:
    """Looking for a fix in a range that breaks takes two trials, and is no answer."""
    world, at = case
    outcomes = search(world, find=find)[-1]
    conclusion = conclude(len(world), outcomes, find=find)
    if (world[0] is F) == (find is Find.FIX):
        assert conclusion.verdict is Verdict.FOUND
        assert conclusion.boundaries[-1].first_after == at
    else:
        assert len(outcomes) == 2
        assert conclusion.verdict is Verdict.OTHER_CHANGE


@given(Worlds, st.sampled_from(Find), st.booleans())
def test_the_likely_next_picks_hold_the_real_one(
    world: list[Outcome], find: Find, sweep: bool
) -> None:
    """Whatever a trial comes to, what is tested after it was foreseen, each pick once."""
    count = len(world)
    history = search(world, find=find, sweep=sweep)
    for before, after in list(pairwise(history))[:20]:
        (pick,) = after.keys() - before.keys()
        likely = likely_next(count, before, pick, find=find, sweep=sweep)
        assert len(set(likely)) == len(likely) <= 3
        for outcome in Outcome:
            real = next_pick(count, {**before, pick: outcome}, find=find, sweep=sweep)
            assert real is None or real in likely


@given(Worlds, st.booleans())
@example([F, F, S, F, S, F, S, P], False)  # one release between every two skips
@example([F, F, F, F, S, F, F, S, F, P], False)  # stretches of unequal length
def test_expected_trials_bounds_what_follows(world: list[Outcome], sweep: bool) -> None:
    """Once the known skips are out of the way, no more trials follow than were announced."""
    known = {index: S for index, outcome in enumerate(world) if outcome is S}
    history = search(world, known, sweep=sweep)
    for done, outcomes in enumerate(history):
        left = len(history) - 1 - done
        assert left <= expected_trials(len(world), outcomes, sweep=sweep)


@given(single_change(skips=False))
def test_expected_trials_is_not_idle(case: tuple[list[Outcome], int]) -> None:
    """With nothing skipped the announcement is at most one trial above what is needed."""
    world, _ = case
    assert expected_trials(len(world), {}) <= math.ceil(math.log2(len(world))) + 2
    assert expected_trials(len(world), search(world)[-1]) == 0


@given(single_change())
def test_the_remaining_range_contains_the_boundary(case: tuple[list[Outcome], int]) -> None:
    """What is left to search always holds the change, and only shrinks."""
    world, at = case
    if {P, F} - set(world):
        return
    spans = [remaining_range(len(world), outcomes) for outcomes in search(world)]
    for wide, narrow in pairwise(spans):
        assert wide is not None
        assert narrow is not None
        assert wide[0] <= narrow[0] < at <= narrow[1] <= wide[1]


def test_of_several_changes_the_newest_is_pinned_down() -> None:
    """A run over known outcomes goes on where the newest change is."""
    known = {0: F, 10: P, 20: F, 30: P}
    picked = search([F] * 5 + [P] * 10 + [F] * 10 + [P] * 6, known)[-1].keys() - known.keys()
    assert picked
    assert all(20 < index < 30 for index in picked)


def test_nothing_testable_is_too_few() -> None:
    """Without two testable releases there is no answer, only the end of the search."""
    for world in ([S, S, S], [S, F, S]):
        outcomes = search(world)[-1]
        assert conclude(3, outcomes).verdict is Verdict.TOO_FEW
        assert expected_trials(3, outcomes) == 0
    assert remaining_range(3, {0: S, 1: S, 2: S}) is None
