"""How many images are pulled at once, and which ones go to make room: decided without an engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from hypothesis import assume, given
from hypothesis import strategies as st

from vbisect.builds.disk import USUAL_UNPACKED, DiskBudget, Room, Shortfall, missing, taken
from vbisect.builds.lanes import Lanes
from vbisect.builds.pull import PullFailed, Trouble

RATES = st.floats(1e5, 1e9)


def settled(rate: Callable[[int], float], lanes: Lanes | None = None) -> int:
    """How many pulls go on at once after a while, where `rate` tells what so many get together."""
    lanes = lanes or Lanes()
    for _ in range(40):
        lanes.measured(lanes.allowed, rate(lanes.allowed))
    return lanes.allowed


@given(each=RATES, lanes=st.integers(1, 12))
def test_where_each_connection_is_limited_there_are_as_many_as_may_be(
    each: float, lanes: int
) -> None:
    assert settled(lambda number: number * each, Lanes(most=lanes)) == lanes


@given(total=RATES)
def test_where_the_line_is_limited_there_is_one(total: float) -> None:
    """Each one more would only delay the one that is waited for."""
    assert settled(lambda number: total) == 1


@given(each=RATES, share=st.floats(1, 20))
def test_where_both_are_limited_the_line_is_filled_and_no_more(each: float, share: float) -> None:
    lanes = Lanes()
    found = settled(lambda number: min(number, share) * each, lanes)
    assert min(math.floor(share), lanes.most) <= found <= min(math.ceil(share), lanes.most)


@given(each=RATES, share=st.floats(1, 20))
def test_a_line_that_gets_narrow_gets_fewer(each: float, share: float) -> None:
    lanes = Lanes()
    settled(lambda number: number * each, lanes)
    assert settled(lambda number: min(number, share) * each, lanes) <= math.ceil(share)


@given(st.lists(st.tuples(st.integers(1, 6), st.floats(0, 1e12)), max_size=30))
def test_there_is_always_one_and_never_more_than_may_be(
    samples: list[tuple[int, float]],
) -> None:
    lanes = Lanes()
    assert lanes.allowed == 1
    for number, rate in samples:
        lanes.measured(number, rate)
        assert 1 <= lanes.allowed <= lanes.most


# Layers have one size wherever they are; images share some of them.
SIZES = st.fixed_dictionaries({layer: st.integers(0, 100) for layer in "abcdefgh"})
LAYERS = st.sets(st.sampled_from("abcdefgh"))
OWN = st.dictionaries(st.sampled_from(["i", "j", "k", "l", "m"]), LAYERS)


@st.composite
def hosts(draw: st.DrawFn) -> dict[str, object]:
    """What `DiskBudget.room` is asked, but for the limit."""
    sizes = draw(SIZES)
    own = {name: {it: sizes[it] for it in layers} for name, layers in draw(OWN).items()}
    candidates = st.lists(st.sampled_from([*own, "gone"]), unique=True)
    return {
        "layers": {it: sizes[it] // 3 for it in draw(LAYERS)},
        "own": own,
        "others": draw(LAYERS),
        "reserved": draw(st.integers(0, 100)),
        "order": draw(candidates),
    }


def left(own: Mapping[str, Mapping[str, int]], gone: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """The images that stay."""
    return {name: dict(layers) for name, layers in own.items() if name not in gone}


@given(asked=hosts(), limit=st.integers(0, 1500))
def test_what_has_room_stays_within_the_limit_and_no_more_goes_than_must(
    asked: dict, limit: int
) -> None:
    budget, own = DiskBudget(limit), asked["own"]
    found = budget.room(**asked)
    order = tuple(name for name in asked["order"] if name in own)

    def bytes_without(gone: tuple[str, ...]) -> int:
        stay = left(own, gone)
        there = {*asked["others"], *(layer for layers in stay.values() for layer in layers)}
        return taken(stay) + asked["reserved"] + budget.needed(asked["layers"], there)

    if isinstance(found, Room):
        assert bytes_without(found.evict) <= limit
        assert found.evict == order[: len(found.evict)]  # the least useful first
        for fewer in range(len(found.evict)):
            assert bytes_without(order[:fewer]) > limit
    else:
        assert all(bytes_without(order[:number]) > limit for number in range(len(order) + 1))
        assert found.limit == bytes_without(order)


@given(asked=hosts(), limit=st.integers(0, 1500))
def test_the_limit_that_would_do_does(asked: dict, limit: int) -> None:
    found = DiskBudget(limit).room(**asked)
    assume(isinstance(found, Shortfall))
    assert isinstance(found, Shortfall)
    assert isinstance(DiskBudget(found.limit).room(**asked), Room)
    if found.limit:
        without_all = {**asked, "own": left(asked["own"], tuple(asked["order"]))}
        assert isinstance(DiskBudget(found.limit - 1).room(**without_all), Shortfall)


@given(hosts())
def test_without_a_limit_nothing_goes(asked: dict) -> None:
    found = DiskBudget(None).room(**asked)
    assert isinstance(found, Room)
    assert found.evict == ()


def test_layers_that_are_shared_count_once_and_go_with_the_last_image() -> None:
    own = {"x": {"base": 50, "one": 10}, "y": {"base": 50, "two": 10}}
    assert taken(own) == 70
    assert missing({"base": 20, "new": 5}, {"base"}) == 5
    budget = DiskBudget(80)
    budget.unpacked(10, 10)  # as large as it comes: what is pulled takes twice its size
    # one of them makes room, for the other keeps the base
    assert budget.room({"base": 20, "new": 10}, own, (), 0, ["x", "y"]) == Room(("x",), 20)
    # without both, the base has to come again
    needs = {"base": 20, "new": 20}
    assert budget.room(needs, own, (), 0, ["x", "y"]) == Room(("x", "y"), 80)
    # unless somebody else's image has it
    assert budget.room(needs, own, {"base"}, 0, ["x", "y"]) == Room(("x", "y"), 40)


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 5000)), min_size=1))
def test_no_image_takes_more_than_is_reckoned_with_once_its_like_was_seen(
    seen: list[tuple[int, int]],
) -> None:
    budget = DiskBudget(None)
    for compressed, unpacked in seen:
        budget.unpacked(compressed, unpacked)
    for compressed, unpacked in seen:
        assert budget.needed({"it": compressed}, ()) >= compressed + unpacked - 1


def test_before_any_image_was_seen_the_usual_one_is_reckoned_with() -> None:
    budget = DiskBudget(None)
    assert budget.needed({"it": 1000}, ()) == 1000 * (1 + USUAL_UNPACKED)
    budget.unpacked(0, 100)  # an image without layers of its own tells nothing
    assert budget.needed({"it": 1000}, ()) == 1000 * (1 + USUAL_UNPACKED)


def test_what_an_engine_says_of_a_pull_is_understood() -> None:
    """Words of Docker 20.10, 28 and 29, and of containerd."""
    for words, trouble in {
        "manifest for vllm/vllm-openai:v9 not found: manifest unknown: …": Trouble.MISSING,
        "no matching manifest for linux/arm64/v8 in the manifest list entries": Trouble.MISSING,
        "pull access denied for vllm/x, repository does not exist or may require 'docker login': "
        "denied: requested access to the resource is denied": Trouble.REFUSED,
        "unauthorized: authentication required": Trouble.REFUSED,
        'Get "https://r/v2/": x509: certificate signed by unknown authority': Trouble.UNTRUSTED,
        'Get "https://r/v2/": tls: failed to verify certificate: x509: certificate signed by '
        "unknown authority": Trouble.UNTRUSTED,
        'Get "https://r/v2/": remote error: tls: bad certificate': Trouble.UNTRUSTED,
        'Get "https://r/v2/": http: server gave HTTP response to HTTPS client': Trouble.UNTRUSTED,
        "toomanyrequests: You have reached your unauthenticated pull rate limit.": Trouble.BUSY,
        "failed to copy: httpReadSeeker: failed open: unexpected status code https://r/v2/x/blobs/"
        "sha256:ab: 429 Too Many Requests": Trouble.BUSY,
        f"filesystem layer verification failed for digest sha256:{'429f' * 16}": Trouble.CORRUPT,
        "failed to register layer: open /etc/shadow: permission denied": Trouble.CORRUPT,
        "failed to register layer: ApplyLayer exit status 1: unexpected EOF": Trouble.CORRUPT,
        "received unexpected HTTP status: 503 Service Unavailable": Trouble.PASSING,
        'Get "https://r/v2/": dial tcp 127.0.0.1:9: connect: connection refused': Trouble.PASSING,
        "": Trouble.PASSING,
    }.items():
        assert PullFailed(words).trouble is trouble, words
