"""The search over what releases come to: its ends, its skips, and which failure is the bug."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from vbisect.search import (
    CRASHED,
    Aim,
    Boot,
    Boots,
    Change,
    Counts,
    Find,
    Outcome,
    Seen,
    Verdict,
    boots_needed,
    bug_kind,
    conclude_seen,
    find_ends,
    is_over,
    likely_after,
    next_picks,
    open_range,
    other_ends_kind,
    told_of,
)

P, F, S = Outcome.PASS, Outcome.FAIL, Outcome.SKIP
STEADY = {P: Counts(5, 0), F: Counts(0, 5), S: Counts()}
FULL = frozenset(range(1000))
"""Every skip is for a reason that can pass."""


@st.composite
def single_change(draw: st.DrawFn, skips: bool = True) -> tuple[list[Outcome], int]:
    """A world with one change and testable ends, and the index of the first candidate after it."""
    count = draw(st.integers(2, 100))
    at = draw(st.integers(1, count - 1))
    before, after = draw(st.sampled_from([(F, P), (P, F)]))
    world = [before] * at + [after] * (count - at)
    if skips and count > 2:
        for index in draw(st.sets(st.integers(1, count - 2), max_size=count)):
            world[index] = S
    return world, at


def search(
    world: Sequence[Outcome] | Callable[[int, int], Outcome],
    aim: Aim,
    *,
    passing: frozenset[int] = frozenset(),
) -> tuple[list[int], list[Seen]]:
    """The boots in order, one at a time, and what was seen before each and after the last.

    ``world`` says what a candidate comes to, with a function for each of its boots; ``passing`` are
    those that can be skipped for a reason that passes.
    """
    begun: list[int] = []
    history = [Seen({})]
    while picks := next_picks(aim, history[-1]):
        [index] = picks
        before = history[-1]
        tries = before.tries(index)
        outcome = world(index, tries) if callable(world) else world[index]
        outcomes = {**before.outcomes, index: outcome}
        boots = {**before.boots, index: (*before.boots.get(index, ()), STEADY[outcome])}
        skipped = frozenset(i for i in passing if outcomes.get(i) is S)
        begun.append(index)
        history.append(Seen(outcomes, boots, passing_skips=skipped))
    assert is_over(aim, history[-1])
    return begun, history


@given(single_change(), st.booleans())
def test_the_suspects_cover_a_single_change(
    case: tuple[list[Outcome], int], skips_pass: bool
) -> None:
    """Skips widen the answer and never move it off the truth."""
    world, at = case
    aim = Aim(len(world), max_skips=len(world))
    begun, history = search(world, aim, passing=FULL if skips_pass else frozenset())
    conclusion = conclude_seen(aim, history[-1])
    assert conclusion.verdict is Verdict.FOUND
    [boundary] = conclusion.boundaries
    assert at in boundary.suspects
    assert boundary.change is (Change.FIX if world[0] is F else Change.BREAK)
    between = range(boundary.last_before + 1, boundary.first_after)
    assert all(world[index] is S for index in between), "an untested release was answered for"
    assert set(between) <= set(begun)
    assert not conclusion.more_changes
    for index in (boundary.last_before, boundary.first_after):
        assert len(history[-1].boots[index]) >= boots_needed(aim.confidence)


@given(single_change(skips=False))
def test_an_unskipped_search_is_logarithmic_and_exact(case: tuple[list[Outcome], int]) -> None:
    """Both ends, one halving after the other down to both sides, and four boots to confirm."""
    world, at = case
    begun, history = search(world, Aim(len(world)))
    known = next(n for n, seen in enumerate(history) if {at - 1, at} <= seen.outcomes.keys())
    assert known <= math.ceil(math.log2(len(world))) + 2
    assert len(begun) <= known + 4
    [boundary] = conclude_seen(Aim(len(world)), history[-1]).boundaries
    assert boundary.exact
    assert boundary.first_after == at


@given(st.integers(2, 200), st.sampled_from([P, F]))
def test_ends_that_agree_are_no_change(count: int, outcome: Outcome) -> None:
    """Where nothing changes, each end is booted as often as an answer needs."""
    aim = Aim(count)
    _, history = search([outcome] * count, aim)
    conclusion = conclude_seen(aim, history[-1])
    assert conclusion.verdict is Verdict.NO_CHANGE
    assert conclusion.boundaries == ()
    for end in (0, count - 1):
        assert len(history[-1].boots[end]) >= boots_needed(aim.confidence)
    assert open_range(aim, history[-1]) is None


def test_no_change_says_what_it_excludes() -> None:
    """A bug that shows more often than that would have shown, with the confidence asked for."""
    aim = Aim(30)
    seen = search([P] * 30, aim)[1][-1]
    excluded = conclude_seen(aim, seen).excluded
    assert excluded is not None
    for end in (0, 29):
        assert 1 - (1 - excluded.per_request) ** seen.total(end).total >= 0.95 - 1e-9
        assert 1 - (1 - excluded.per_boot) ** len(seen.boots[end]) >= 0.95 - 1e-9


@given(single_change(skips=False), st.sampled_from([Find.FIX, Find.BREAK]))
def test_a_change_the_other_way_round_ends_the_search(
    case: tuple[list[Outcome], int], find: Find
) -> None:
    """Looking for a fix in a range that breaks, no release between the ends is needed."""
    world, at = case
    aim = Aim(len(world), find)
    begun, history = search(world, aim)
    conclusion = conclude_seen(aim, history[-1])
    if (world[0] is F) == (find is Find.FIX):
        assert conclusion.verdict is Verdict.FOUND
        assert conclusion.boundaries[-1].first_after == at
    else:
        assert conclusion.verdict is Verdict.OTHER_CHANGE
        assert set(begun) == {0, len(world) - 1}


@given(single_change())
def test_what_is_open_contains_the_change_and_shrinks(case: tuple[list[Outcome], int]) -> None:
    """Until both ends are known it is the whole range."""
    world, at = case
    aim = Aim(len(world))
    ranges = [open_range(aim, seen) for seen in search(world, aim)[1]]
    assert ranges[0] == (0, len(world) - 1)
    for wide, narrow in pairwise(ranges):
        assert wide is not None
        assert narrow is not None
        assert wide[0] <= narrow[0] < at <= narrow[1] <= wide[1]


@given(single_change())
def test_what_is_tested_next_was_foreseen(case: tuple[list[Outcome], int]) -> None:
    """Whatever a trial comes to, what is fetched for the one after it was named before, once."""
    world, _ = case
    aim = Aim(len(world))
    begun, history = search(world, aim)
    for number, (pick, following) in enumerate(pairwise(begun)):
        then = history[number + 1]
        if pick in history[number].outcomes or following in then.outcomes:
            continue
        running = replace(history[number], running=frozenset({pick}))
        likely = list(likely_after(aim, running))
        assert len(set(likely)) == len(likely)
        assert following in likely


def test_untestable_ends_are_galloped_over() -> None:
    """One, two, four, eight candidates on; where the ends differ nothing before them matters."""
    world = [S] * 13 + [F] * 20 + [P] * 20
    begun, history = search(world, Aim(53))
    assert begun[:6] == [0, 1, 3, 7, 15, 52]
    assert min(begun[6:]) > 15
    found = conclude_seen(Aim(53), history[-1])
    assert found.ends == find_ends(53, history[-1])
    assert (found.verdict, found.suspects) == (Verdict.FOUND, (33,))
    begun, history = search(world[::-1], Aim(53))
    assert [i for i in begun if i > 32][:5] == [52, 51, 49, 45, 37]
    found = conclude_seen(Aim(53), history[-1])
    assert (found.verdict, found.suspects) == (Verdict.FOUND, (20,))


@given(st.integers(1, 30), st.integers(0, 12), st.integers(0, 12), st.booleans())
def test_agreeing_ends_are_narrowed_to_the_outermost_testable(
    testable: int, below: int, above: int, skips_pass: bool
) -> None:
    """ "No change" speaks of all that can be tested: the ends are moved back outward before."""
    assume(testable > 2 * max(below, above))
    world = [S] * below + [P] * testable + [S] * above
    aim = Aim(len(world))
    begun, history = search(world, aim, passing=FULL if skips_pass else frozenset())
    conclusion = conclude_seen(aim, history[-1])
    if testable == 1:
        assert conclusion.verdict is Verdict.TOO_FEW
        return
    assert conclusion.verdict is Verdict.NO_CHANGE
    assert conclusion.ends is not None
    assert (conclusion.ends.low, conclusion.ends.high) == (below, below + testable - 1)
    skips = [index for index in begun if world[index] is S]
    # out and back again on either side, by halves
    most = sum(2 * math.ceil(math.log2(end + 1)) + 1 for end in (below, above))
    assert len(skips) <= most + 2 * skips_pass


@given(st.integers(1, 12), st.integers(0, 12), st.integers(2, 40), st.data())
def test_a_change_between_ends_that_moved_is_found(
    below: int, above: int, testable: int, data: st.DataObject
) -> None:
    """However many cannot be tested on either side, as long as half of the range can."""
    assume(testable > 2 * max(below, above))
    at = below + data.draw(st.integers(1, testable - 1))
    world = [F] * at + [P] * (below + testable + above - at)
    world[:below] = [S] * below
    world[below + testable :] = [S] * above
    aim = Aim(len(world))
    found = conclude_seen(aim, search(world, aim)[1][-1])
    assert found.verdict is Verdict.FOUND
    assert at in found.suspects


def test_an_untestable_end_says_nothing_of_the_other() -> None:
    """Its skips are no reason to gallop there."""
    low, high = Seen({0: S}, {0: (Counts(),)}), Seen({59: S}, {59: (Counts(),)})
    assert next_picks(Aim(60), low, None, 2) == (1, 59)
    assert next_picks(Aim(60), high, None, 2) == (0, 58)


@pytest.mark.parametrize("backwards", [False, True], ids=["low end", "high end"])
def test_half_a_range_that_cannot_be_tested_hides_no_change(backwards: bool) -> None:
    """Both ends are tried first, whatever one of them comes to."""
    world = [S] * 30 + [F] * 15 + [P] * 15
    world = world[::-1] if backwards else world
    begun, history = search(world, Aim(60))
    assert {0, 59} <= set(begun)
    found = conclude_seen(Aim(60), history[-1])
    assert found.verdict is Verdict.FOUND
    assert found.suspects == ((15,) if backwards else (45,))


def test_what_costs_no_boot_is_not_galloped_over() -> None:
    """Releases that were never published say nothing of those beside them."""
    gone = frozenset({0, 1, 2, 3, 4})
    seen = Seen(dict.fromkeys(gone, S), cheap_skips=gone)
    assert next_picks(Aim(50), seen, None, 2) == (5, 49)
    once = replace(seen, outcomes={**seen.outcomes, 5: S}, boots={5: (Counts(),)})
    assert next_picks(Aim(50), once) == (6,)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 200])
def test_nothing_testable_is_too_few(count: int) -> None:
    """Without two testable releases there is no answer, only an end of the search."""
    for world in ([S] * count, [S] * (count - 1) + [F]):
        begun, history = search(world, Aim(count))
        assert conclude_seen(Aim(count), history[-1]).verdict is Verdict.TOO_FEW
        assert len(begun) <= 20 + 3


def test_a_skip_among_the_last_suspects_is_tried_again() -> None:
    """A reason that can pass may have passed: 4 can be tested at its second boot."""

    def world(index: int, tries: int) -> Outcome:
        if index == 4 and not tries:
            return S
        return F if index < 5 else P

    aim = Aim(10)
    begun, history = search(world, aim, passing=FULL)
    assert begun.count(4) >= 2
    found = conclude_seen(aim, history[-1])
    assert (found.verdict, found.suspects) == (Verdict.FOUND, (5,))
    # nobody tries again where the reason stays
    begun, history = search(world, aim)
    assert begun.count(4) == 1
    assert conclude_seen(aim, history[-1]).suspects == (4, 5)


def test_a_skip_away_from_the_change_is_not_tried_again() -> None:
    """It could tell nothing: the change is elsewhere."""

    def world(index: int, tries: int) -> Outcome:
        return S if index in (24, 25, 26) else F if index < 40 else P

    begun, history = search(world, Aim(50), passing=FULL)
    assert {index: begun.count(index) for index in (24, 25, 26) if index in begun} == {24: 1}
    assert conclude_seen(Aim(50), history[-1]).suspects == (40,)


@given(single_change())
def test_skips_are_tried_again_a_bounded_number_of_times(
    case: tuple[list[Outcome], int],
) -> None:
    """Those that stay skips: three boots of one, and three further ones in all."""
    world, _ = case
    aim = Aim(len(world), max_skips=len(world))
    begun, _ = search(world, aim, passing=FULL)
    skips = [index for index in begun if world[index] is S]
    assert len(skips) - len(set(skips)) <= 3
    assert all(skips.count(index) <= 3 for index in skips)


@given(
    st.dictionaries(
        st.integers(0, 30),
        st.tuples(
            st.sampled_from([P, F, S]),
            st.lists(
                st.builds(Counts, st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=3
            ),
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
    st.integers(1, 4),
)
def test_the_order_of_what_was_seen_makes_no_difference(
    known: dict[int, tuple[Outcome, list[Counts]]],
    dice: object,
    jobs: int,
) -> None:
    """The same evidence gives the same picks and the same answer."""

    def seen(order: Sequence[int]) -> Seen:
        boots = {i: tuple(known[i][1]) for i in order if known[i][0] is not S}
        return Seen({i: known[i][0] for i in order}, boots)

    aim, order = Aim(31), list(known)
    forth, back = seen(order), seen(order[::-1])
    assert next_picks(aim, forth, None, jobs) == next_picks(aim, back, None, jobs)
    assert conclude_seen(aim, forth) == conclude_seen(aim, back)


BUG, OTHER = "returned 1 of 4 choices", "HTTP 500"
GOOD, BAD = Boot(14), Boot(0, {BUG: 5})
CRASH = Boot(0, {CRASHED: 1})


def told(boots: Boots) -> Seen:
    """What boots tell of the kind of failure that is the bug by them."""
    return told_of(boots, bug_kind(boots), judged_as={})


@given(st.integers(1, 50), st.integers(1, 50))
def test_unrelated_failures_do_not_make_a_good_release_fail(passes: int, other: int) -> None:
    """They are neither: the release passes, by what else was seen of it."""
    boots = {0: (BAD,), 25: (Boot(passes, {OTHER: other}),), 50: (GOOD,)}
    seen = told(boots)
    assert seen.outcomes == {0: F, 25: P, 50: P}
    assert seen.boots[25] == (Counts(passes, 0),)


def test_a_release_that_only_fails_in_other_ways_is_a_skip() -> None:
    """It cannot be judged without, and nothing is said of the bug."""
    seen = told({0: (BAD,), 25: (Boot(0, {OTHER: 5}),), 50: (GOOD,)})
    assert seen.outcomes == {0: F, 25: S, 50: P}
    assert seen.boots[25] == (Counts(),)


def test_a_crash_in_one_boot_says_nothing() -> None:
    """The release is open still, and is what is booted next; the second crash makes it a skip."""
    steady: dict[int, tuple[Boot, ...]] = {0: (BAD, BAD), 2: (GOOD, GOOD)}
    once = told(steady | {1: (CRASH,)})
    assert 1 not in once.outcomes
    assert next_picks(Aim(3), once) == (1,)
    twice = told(steady | {1: (CRASH, CRASH)})
    assert twice.outcomes[1] is S
    assert 1 in twice.passing_skips
    after = told(steady | {1: (CRASH, GOOD)})
    assert after.outcomes[1] is P


@pytest.mark.parametrize("index", [0, 50], ids=["low end", "high end"])
def test_an_end_that_crashes_once_does_not_become_the_bug(index: int) -> None:
    """It is booted again, and what it comes to then is what counts."""
    assert bug_kind({index: (CRASH,)}) is None
    seen = told({index: (CRASH,)})
    assert seen.outcomes == {}
    assert index in next_picks(Aim(51), seen, None, 2)
    other_end = 50 - index
    assert bug_kind({index: (CRASH,), other_end: (BAD,)}) == BUG
    assert bug_kind({index: (CRASH,), other_end: (GOOD,)}) is None


def test_a_crash_can_be_the_bug_once_it_was_seen_in_two_boots() -> None:
    """Where nothing else fails; elsewhere it has to be seen in three."""
    assert bug_kind({0: (CRASH,), 50: (GOOD,)}) is None
    crashing = {0: (CRASH, CRASH), 50: (GOOD,)}
    assert bug_kind(crashing) == CRASHED
    assert told(crashing).outcomes == {0: F, 50: P}
    for crashes, kind in ((2, OTHER), (3, CRASHED)):
        elsewhere = {25: (Boot(0, {OTHER: 5}),), 50: (GOOD,)}
        assert bug_kind({0: (CRASH,) * crashes, **elsewhere}) == kind
    # two crashes of different releases are two single crashes
    assert bug_kind({0: (CRASH,), 25: (CRASH,), 50: (GOOD,)}) is None


@given(st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_where_the_ends_fail_differently_the_steadier_is_the_bug(
    passes: int, fails: int, backwards: bool
) -> None:
    """Five of five at one end, some of more at the other."""
    steady, seldom = (Boot(0, {BUG: 5}),), (Boot(passes, {OTHER: fails}),)
    boots = {0: seldom, 50: steady} if backwards else {0: steady, 50: seldom}
    share = (fails + 0.5) / (passes + fails + 2)
    assume(share < 5.5 / 7)
    assert bug_kind(boots) == BUG
    assert sorted(told(boots).outcomes.values()) == [F, P]


def test_both_ends_decide_and_what_lies_between_does_not() -> None:
    """Unless neither of them fails."""
    between = (Boot(0, {OTHER: 5}),)
    assert bug_kind({0: (Boot(3, {BUG: 1}),), 25: between, 50: (GOOD,)}) == BUG
    assert bug_kind({0: (GOOD,), 25: between, 50: (GOOD,)}) == OTHER
    assert bug_kind({0: (GOOD,), 25: between, 50: (GOOD,)}, never=(OTHER,)) is None
    assert bug_kind({}) is None


def test_an_end_that_fails_steadily_in_another_way_is_named() -> None:
    """The range may be asked about the wrong failure; a few stray ones are no reason to say so."""
    other = (Boot(0, {OTHER: 5}),)
    assert other_ends_kind({0: (BAD,), 50: other}, BUG) == OTHER
    assert other_ends_kind({0: (BAD,), 25: other, 50: (GOOD,)}, BUG) is None
    assert other_ends_kind({0: (BAD,), 50: (Boot(12, {OTHER: 2}),)}, BUG) is None
    assert other_ends_kind({0: (GOOD,), 50: (GOOD,)}, None) is None


Kept = st.builds(
    Boot,
    st.integers(0, 9),
    st.dictionaries(st.sampled_from([BUG, OTHER, CRASHED]), st.integers(1, 6), max_size=2),
)


@given(st.dictionaries(st.integers(0, 9), st.lists(Kept, min_size=1, max_size=3).map(tuple)))
@example({0: (CRASH,), 9: (CRASH, GOOD)})
def test_whatever_boots_came_to_nothing_but_the_bug_counts_as_failing(boots: Boots) -> None:
    """Each release has one outcome or is open, and what is counted is what its boots saw."""
    bug = bug_kind(boots)
    seen = told_of(boots, bug, judged_as={})
    for index, kept in boots.items():
        of_bug = sum(boot.fails.get(bug, 0) for boot in kept) if bug else 0
        assert seen.total(index) == (sum(boot.passes for boot in kept), of_bug)
        outcome = seen.outcomes.get(index)
        assert (outcome is F) <= (of_bug > 0)
        assert (outcome is P) <= any(boot.passes for boot in kept)
        if outcome is None:
            [crashed] = [boot for boot in kept if boot.fails]
            assert CRASHED in crashed.fails
    assert seen.passing_skips <= {i for i, outcome in seen.outcomes.items() if outcome is S}
    conclude_seen(Aim(10), seen)
