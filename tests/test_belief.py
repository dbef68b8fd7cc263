"""Flaky releases: the posterior, the requests of a boot, and answers as sure as they say."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.calibration import wilson
from vbisect.search import (
    Aim,
    BootContext,
    Boundary,
    Change,
    Conclusion,
    Costs,
    Counts,
    Find,
    Outcome,
    Seen,
    Verdict,
    boot_context,
    conclude_seen,
    flaky,
    is_over,
    judge_boot,
    next_picks,
    pointless,
)
from vbisect.search.belief import believe
from vbisect.search.boot import MOST_REQUESTS
from vbisect.search.cuts import Weighing
from vbisect.search.ends import Ends
from vbisect.search.picks import most_repeats
from vbisect.search.requests import (
    STEADY_FAILURES,
    boots_needed,
    end_passes_needed,
    passes_needed,
)

P, F, S = Outcome.PASS, Outcome.FAIL, Outcome.SKIP
Boot = Callable[[bool, random.Random], float]
"""The failure rate of one boot of a release that is bad, or is not."""
SECONDS = Costs([0.0] * 1000, 150.0, 2.0)
MIXED = Counts(12, 6)


def seen_of(boots: dict[int, list[tuple[int, int]]], **more: object) -> Seen:
    """Releases by their boots, each as passes and fails; one that failed at all is a fail."""
    counts = {index: tuple(Counts(*boot) for boot in kept) for index, kept in boots.items()}
    outcomes = {
        index: F if any(boot.fails for boot in kept) else P for index, kept in counts.items()
    }
    return replace(Seen(outcomes, counts), **more)  # type: ignore[arg-type]


def search(aim: Aim, at: int, kind: Change, rate: Boot, dice: random.Random) -> tuple[Seen, int]:
    """Search a world, one boot at a time; what was seen, and the number of boots."""
    seen, begun = Seen({}), 0
    while picks := next_picks(aim, seen, SECONDS):
        (index,) = picks
        context = boot_context(aim, seen, index, SECONDS)
        fails_at = rate((index < at) == (kind is Change.FIX), dice)
        counts = Counts()
        while (outcome := judge_boot(counts, context)) is None:
            failed = dice.random() < fails_at
            counts = Counts(counts.passes + (not failed), counts.fails + failed)
        seen, begun = with_boot(seen, index, counts, outcome), begun + 1
    assert is_over(aim, seen)
    return seen, begun


def with_boot(seen: Seen, index: int, counts: Counts, outcome: Outcome) -> Seen:
    """One boot more."""
    boots = {**seen.boots, index: (*seen.boots.get(index, ()), counts)}
    return Seen({**seen.outcomes, index: outcome}, boots)


def mass(boots: dict[int, list[tuple[int, int]]], count: int, change: Change, at: int) -> float:
    """The probability of a change that came with one candidate."""
    ends = Ends(min(boots), max(boots))
    belief = believe(Aim(count), seen_of(boots), ends, Weighing(None))
    [place] = [p for p in belief.pieces if (p.change, p.first, p.last) == (change, at, at)]
    return place.mass


WORLDS: dict[str, tuple[Boot, float, float]] = {
    "now and then": (lambda bad, _: 0.3 if bad else 0.0, 11.6, 0.01),
    "false failures": (lambda bad, _: 0.3 if bad else 0.02, 14.0, 0.05),
    "often, and often false": (lambda bad, _: 0.8 if bad else 0.05, 13.0, 0.05),
    "a rate for each boot": (
        lambda bad, dice: dice.uniform(0.1, 1) if bad else 0.02,
        17.0,
        0.1,
    ),
}
"""By name: the rates, the boots at most (mean), and the share that may stay open."""


@pytest.mark.parametrize("name", WORLDS)
def test_answers_are_as_right_as_they_say(name: str) -> None:
    """Over random truths among 51: wrong at most a twentieth, few open, few boots."""
    rate, most, may_be_open = WORLDS[name]
    dice, runs, wrong, unsure, boots = random.Random(11), 120, 0, 0, 0
    stated, right = [], 0
    for _ in range(runs):
        at, kind = dice.randrange(1, 51), dice.choice(list(Change))
        seen, begun = search(Aim(51), at, kind, rate, dice)
        boots += begun
        conclusion = conclude_seen(Aim(51), seen)
        if conclusion.verdict is Verdict.UNSURE:
            unsure += 1
            continue
        is_right = _names(conclusion, at, kind)
        wrong += not is_right
        if conclusion.verdict is Verdict.FOUND and flaky(seen):
            right += is_right
            stated.append(conclusion.boundaries[0].confidence or 0)
    assert wrong / runs <= 0.05
    assert wilson(unsure, runs)[0] <= may_be_open
    assert boots / runs <= most
    assert min(stated) >= 0.95
    assert right / len(stated) >= sum(stated) / len(stated) - 0.03


def test_failures_that_stick_to_a_boot_are_booted_again() -> None:
    """Once a release was seen both ways between boots, a clean boot proves little."""

    def rate(bad: bool, dice: random.Random) -> float:
        return float(bad and dice.random() < 0.6)

    dice, wrong, told = random.Random(12), 0, 0
    aim = Aim(51)
    for _ in range(30):
        at = dice.randrange(2, 50)
        ends = seen_of({0: [(0, 5), (38, 0), (0, 5)], 50: [(38, 0), (38, 0)]})
        seen = ends
        while picks := next_picks(aim, seen, SECONDS):
            (index,) = picks
            context = boot_context(aim, seen, index, SECONDS)
            fails_at, counts = rate(index < at, dice), Counts()
            while (outcome := judge_boot(counts, context)) is None:
                counts = Counts(counts.passes + (not fails_at), counts.fails + bool(fails_at))
            seen = with_boot(seen, index, counts, outcome)
        conclusion = conclude_seen(aim, seen)
        if conclusion.verdict is not Verdict.UNSURE:
            told += 1
            wrong += not _names(conclusion, at, Change.FIX)
    assert told >= 10
    assert wrong / told <= 0.1


def _names(conclusion: Conclusion, at: int, kind: Change) -> bool:
    (boundary,) = conclusion.boundaries or (None,)
    return boundary is not None and (boundary.change, boundary.first_after, boundary.exact) == (
        kind,
        at,
        True,
    )


@given(
    st.dictionaries(
        st.integers(0, 20),
        st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=4),
        min_size=1,
    )
)
def test_the_posterior_is_one_whole_and_alike_both_ways(
    boots: dict[int, list[tuple[int, int]]],
) -> None:
    """Probabilities sum up to 1, and a range read backwards mirrors the answer."""
    aim, ends = Aim(21), Ends(0, 20)
    belief = believe(aim, seen_of(boots), ends, Weighing(None))
    assert math.isclose(
        belief.all_bad + belief.all_good + sum(piece.mass for piece in belief.pieces), 1
    )
    places = [index for piece in belief.pieces for index in range(piece.first, piece.last + 1)]
    assert sorted(places) == sorted([*range(1, 21), *range(1, 21)])
    mirrored = {20 - index: kept for index, kept in boots.items()}
    back = believe(aim, seen_of(mirrored), ends, Weighing(None))
    there = {(p.change, p.first, p.last): p.mass for p in belief.pieces}
    other = {Change.FIX: Change.BREAK, Change.BREAK: Change.FIX}
    for piece in back.pieces:
        mass = there[other[piece.change], 21 - piece.last, 21 - piece.first]
        assert math.isclose(mass, piece.mass, rel_tol=1e-6, abs_tol=1e-12)


ONE_BOOT_EACH = {0: [(5, 0)], 25: [(5, 0)]} | {i: [(0, 5)] for i in (26, 28, 31, 37, 50)}
"""A steady search that came down to 25 and 26, every release booted once."""


def test_the_confidence_counts_every_place_that_one_boot_alone_rules_out() -> None:
    """That 1 to 25 are good hangs on one boot of 25: with another good one near it less does."""
    alone, far, near = (
        mass(ONE_BOOT_EACH | {more: [(5, 0)] for more in also}, 51, Change.BREAK, 26)
        for also in ((), (12,), (24,))
    )
    assert alone < far < near
    assert alone < 0.95, "five requests of one boot are no answer"
    # each place less that it alone rules out leaves less to doubt
    doubts = [
        1 - mass(ONE_BOOT_EACH | {more: [(5, 0)]}, 51, Change.BREAK, 26) for more in range(1, 25)
    ]
    assert doubts == sorted(doubts, reverse=True)
    assert doubts[0] > 2 * doubts[-1]


def test_what_one_boot_alone_says_is_booted_again() -> None:
    """25 and 26 each had one boot: no answer, and none before each has been booted again."""
    aim, seen = Aim(51), seen_of(ONE_BOOT_EACH)
    assert conclude_seen(aim, seen).verdict is Verdict.UNSURE
    while picks := next_picks(aim, seen, SECONDS):
        assert conclude_seen(aim, seen).verdict is Verdict.UNSURE
        [index] = picks
        seen = with_boot(seen, index, *((Counts(5, 0), P) if index < 26 else (Counts(0, 5), F)))
    found = conclude_seen(aim, seen)
    assert (found.verdict, found.suspects) == (Verdict.FOUND, (26,))
    assert len(seen.boots[25]) >= 2
    assert len(seen.boots[26]) >= 2


@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("kind", Change)
def test_both_neighbours_have_the_boots_that_the_confidence_needs(
    confidence: float, kind: Change
) -> None:
    """More of them the surer an answer has to be; and it is as sure as was asked."""
    aim = Aim(24, confidence=confidence)
    for at in range(1, 24, 3):
        seen, _ = search(aim, at, kind, lambda bad, _: float(bad), random.Random(at))
        [boundary] = conclude_seen(aim, seen).boundaries
        assert (boundary.change, boundary.first_after, boundary.exact) == (kind, at, True)
        assert boundary.confidence is not None
        assert boundary.confidence >= confidence
        for index in (boundary.last_before, boundary.first_after):
            assert len(seen.boots[index]) >= boots_needed(confidence)


def test_a_surer_answer_takes_more_boots_and_requests() -> None:
    """A bug that shows in 0.8 of the boots would have shown with the confidence asked for."""
    numbers = [
        (boots_needed(sure), passes_needed(sure), end_passes_needed(sure))
        for sure in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
    ]
    assert numbers == sorted(numbers)
    for sure, (boots, passes, at_ends) in zip((0.5, 0.8, 0.9, 0.95, 0.99), numbers, strict=False):
        assert 1 - 0.2**boots >= sure - 1e-9
        assert 1 - 0.2 ** (boots - 1) < sure
        assert 1 <= passes <= at_ends


@pytest.mark.parametrize("index", [0, 12, 25])
def test_requests_of_one_boot_are_not_boots(index: int) -> None:
    """Ten times the clean requests make an answer less sure than the same clean boot once more."""
    boots = ONE_BOOT_EACH | {index: [(5, 0)]}
    once, tenfold, twice = (
        mass(boots | {index: own}, 51, Change.BREAK, 26)
        for own in ([(5, 0)], [(50, 0)], [(5, 0), (5, 0)])
    )
    assert tenfold - once < twice - once
    assert twice > once


@given(st.integers(1, 200), st.integers(1, 20))
def test_no_number_of_requests_makes_up_for_a_boot(passes: int, times: int) -> None:
    """Of a release that was clean: the second boot says more than any number of requests."""
    boots = ONE_BOOT_EACH | {25: [(passes, 0)]}
    more = mass(boots | {25: [(passes * times, 0)]}, 51, Change.BREAK, 26)
    again = mass(boots | {25: [(passes, 0), (passes, 0)]}, 51, Change.BREAK, 26)
    assert more < again


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.5, 0.99))
def test_a_boot_is_settled_by_a_few_alike_while_none_was_mixed(
    passes: int, fails: int, confidence: float
) -> None:
    """A few clean requests, or a few failures; one that is mixed itself is a case of its own."""
    aim = Aim(51, confidence=confidence)
    context = boot_context(aim, seen_of({0: [(0, 5)], 50: [(18, 0)]}), 25, SECONDS)
    clean = passes_needed(confidence)
    assert judge_boot(Counts(passes, 0), context) is (P if passes >= clean else None)
    steady = judge_boot(Counts(0, fails), context)
    assert steady is F or (steady is None and fails < STEADY_FAILURES)
    assert judge_boot(Counts(passes, fails + 1), context) in (
        (F, None) if not passes else (P, F, None)
    )


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400))
def test_failures_of_another_kind_are_neither(passes: int, fails: int, other: int) -> None:
    """They change no verdict, make none where nothing else was seen, and let no boot go on."""
    context = boot_context(Aim(51), seen_of({0: [(0, 5)], 50: [(18, 0)]}), 25, SECONDS)
    outcome = judge_boot(Counts(passes, fails), context, other)
    if not passes + fails:
        assert outcome is (S if other >= STEADY_FAILURES else None)
    elif passes + fails + other < MOST_REQUESTS:
        assert outcome is judge_boot(Counts(passes, fails), context)
    else:
        assert outcome in (P, F)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 400), st.integers(0, 400))
def test_every_boot_is_judged_in_the_end(
    boot: float, request: float, passes: int, fails: int
) -> None:
    """No boot takes more than a few hundred requests; nothing observed is never a verdict."""
    aim = Aim(51)
    seen = seen_of({0: [(12, 6)], 50: [(30, 1)]})
    context = boot_context(aim, seen, 25, Costs([0.0] * 51, boot, request))
    assert judge_boot(Counts(), context) is None
    now = Counts(passes, fails)
    if now.total >= MOST_REQUESTS:
        assert judge_boot(now, context) in (P, F)


def test_a_boot_asks_less_the_more_is_known() -> None:
    """Beside releases that fail half of the time, a few failures or some passes are enough."""
    seen = seen_of({0: [(9, 9)], 10: [(9, 9)], 50: [(38, 0)], 40: [(38, 0)]})
    context = boot_context(Aim(51), seen, 25, SECONDS)
    assert judge_boot(Counts(0, 5), context) is F
    assert judge_boot(Counts(38, 0), context) is P
    assert judge_boot(Counts(2, 0), context) is None


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_boot_context_travels_as_plain_numbers(passes: int, fails: int) -> None:
    """Another process or machine judges alike: all of it goes through JSON."""
    context = boot_context(Aim(51), seen_of({0: [(9, 9)], 25: [(3, 0)]}), 25, SECONDS)
    assert context.earlier == ((3, 0),)
    there = json.loads(json.dumps(asdict(context)))
    assert there["mixed"] is True
    now = Counts(passes, fails)
    assert judge_boot(now, BootContext(**there)) is judge_boot(now, context)


@pytest.mark.parametrize(
    ("boots", "expected"),
    [
        ({0: [(0, 5)], 1: [(18, 0)]}, False),
        ({0: [(1, 5)]}, True),
        ({0: [(0, 5), (18, 0)]}, True),
        ({0: [(0, 0), (18, 0)]}, False),
    ],
)
def test_one_release_seen_both_ways_makes_a_run_flaky(
    boots: dict[int, list[tuple[int, int]]], expected: bool
) -> None:
    """Within a boot or between boots; not from one release to another."""
    assert flaky(seen_of(boots)) is expected


def test_both_sides_are_booted_twice_before_an_answer() -> None:
    """However sure the posterior is, one boot may be odd as a whole."""
    aim = Aim(3)
    once = seen_of({0: [(9, 9)], 1: [(80, 0)], 2: [(80, 0)]})
    assert conclude_seen(aim, once).verdict is Verdict.UNSURE
    assert {0, 1} <= set(next_picks(aim, once, free=4))
    twice = seen_of({0: [(9, 9), (9, 9)], 1: [(80, 0), (80, 0)], 2: [(80, 0)]})
    assert is_over(aim, twice)
    found = conclude_seen(aim, twice)
    assert found.verdict is Verdict.FOUND
    assert found.boundaries == (Boundary(Change.FIX, 0, 1, found.boundaries[0].confidence),)
    assert found.suspects == (1,)
    assert pointless(aim, replace(twice, running=frozenset({2}))) == {2}


def test_no_exact_answer_beside_an_untested_or_skipped_release() -> None:
    """A skip between the sides leaves suspects, an untested one has to be tested first."""
    boots = {0: [(9, 9), (9, 9)], 2: [(80, 0), (80, 0)]}
    untested = seen_of(boots)
    assert next_picks(Aim(3), untested) == (1,)
    assert conclude_seen(Aim(3), untested).verdict is Verdict.UNSURE
    skipped = replace(untested, outcomes={**untested.outcomes, 1: S})
    found = conclude_seen(Aim(3), skipped)
    assert found.verdict is Verdict.FOUND
    assert found.suspects == (1, 2)
    assert not found.boundaries[0].exact


def test_the_suspects_hold_the_confidence() -> None:
    """Unsure: the smallest set, which is smaller the less confidence is asked for."""
    boots = {0: [(9, 9)], 20: [(17, 1)], 30: [(12, 0)], 40: [(19, 1)], 60: [(90, 0)]}
    sizes = []
    for confidence in (0.5, 0.9, 0.99):
        aim = Aim(61, confidence=confidence)
        seen = seen_of(boots)
        told = conclude_seen(aim, seen)
        assert (told.verdict, told.likely) == (Verdict.UNSURE, Change.FIX)
        belief = believe(aim, seen, Ends(0, 60), Weighing(None))
        fixes = [piece for piece in belief.pieces if piece.change is Change.FIX]
        inside = [piece.mass for piece in fixes if piece.last in told.suspects]
        needed = confidence * sum(piece.mass for piece in fixes)
        assert sum(inside) >= needed > sum(inside) - min(inside)
        assert told.held == pytest.approx(sum(inside))
        sizes.append(len(told.suspects))
    assert sizes == sorted(sizes)


def test_releases_that_all_flake_alike_have_no_change() -> None:
    """Both ends fail now and then: no boundary, once both were booted twice."""
    aim = Aim(51)
    seen = seen_of({0: [(9, 9), (9, 9)], 50: [(10, 8), (8, 10)]})
    assert is_over(aim, seen)
    assert conclude_seen(aim, seen).verdict is Verdict.NO_CHANGE


def test_a_change_of_the_other_kind_ends_the_search() -> None:
    """It breaks, and a fix was looked for: two ends, booted twice, are enough."""
    aim = Aim(51, Find.FIX)
    seen = seen_of({0: [(90, 0), (40, 0)], 50: [(8, 10), (9, 9)]})
    assert is_over(aim, seen)
    assert conclude_seen(aim, seen).verdict is Verdict.OTHER_CHANGE


def test_what_one_change_cannot_explain_is_told() -> None:
    """A release that clearly fails amid good ones: more than one change."""
    boots = {0: [(9, 9)], 10: [(60, 0)] * 3, 20: [(10, 30)], 40: [(60, 0)]}
    assert conclude_seen(Aim(41), seen_of(boots)).more_changes
    del boots[20]
    assert not conclude_seen(Aim(41), seen_of(boots)).more_changes


@pytest.mark.parametrize("bad", [(0, 5), (9, 9)], ids=["steady", "flaky"])
def test_a_stretch_that_one_change_cannot_explain_is_told(bad: tuple[int, int]) -> None:
    """Five good releases amid bad ones, each booted once: together they are no accident."""
    around = {0: [(38, 0)]} | {index: [bad, bad] for index in (4, 8, 20, 24)}
    stretch = {index: [(38, 0)] for index in range(11, 16)}
    assert conclude_seen(Aim(25), seen_of(around | stretch)).more_changes
    assert not conclude_seen(Aim(25), seen_of(around)).more_changes


def test_several_flaky_changes_have_a_confidence_each() -> None:
    """With every change looked for each boundary is judged in its own stretch."""
    aim = Aim(6, sweep=True)
    good, bad = [(60, 0)] * 4, [(9, 9)] * 2
    seen = seen_of({0: good, 1: bad, 2: bad, 3: good, 4: good, 5: good})
    assert is_over(aim, seen)
    found = conclude_seen(aim, seen)
    assert [boundary.first_after for boundary in found.boundaries] == [1, 3]
    assert all((boundary.confidence or 0) > 0.95 for boundary in found.boundaries)
    once = seen_of({0: good, 1: bad[:1], 2: bad, 3: good, 4: good, 5: good})
    assert 1 in next_picks(aim, once, free=6)


def test_what_is_running_is_left_to_tell_its_part() -> None:
    """Several boots at once are different releases, spread over what is open."""
    seen = seen_of({0: [(9, 9)], 1000: [(60, 0)]})
    picks = next_picks(Aim(1001), seen, free=4)
    assert len(set(picks)) == 4
    edges = [0, *sorted(picks), 1000]
    assert max(b - a for a, b in pairwise(edges)) <= 400
    running = replace(seen, running=frozenset(picks[:3]))
    assert not set(next_picks(Aim(1001), running, free=4)) & running.running


def test_an_end_to_a_search_that_cannot_be_sure() -> None:
    """Releases that fail like good ones: a bounded number of boots, and no answer made up."""
    dice = random.Random(13)
    aim = Aim(51)
    for _ in range(5):
        seen, begun = search(aim, 25, Change.FIX, lambda bad, _: 0.06 if bad else 0.04, dice)
        assert begun <= 52 + most_repeats(51) + 4
        assert conclude_seen(aim, seen).verdict is not Verdict.FOUND


def test_an_end_that_passes_is_asked_for_a_bug_that_is_rare() -> None:
    """A bug that shows in a seventh of the requests would show there before "no change" is said."""
    ends, inside = end_passes_needed(0.95), passes_needed(0.95)
    assert 1 - 0.86**ends >= 0.95 > 1 - 0.86 ** (ends - 1)
    for seen, index, clean in (
        (Seen({}), 0, ends),
        (Seen({0: P}), 50, ends),
        (Seen({0: F}), 50, inside),
        (Seen({0: P}), 25, inside),
    ):
        assert boot_context(Aim(51), seen, index, SECONDS).clean == clean
    context = boot_context(Aim(51), Seen({}), 0, SECONDS)
    assert judge_boot(Counts(ends - 1, 0), context) is None
    assert judge_boot(Counts(ends, 0), context) is P
    assert judge_boot(Counts(0, 5), context) is F


def test_earlier_boots_say_what_a_release_is_and_not_when_a_boot_is_done() -> None:
    """Each boot is asked as if it were the first; the outcome is that of all of them."""
    first = boot_context(Aim(51), seen_of({0: [(0, 5)], 50: [(18, 0)]}), 25, SECONDS)
    seen = seen_of({0: [(0, 5)], 25: [(17, 0)], 50: [(18, 0)]})
    again = boot_context(Aim(51), seen, 25, SECONDS)
    assert again.earlier == ((17, 0),)
    for passes in range(passes_needed(0.95) + 2):
        now = Counts(passes, 0)
        assert judge_boot(now, again) is judge_boot(now, first)
    assert judge_boot(Counts(0, 5), first) is F
    assert judge_boot(Counts(0, 5), again) in (P, F)


def test_a_release_that_never_failed_does_not_fail() -> None:
    """However much those beside it flake."""
    seen = seen_of({0: [(17, 1)], 4: [(60, 1)]})
    context = boot_context(Aim(5), seen, 2)
    assert {judge_boot(Counts(number, 0), context) for number in range(1, 301)} <= {None, P}
