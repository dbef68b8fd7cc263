"""The prior: large releases are likelier, none is ruled out, and no answer rests on it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vbisect.releases import catalogue
from vbisect.releases.commits import commits_between
from vbisect.run.prior import prior_weights
from vbisect.search import Aim, Counts, Outcome, Seen, Verdict, conclude_seen, is_over, next_picks
from vbisect.search.cuts import Weighing

ALL = tuple(catalogue())
P, F, S = Outcome.PASS, Outcome.FAIL, Outcome.SKIP
Ranges = st.sets(st.sampled_from(ALL), min_size=2).map(lambda chosen: tuple(sorted(chosen)))


@pytest.mark.parametrize(
    ("version", "least", "most"),
    [
        ("0.8.5", 310, 310),  # known by the release notes
        ("0.9.0", 649, 649),
        ("0.25.1", 2, 2),
        ("0.33.0", 500, 800),  # reckoned as the other releases of its time
        ("0.33.1", 1, 10),
        ("0.9.0.1", 1, 10),
        ("0.40.0.post1", 1, 10),
        ("0.33.1.dev202611200312+g0123abcde", 200, 400),
    ],
)
def test_commits_of_a_release(version: str, least: int, most: int) -> None:
    """Known ones are as the notes say, others as the nearest of the same kind."""
    assert least <= commits_between(["0.8.4", version])[1] <= most


def test_nightlies_of_one_release_share_its_commits() -> None:
    """However many are candidates, what came after the newest release is not more."""
    one = commits_between(["0.33.0", "0.33.1.dev1"])[1]
    many = commits_between(["0.33.0", *(f"0.33.1.dev{number}" for number in range(12))])[1:]
    assert sum(many) == pytest.approx(one)


def test_every_catalogued_release_has_commits() -> None:
    """None is impossible, and none dwarfs the others."""
    commits = commits_between(ALL)
    assert all(1 <= number <= 1500 for number in commits)


@given(Ranges, st.data())
def test_weights_rule_nothing_out(versions: tuple[str, ...], data: st.DataObject) -> None:
    """The least likely release has half of an even share; a hint has half of everything."""
    weights = prior_weights(versions)
    mean = sum(weights[1:]) / len(weights[1:])
    assert mean == pytest.approx(1)
    assert min(weights) >= 0.5
    hint = data.draw(st.sampled_from(versions[1:]))
    hinted = prior_weights(versions, hint)
    place = versions.index(hint)
    rest = sum(hinted[1:]) - hinted[place]
    assert hinted[place] == pytest.approx(rest)
    assert Weighing(hinted).between(1, len(versions) - 1) == pytest.approx(len(versions) - 1)


@st.composite
def evidence(draw: st.DrawFn) -> tuple[Seen, tuple[float, ...]]:
    """What some search may have seen, steady or flaky, and any weights."""
    count = draw(st.integers(2, 24))
    outcomes = draw(st.dictionaries(st.integers(0, count - 1), st.sampled_from([P, F, S])))
    numbers = st.integers(0, 20)
    boots = {
        index: tuple(
            Counts(passes, fails)
            for passes, fails in draw(
                st.lists(st.tuples(numbers, numbers).filter(any), min_size=1, max_size=3)
            )
        )
        for index, outcome in outcomes.items()
        if outcome is not S and draw(st.booleans())
    }
    weights = draw(st.lists(st.floats(0, 1e6), min_size=count, max_size=count))
    return Seen(outcomes, boots), tuple(weights)


NEWEST_UNTESTED = Seen({0: S, 13: S, 1: P, 2: P, 3: S, 12: P}), (0.0,) * 14 + (1.0,)


@given(evidence(), st.sampled_from([{}, {"sweep": True}, {"find_all": True}]))
@example(NEWEST_UNTESTED, {"sweep": True})
def test_the_same_evidence_is_the_same_answer(
    case: tuple[Seen, tuple[float, ...]], mode: dict[str, bool]
) -> None:
    """Answer, suspects and confidence are those of even weights, whatever the prior is.

    A search may give up unsure at another point, since it steers by the prior; it never answers
    where one without a prior would go on.
    """
    seen, weights = case
    flat, steered = Aim(len(weights), **mode), Aim(len(weights), **mode, weights=weights)
    told = conclude_seen(steered, seen)
    assert told == conclude_seen(flat, seen)
    if is_over(steered, seen) != is_over(flat, seen):
        assert told.verdict is Verdict.UNSURE


@given(Ranges, st.data())
def test_a_steady_search_finds_the_change_wherever_it_is(
    versions: tuple[str, ...], data: st.DataObject
) -> None:
    """Also where the prior least expects it, with three releases more at most than without one."""
    at = data.draw(st.integers(1, len(versions) - 1))
    tested = []
    for weights in (None, prior_weights(versions)):
        aim, seen = Aim(len(versions), weights=weights), Seen({})
        while picks := next_picks(aim, seen):
            [index] = picks
            outcome, boot = (F, Counts(0, 5)) if index < at else (P, Counts(5, 0))
            boots = {**seen.boots, index: (*seen.boots.get(index, ()), boot)}
            seen = Seen({**seen.outcomes, index: outcome}, boots)
        [boundary] = conclude_seen(aim, seen).boundaries
        assert (boundary.first_after, boundary.exact) == (at, True)
        tested.append(len(seen.outcomes))
    assert tested[1] <= tested[0] + 3
