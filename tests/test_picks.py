"""Searches of any world, with any number of trials at once: they end, repeat nothing, never lie."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vbisect.search import (
    Aim,
    Change,
    Costs,
    Counts,
    Find,
    Outcome,
    Seen,
    Verdict,
    boot_context,
    conclude_seen,
    is_over,
    judge_boot,
    next_picks,
    pointless,
)
from vbisect.search.picks import most_repeats
from vbisect.search.requests import boots_needed

P, F, S = Outcome.PASS, Outcome.FAIL, Outcome.SKIP
Worlds = st.lists(st.sampled_from([P, F, S]), min_size=2, max_size=60)
Modes = st.sampled_from([{}, {"sweep": True}, {"find_all": True}])
STEADY = {P: Counts(18, 0), F: Counts(0, 5)}


@dataclass
class Searcher:
    """Drives a search: begins what is picked, ends any running trial, cancels what is pointless."""

    aim: Aim
    world: Sequence[Outcome]
    jobs: int = 1
    costs: Costs | None = None
    flaking: random.Random | None = None
    seen: Seen = field(default_factory=lambda: Seen({}))
    begun: list[int] = field(default_factory=list)
    rounds: int = 0

    def run(self, order: random.Random) -> Searcher:
        """Until the search is over; running trials end in ``order``."""
        while not is_over(self.aim, self.seen):
            self._begin()
            assert self.seen.running, "nothing runs, and yet the search is not over"
            self._end(order.choice(sorted(self.seen.running)))
            self._cancel()
            self.rounds += 1
        assert not next_picks(self.aim, self.seen, self.costs, self.jobs)
        boots = sum(map(len, self.seen.boots.values()))
        repeats = boots - len(self.seen.boots)
        assert repeats <= max(most_repeats(self.aim.count) + 4, 3 * self.aim.count) + self.jobs
        return self

    def _begin(self) -> None:
        free = self.jobs - len(self.seen.running)
        picks = next_picks(self.aim, self.seen, self.costs, free)
        assert len(set(picks)) == len(picks) <= free
        for index in picks:
            assert 0 <= index < len(self.world)
            assert index not in self.seen.running
            assert self.seen.outcomes.get(index) is not S
        self.begun += picks
        self.seen = replace(self.seen, running=self.seen.running | set(picks))

    def _end(self, index: int) -> None:
        outcome, counts = self._observe(index)
        boots = {**self.seen.boots, index: (*self.seen.boots.get(index, ()), counts)}
        self.seen = replace(
            self.seen,
            outcomes={**self.seen.outcomes, index: outcome},
            boots=boots,
            running=self.seen.running - {index},
        )

    def _observe(self, index: int) -> tuple[Outcome, Counts]:
        outcome = self.world[index]
        if outcome is S:
            return outcome, Counts()
        if self.flaking is None:
            return outcome, self._until_judged(index, Counts(outcome is P, outcome is F))
        if self.flaking.random() < 0.3:
            outcome = self.flaking.choice([P, F])
        if self.flaking.random() < 0.5:
            return outcome, STEADY[outcome]
        passes, fails = self.flaking.randrange(9), self.flaking.randrange(1, 9)
        return (outcome if passes else F), Counts(passes, fails)

    def _until_judged(self, index: int, each: Counts) -> Counts:
        context = boot_context(self.aim, self.seen, index, self.costs)
        counts = each
        while judge_boot(counts, context) is None:
            counts = counts.plus(each)
        return counts

    def _cancel(self) -> None:
        stale = pointless(self.aim, self.seen)
        assert stale <= self.seen.running
        self.seen = replace(self.seen, running=self.seen.running - stale)


@settings(max_examples=60)
@given(
    Worlds,
    st.sampled_from(Find),
    Modes,
    st.integers(1, 8),
    st.integers(1, 12),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_any_search_ends_and_tells_nothing_untested(
    world: list[Outcome],
    find: Find,
    mode: dict[str, bool],
    jobs: int,
    max_skips: int,
    priced: bool,
    dice: random.Random,
) -> None:
    """Whatever the releases come to, in any order: an end, no repetition, no guess as an answer."""
    aim = Aim(len(world), find, max_skips=max_skips, **mode)  # type: ignore[arg-type]
    costs = Costs([dice.choice([0, 8]) for _ in world], 3, 0) if priced else None
    done = Searcher(aim, world, jobs, costs).run(dice)
    assert all(done.seen.outcomes[index] is world[index] for index in done.seen.outcomes)
    conclusion = conclude_seen(aim, done.seen)
    for boundary in conclusion.boundaries:
        sides = (F, P) if boundary.change is Change.FIX else (P, F)
        assert (world[boundary.last_before], world[boundary.first_after]) == sides
        assert {boundary.last_before, boundary.first_after} <= done.seen.outcomes.keys()
        assert boundary.confidence is not None
        assert boundary.confidence >= aim.confidence or conclusion.verdict is not Verdict.FOUND
        assert boundary.exact == (len(boundary.suspects) == 1)
    judged = [world[index] for index in done.seen.judged]
    changes = sum(before is not after for before, after in pairwise(judged))
    assert changes > 1 or not conclusion.more_changes
    if aim.sweep:
        assert done.seen.outcomes == dict(enumerate(world))


@settings(max_examples=60, deadline=None)
@given(Worlds, st.sampled_from(Find), Modes, st.integers(1, 5), st.randoms(use_true_random=False))
def test_a_search_of_flaking_releases_ends_too(
    world: list[Outcome], find: Find, mode: dict[str, bool], jobs: int, dice: random.Random
) -> None:
    """Releases that come to anything at any time: a bounded number of boots, no exact guess."""
    aim = Aim(len(world), find, **mode)  # type: ignore[arg-type]
    done = Searcher(aim, world, jobs, flaking=dice).run(dice)
    conclusion = conclude_seen(aim, done.seen)
    for boundary in conclusion.boundaries:
        for index in (boundary.last_before, boundary.first_after):
            assert done.seen.outcomes[index] is not S
    if conclusion.verdict is Verdict.UNSURE:
        assert bool(conclusion.suspects) == (conclusion.likely is not None)
        assert all(0 < index < len(world) for index in conclusion.suspects)


@given(st.integers(2, 300), st.randoms(use_true_random=False), st.integers(1, 8))
def test_a_single_change_is_found_whatever_is_expected(
    count: int, dice: random.Random, jobs: int
) -> None:
    """Weights and costs steer the picks, and never the answer; untested releases come first."""
    at = dice.randrange(1, count)
    world = [F] * at + [P] * (count - at)
    weights = tuple(dice.choice([0.0, 0.01, 1.0, 50.0]) for _ in range(count))
    costs = Costs([dice.choice([0.0, 60.0, 480.0]) for _ in range(count)], 150.0, 2.0)
    done = Searcher(Aim(count, weights=weights), world, jobs, costs).run(dice)
    (boundary,) = conclude_seen(done.aim, done.seen).boundaries
    assert boundary.exact
    assert boundary.first_after == at
    first_again = next(n for n, index in enumerate(done.begun) if index in done.begun[:n])
    assert {at - 1, at} <= set(done.begun[:first_again])
    for index in (at - 1, at):
        assert len(done.seen.boots[index]) >= boots_needed(0.95)


@given(Worlds, st.randoms(use_true_random=False))
def test_costs_alike_change_nothing(world: list[Outcome], dice: random.Random) -> None:
    """Where every trial takes equally long, the midpoint is the quickest."""
    aim = Aim(len(world))
    costs = Costs([7.0] * len(world), 150.0, 2.0)
    assert Searcher(aim, world).run(dice).begun == Searcher(aim, world, costs=costs).run(dice).begun


@given(Worlds, st.randoms(use_true_random=False), st.integers(1, 8))
def test_find_all_leaves_no_long_stretch_and_no_open_change(
    world: list[Outcome], dice: random.Random, jobs: int
) -> None:
    """Between agreeing releases at most an eighth is untested, between others nothing."""
    count = len(world)
    seen = Searcher(Aim(count, find_all=True, max_skips=count), world, jobs).run(dice).seen
    for low, high in pairwise(seen.judged):
        between = [index for index in range(low + 1, high) if index not in seen.outcomes]
        if world[low] is not world[high]:
            assert not between
        longest = run = 0
        for index in range(low + 1, high):
            run = run + 1 if index not in seen.outcomes else 0
            longest = max(longest, run)
        assert longest <= count // 8


def test_find_all_finds_what_a_plain_search_warns_of() -> None:
    """Broken, fixed and broken again: every boundary, exactly."""
    world = [P] * 30 + [F] * 15 + [P] * 25 + [F] * 10
    dice = random.Random(1)
    aim = Aim(80, find_all=True)
    found = conclude_seen(aim, Searcher(aim, world, 3).run(dice).seen)
    assert [(b.change, b.first_after, b.exact) for b in found.boundaries] == [
        (Change.BREAK, 30, True),
        (Change.FIX, 45, True),
        (Change.BREAK, 70, True),
    ]
    assert found.more_changes
    assert not conclude_seen(Aim(80), Searcher(Aim(80), world).run(dice).seen).more_changes


@pytest.mark.parametrize("jobs", [1, 2, 4, 8])
def test_more_at_once_take_fewer_rounds(jobs: int) -> None:
    """With all trials equally long, the rounds fall as log2(jobs + 1), up to a tenth.

    Those until both sides of the change are known; what is booted again comes on top.
    """
    count, rounds = 1000, []
    for at in random.Random(5).sample(range(1, count), 60):
        seen, done = Seen({}), 0
        while not {at - 1, at} <= seen.outcomes.keys():
            picks = next_picks(Aim(count), seen, None, jobs)
            seen = Seen({**seen.outcomes, **{i: F if i < at else P for i in picks}})
            done += 1
        rounds.append(done)
    bound = (math.log2(count - 1) + 2) / math.log2(jobs + 1)
    assert sum(rounds) / len(rounds) <= 1.1 * bound + 0.1


def test_the_ends_start_together_with_points_between_them() -> None:
    """Free slots are used at once, and what is running is worked around."""
    assert next_picks(Aim(101), Seen({}), None, 1) == (0,)
    assert next_picks(Aim(101), Seen({}), None, 2) == (0, 100)
    assert next_picks(Aim(101), Seen({}), None, 5) == (0, 100, 25, 50, 75)
    assert next_picks(Aim(101), Seen({}, running=frozenset({0, 100, 25})), None, 1) == (62,)
    assert next_picks(Aim(101), Seen({}), None, 0) == ()


def test_what_lies_outside_of_the_bracket_is_cancelled() -> None:
    """A trial is pointless once its outcome is known without it; in a sweep none is."""
    running = frozenset({25, 50, 75})
    seen = Seen({0: F, 100: P}, running=running)
    assert not pointless(Aim(101), seen)
    moved = replace(seen, outcomes={0: F, 50: P, 100: P}, running=running - {50})
    assert pointless(Aim(101), moved) == {75}
    assert not pointless(Aim(101, sweep=True), moved)
    twice = {0: (STEADY[F],) * 2, 100: (STEADY[F],) * 2}
    agreeing = Seen({0: F, 100: F}, twice, running=running)
    assert pointless(Aim(101), agreeing) == running
    assert is_over(Aim(101), agreeing)
    assert not is_over(Aim(101), replace(agreeing, boots={})), "an end was booted once"


def test_dear_skips_end_a_search_and_cheap_ones_do_not() -> None:
    """After ``max_skips`` boots in vain all between are suspects, untested ones included."""
    world = [F] * 10 + [S] * 40 + [P] * 10
    aim = Aim(60, max_skips=5)
    seen = Searcher(aim, world).run(random.Random(2)).seen
    (boundary,) = conclude_seen(aim, seen).boundaries
    assert not boundary.exact
    assert sum(outcome is S for outcome in seen.outcomes.values()) == 5
    assert set(range(10, 50)) <= set(boundary.suspects)
    cheap = frozenset(index for index, outcome in seen.outcomes.items() if outcome is S)
    assert next_picks(aim, replace(seen, cheap_skips=cheap))


def test_a_broken_stretch_costs_few_boots_and_no_wrong_answer() -> None:
    """60 candidates, 15 broken in a row anywhere: at most 11 releases beyond the ends, on average.

    What is booted again to confirm the answer comes on top.
    """
    dice, tested = random.Random(3), 0
    for _ in range(300):
        at, first = dice.randrange(1, 60), dice.randrange(46)
        world = [F] * at + [P] * (60 - at)
        world[first : first + 15] = [S] * 15
        done = Searcher(Aim(60), world).run(dice)
        tested += len(set(done.begun)) - 2
        for boundary in conclude_seen(done.aim, done.seen).boundaries:
            assert at in boundary.suspects
    assert tested / 300 <= 11


def test_what_is_on_disk_is_tried_first() -> None:
    """A quarter cached, 3 minutes against 11: 1.35 times less time than midpoints, ends aside."""
    dice, ours, midpoint = random.Random(4), 0.0, 0.0
    for _ in range(300):
        at, cached = dice.randrange(1, 51), set(dice.sample(range(51), 13))
        world = [F] * at + [P] * (51 - at)
        costs = Costs([0 if index in cached else 480 for index in range(51)], 180, 0)

        def seconds(done: Searcher, fetch: Sequence[float] = costs.fetch) -> float:
            return sum(fetch[index] + 180 for index in {*done.begun} - {0, 50})

        ours += seconds(Searcher(Aim(51), world, costs=costs).run(dice))
        midpoint += seconds(Searcher(Aim(51), world).run(dice))
    assert midpoint / ours >= 1.35


@pytest.mark.parametrize("weights", [(1.0,), (0.0, -1.0), (0.0, math.nan), (0.0, math.inf)])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    """One for each candidate, finite and not negative."""
    with pytest.raises(ValueError, match="weight"):
        Aim(2, weights=weights)
