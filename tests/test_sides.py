"""Several changes among releases that flake: none is made up, and none is hidden."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vbisect.search import (
    Aim,
    Change,
    Counts,
    Find,
    Outcome,
    Seen,
    Verdict,
    conclude_seen,
    is_over,
    next_picks,
)
from vbisect.search.several import Sides
from vbisect.simulate import DeclaredChange, Mode, Status, Vbisect, World, simulate

P, F, S = Outcome.PASS, Outcome.FAIL, Outcome.SKIP
EACH = (Mode(sweep=True), Mode(find_all=True))
Boots = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=3)


def seen_of(boots: dict[int, list[tuple[int, int]]]) -> Seen:
    """Releases by their boots, each as passes and fails; one that failed at all is a fail."""
    counts = {index: tuple(Counts(*boot) for boot in kept) for index, kept in boots.items()}
    outcomes = {
        index: F if any(boot.fails for boot in kept) else P for index, kept in counts.items()
    }
    return Seen(outcomes, counts)


def test_a_good_release_that_failed_once_does_not_hide_the_change_beside_it() -> None:
    """Broken in 4; 3 failed one request of 18, and was recorded as failing."""
    good, once, bad = [(36, 0), (36, 0)], [(35, 1), (60, 0)], [(0, 5), (0, 5), (0, 5)]
    seen = seen_of({0: good, 1: good, 2: good, 3: once, 4: bad, 5: bad})
    found = conclude_seen(Aim(6, sweep=True), seen)
    assert [boundary.first_after for boundary in found.boundaries] == [4]
    assert found.verdict is Verdict.FOUND


def test_a_release_in_doubt_is_booted_again_before_anything_is_said() -> None:
    """Nothing changed yet, and one release failed once: it may be bad."""
    boots = {index: [(18, 0)] for index in range(6)} | {3: [(17, 1)]}
    aim, seen = Aim(6, sweep=True), seen_of(boots)
    assert next_picks(aim, seen) == (3,)
    assert not is_over(aim, seen)
    clean = [(18, 0), (60, 0), (60, 0)]
    again = seen_of(boots | {0: clean, 3: [(17, 1), *clean], 5: clean})
    assert is_over(aim, again)
    assert conclude_seen(aim, again).verdict is Verdict.NO_CHANGE


def test_who_never_failed_is_good_and_who_never_passed_is_bad() -> None:
    """However the others do."""
    rng = random.Random(3)
    for _ in range(200):
        boots = {i: [(rng.randrange(6), rng.randrange(6))] for i in range(8)}
        boots |= {2: [(3, 0)], 5: [(0, 2)]}
        outcomes = Sides(Aim(8, sweep=True), seen_of(boots)).outcomes
        assert (outcomes[2], outcomes[5]) == (P, F)


@given(st.dictionaries(st.integers(0, 7), Boots, min_size=1), st.booleans())
def test_whatever_was_seen_each_release_has_one_side_and_a_doubt(
    boots: dict[int, list[tuple[int, int]]], skip: bool
) -> None:
    aim = Aim(9, sweep=True)
    seen = seen_of(boots)
    seen = replace(seen, outcomes={**seen.outcomes, 8: S}) if skip else seen
    sides = Sides(aim, seen)
    assert sides.outcomes.keys() == seen.outcomes.keys()
    assert [i for i, o in sides.outcomes.items() if o is S] == [8] * skip
    assert all(0 <= doubt <= 1 for doubt in sides.doubts.values())
    assert set(sides.doubts) == set(boots)
    conclude_seen(aim, seen)


@pytest.mark.parametrize("mode", EACH, ids=["sweep", "find-all"])
@pytest.mark.parametrize("fail_rate", [1.0, 0.3])
def test_no_change_is_said_to_be_none_where_good_releases_fail_now_and_then(
    mode: Mode, fail_rate: float
) -> None:
    """Nothing definite denies the truth: no change is hidden, and none is made up."""
    dice = random.Random(31)
    said = 0
    for seed in range(12):
        change = DeclaredChange(kind=dice.choice(tuple(Change)), at=dice.randrange(1, 13))
        world = World(
            candidates=13, change=change, fail_rate=fail_rate, false_fail_rate=0.02, seed=seed
        )
        answer = simulate(world, Vbisect(13, 0.95, mode)).answer
        assert answer.status is not Status.NONE
        if answer.status is Status.FOUND:
            said += 1
            assert answer.changes == ((change.kind, change.at, change.at),)
    assert said >= 8


@given(
    st.dictionaries(st.integers(0, 7), Boots, min_size=2),
    st.sampled_from([Find.FIX, Find.BREAK]),
    st.booleans(),
)
def test_suspects_are_of_the_change_that_is_looked_for(
    boots: dict[int, list[tuple[int, int]]], find: Find, sweep: bool
) -> None:
    """Where a change of the other kind is likelier, nothing is suspected; none is found."""
    found = conclude_seen(Aim(8, find, sweep=sweep), seen_of(boots))
    if found.verdict is Verdict.FOUND:
        assert any(find.wants(boundary.change) for boundary in found.boundaries)
    clearly = conclude_seen(Aim(3, find), seen_of({0: [(3, 9)], 1: [(9, 3)], 2: [(60, 0)]}))
    if find is Find.BREAK:
        assert clearly.suspects == ()


def test_a_clean_stretch_among_flaky_releases_is_no_break() -> None:
    """The release that is said to have broken it failed less than the one before."""
    boots = {
        **{0: [(1, 29), (2, 28)], 1: [(60, 0), (60, 0)], 2: [(60, 0), (60, 0)]},
        **{3: [(59, 1), (60, 0)], 4: [(15, 15), (15, 15)]},
    }
    for at in range(1, 5):
        found = conclude_seen(Aim(5), seen_of(boots))
        if found.verdict is Verdict.FOUND:
            [boundary] = found.boundaries
            assert found.more_changes
            sides = boundary.last_before, boundary.first_after
            before, after = (seen_of(boots).total(index) for index in sides)
            rise = after.fails * before.total > before.fails * after.total
            assert rise == (boundary.change is Change.BREAK)
        boots[at] = [(60, 0), (60, 0)]
