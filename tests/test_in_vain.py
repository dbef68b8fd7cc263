"""How much may be fetched ahead of trials: decided without an engine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vbisect.builds.in_vain import MOST_IN_VAIN, pays
from vbisect.search import Aim, Outcome, Seen, leads_on

P, F = Outcome.PASS, Outcome.FAIL
BYTES = st.integers(1, 100)


@given(
    sizes=st.lists(BYTES, min_size=1, max_size=9),
    of_use=st.integers(1, 3),
    used=st.sets(st.integers(100, 109)),
    spent=st.dictionaries(st.integers(200, 209), BYTES),
    each=BYTES,
)
def test_whatever_comes_of_the_trials_at_most_half_is_in_vain(
    sizes: list[int], of_use: int, used: set[int], spent: dict[int, int], each: int
) -> None:
    """All that is begun, in the order wanted, may turn out to be needless but what is sure."""
    wanted = list(range(len(sizes)))
    known = dict(enumerate(sizes)) | dict.fromkeys(used, each)
    come = spent | dict.fromkeys(used, each)
    begun: set[int] = set()
    for build in wanted:
        if pays(
            build, wanted=wanted, of_use=of_use, used=used, begun=begun, come=come, sizes=known
        ):
            begun.add(build)
    assert begun.issuperset(wanted[:of_use]), "what is sure is never held back"
    in_vain = sum(sizes[build] for build in begun - set(wanted[:of_use]))
    useful = sum(sizes[:of_use]) + each * len(used)
    if in_vain:
        assert in_vain + sum(spent.values()) <= MOST_IN_VAIN * useful


def test_of_two_that_may_come_next_one_is_sure() -> None:
    """Within the ends; but after the second end, which may agree with the first, nothing is."""
    aim = Aim(51)
    assert leads_on(aim, Seen({}, running=frozenset({0})))
    assert not leads_on(aim, Seen({0: F}, running=frozenset({50})))
    assert leads_on(aim, Seen({0: F, 50: P}, running=frozenset({25})))
    assert not leads_on(aim, Seen({0: F, 50: P, 24: F}, running=frozenset({25})))
