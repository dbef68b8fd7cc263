"""Verdicts carry the confidence they claim, and more of the same evidence never weakens one."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vbisect.search import Counts, Outcome, judge, pass_confidence, weakest
from vbisect.search.confidence import STEADY_FAILURES, miss_chance

Asked = st.floats(0.5, 0.999)
Few = st.integers(0, 400)
Failing = st.builds(Counts, st.integers(0, 200), st.integers(1, 200))
Weakest = st.none() | Failing


@given(Few, Weakest)
def test_more_passes_make_a_pass_surer(passes: int, failing: Counts | None) -> None:
    """Each further pass leaves a bad release less room, and certainty is never reached."""
    now, then = pass_confidence(passes, failing), pass_confidence(passes + 1, failing)
    assert 0.5 <= now < then < 1


@given(Few, Failing)
def test_a_rare_failure_makes_passes_worth_less(passes: int, failing: Counts) -> None:
    """A release that failed seldom can only raise the demand on others, never lower it."""
    assert pass_confidence(passes, failing) <= pass_confidence(passes, None)
    rarer = Counts(failing.passes + 1, failing.fails)
    assert miss_chance(passes, rarer) >= miss_chance(passes, failing) - 1e-12


@given(Few, Asked, Weakest)
def test_a_pass_verdict_has_the_confidence_asked_for(
    passes: int, asked: float, failing: Counts | None
) -> None:
    """Clean releases pass exactly when the confidence is there; they never fail."""
    verdict = judge(Counts(passes, 0), asked, failing)
    enough = passes > 0 and pass_confidence(passes, failing) >= asked
    assert verdict is (Outcome.PASS if enough else None)


def test_nothing_observed_is_no_verdict() -> None:
    """Even odds are not a verdict: at the lowest confidence one observation is still needed."""
    assert judge(Counts(), 0.5, None) is None
    assert judge(Counts(), 0.5, Counts(3, 4)) is None
    assert judge(Counts(1, 0), 0.5, None) is Outcome.PASS


@given(Few, st.integers(1, 400), Asked, Weakest)
def test_a_release_seen_failing_never_passes(
    passes: int, fails: int, asked: float, failing: Counts | None
) -> None:
    """One failure of the bug's own kind excludes a pass for good."""
    verdict = judge(Counts(passes, fails), asked, failing)
    assert verdict in (Outcome.FAIL, None)
    if not passes and fails >= STEADY_FAILURES:
        assert verdict is Outcome.FAIL


@given(st.integers(0, 40), st.integers(0, 40), Asked, Weakest)
def test_judging_is_monotone(passes: int, fails: int, asked: float, failing: Counts | None) -> None:
    """More of what led to a verdict never takes it back, and asking for less never does."""
    verdict = judge(Counts(passes, fails), asked, failing)
    if verdict is Outcome.PASS:
        assert judge(Counts(passes + 1, fails), asked, failing) is Outcome.PASS
    if verdict is Outcome.FAIL:
        assert judge(Counts(passes, fails + 1), asked, failing) is Outcome.FAIL
    if verdict is not None:
        assert judge(Counts(passes, fails), (0.5 + asked) / 2, failing) is verdict


@given(Asked, Weakest, Few)
def test_every_release_is_settled_in_the_end(
    asked: float, failing: Counts | None, passing: int
) -> None:
    """However often it fails, a release seen failing is settled by what a clean one needs."""
    needed = math.ceil(1 / (1 / asked - 1)) if asked > 0.5 else 1
    passes = min(passing, needed - 1)
    assert judge(Counts(passes, max(needed - passes, 1)), asked, failing) is Outcome.FAIL


@pytest.mark.parametrize("asked", [0.8, 0.95])
@pytest.mark.parametrize("told", [False, True], ids=["nothing known", "failing end known"])
def test_pass_verdicts_are_wrong_no_more_often_than_claimed(asked: float, told: bool) -> None:
    """Over worlds half bad, with failure rates drawn at random, 1 − c of the passes are wrong."""
    draw = random.Random(17)
    passed = wrong = 0
    while passed < 4000:
        rate = draw.random() if draw.random() < 0.5 else 0.0
        reference = None
        if told:  # the failing end, whose own rate is another draw
            reference = settle(draw, draw.random(), asked, None)
            if not reference.fails:
                continue
        seen = settle(draw, rate, asked, reference)
        if not seen.fails:
            passed += 1
            wrong += rate > 0
    slack = 3 * (asked * (1 - asked) / passed) ** 0.5
    assert wrong / passed <= 1 - asked + slack
    assert told or wrong / passed > (1 - asked) / 3, "far more observations than were needed"


def settle(draw: random.Random, rate: float, asked: float, reference: Counts | None) -> Counts:
    """Observe a release that fails at ``rate`` until it is judged."""
    passes = fails = 0
    while judge(Counts(passes, fails), asked, reference) is None:
        if draw.random() < rate:
            fails += 1
        else:
            passes += 1
    return Counts(passes, fails)


@given(st.lists(st.builds(Counts, st.integers(0, 50), st.integers(0, 50)), max_size=20))
def test_the_weakest_fails_in_the_smallest_share(seen: list[Counts]) -> None:
    """Releases that never failed do not count; of equal shares the best observed one does."""
    chosen = weakest(seen)
    failing = [counts for counts in seen if counts.fails]
    if not failing:
        assert chosen is None
        return
    assert chosen in failing
    shares = [counts.fails / counts.total for counts in failing]
    assert chosen.fails / chosen.total == min(shares)
    assert chosen.total == max(
        c.total for c, share in zip(failing, shares, strict=True) if share == min(shares)
    )


def test_a_steady_failure_is_settled_after_a_few() -> None:
    """A release that fails every time costs five observations, not the eighteen of a clean one."""
    assert judge(Counts(0, STEADY_FAILURES - 1), 0.95, None) is None
    assert judge(Counts(0, STEADY_FAILURES), 0.95, None) is Outcome.FAIL
    assert judge(Counts(1, STEADY_FAILURES), 0.95, None) is None
    assert judge(Counts(17, 0), 0.95, None) is None
    assert judge(Counts(18, 0), 0.95, None) is Outcome.PASS
