"""What to begin, what to cancel, and when enough is known.

In a search for one change the releases are untested ones first, then those an answer rests on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from vbisect.search.belief import Belief, Piece, believe, boots_of
from vbisect.search.cuts import Seconds, Weighing, binary_entropy, untested_stretches
from vbisect.search.ends import MOST_TRIES, find_ends, outward_picks
from vbisect.search.known import Aim, Costs, Outcome, Seen, flaky, mixed
from vbisect.search.outlook import Outlook
from vbisect.search.plain import open_stretches, plain_picks, plain_pointless
from vbisect.search.requests import boots_needed, expected_requests, passes_needed
from vbisect.search.several import Sides, repeat_picks

_INSTANT = 1e-3
"""Seconds that a trial takes at least, so that the information per second stays finite."""

_FEWEST_BITS = 0.002
"""A boot that tells less is not worth its time; when all do, the search ends unsure. Where little
doubt is allowed, it is a twentieth of that."""

_NONE_SHARE = 0.5
"""Part of the error an answer may have that "no change" may have where releases flaked: rare
failures on both sides look much alike, and the prior between them is a guess."""

_BEYOND_DOUBT = 0.02
"""Part of the error an answer may have, below which a running trial can no longer matter."""

_MOST_IN_VAIN = 3
"""Further tries of skips between the sides of a change that came to skips again."""


def next_picks(aim: Aim, seen: Seen, costs: Costs | None = None, free: int = 1) -> tuple[int, ...]:
    """Up to ``free`` different candidates to begin a trial of now, given those running.

    Empty when nothing that is useful can begin now. Nothing running is ever picked; a release with
    an outcome is where an answer rests on it, or where anything was flaky.
    """
    if free < 1:
        return ()
    seconds = _seconds(aim, costs)
    if not aim.several:
        return _of_one(aim, seen, seconds, free)
    sides = Sides(aim, seen)
    told = replace(seen, outcomes=sides.outcomes)
    picks = plain_picks(aim, told, seconds, free)
    outward = [i for i in outward_picks(aim.count, told) if i not in {*picks, *seen.running}]
    picks += tuple(outward[: free - len(picks)])
    return picks + repeat_picks(aim, told, sides, free - len(picks))


def is_over(aim: Aim, seen: Seen) -> bool:
    """Whether nothing that runs matters and nothing is to begin: time to conclude."""
    return not seen.running - pointless(aim, seen) and not next_picks(aim, seen)


def pointless(aim: Aim, seen: Seen) -> frozenset[int]:
    """Of the running candidates, those whose outcome can no longer matter: to be cancelled."""
    ends = find_ends(aim.count, seen)
    if aim.several or ends is None or not seen.running:
        return frozenset()
    if not flaky(seen) and open_stretches(aim, replace(seen, running=frozenset())):
        return plain_pointless(aim, seen)
    belief = believe(aim, seen, ends, Weighing(None))
    now = standing(aim, seen, belief)
    outward = [*outward_picks(aim.count, seen)] if now.agreeing else []
    needed = {*now.to_confirm, *outward, *_retries(aim, seen, belief, now)}
    needed |= {ends.low, ends.high} - seen.outcomes.keys()
    needed |= {belief.best.last_before, belief.best.last} if belief.best else set()
    if now.settled or now.to_confirm:
        return seen.running - needed
    doubt = _BEYOND_DOUBT * (1 - aim.confidence)
    outlook = Outlook(belief, (), Weighing(None), None)
    return frozenset(
        index for index in seen.running - needed if not doubt < outlook.share_bad(index) < 1 - doubt
    )


def _seconds(aim: Aim, costs: Costs | None) -> Seconds | None:
    """How long a trial is expected to take, or ``None`` when nobody knows."""
    if costs is None:
        return None
    on_top = costs.boot + expected_requests(aim.confidence) * costs.request
    fetch = costs.fetch
    return lambda index: max(fetch[index] + on_top, _INSTANT)


def most_repeats(count: int) -> int:
    """Boots of releases booted before after which a search gives up."""
    return math.ceil(3 * math.log2(max(count, 2))) + 12


@dataclass(frozen=True)
class Standing:
    """How the search stands: ``settled`` when no further boot is needed or useful.

    ``to_confirm`` are the releases whose further boots the answer waits for; ``agreeing`` when it
    is that there is no change of the kind looked for.
    """

    settled: bool
    to_confirm: tuple[int, ...] = ()
    agreeing: bool = False


def standing(aim: Aim, seen: Seen, belief: Belief) -> Standing:
    """Whether the belief carries an answer: a boundary nothing untested is left in, or none.

    There is none before both ends were tested.
    """
    best, ends = belief.best, belief.ends
    if not {ends.low, ends.high} <= set(seen.judged):
        return Standing(False)
    if ends.low == ends.high:
        return Standing(True, agreeing=True)
    if all_alike(seen):
        return _confirmed(aim, seen, (ends.low, ends.high), agreeing=True)
    if best is not None and best.mass >= aim.confidence:
        if not aim.find.wants(best.change):
            return _confirmed(aim, seen, (ends.low, ends.high), agreeing=True)
        if not is_closed(aim, seen, best):
            return Standing(False)
        return _confirmed(aim, seen, (best.last_before, best.last))
    wanted = sum(piece.mass for piece in belief.pieces if aim.find.wants(piece.change))
    if wanted <= _NONE_SHARE * (1 - aim.confidence):
        return _confirmed(aim, seen, (ends.low, ends.high), agreeing=True)
    return Standing(False)


def all_alike(seen: Seen) -> bool:
    """Whether every release was steady in the same outcome; what that excludes is for the answer.

    A bug that an end hides in most boots is neither to be had in reasonable time, nor denied.
    """
    return not flaky(seen) and len({seen.outcomes[index] for index in seen.judged}) == 1


def is_closed(aim: Aim, seen: Seen, piece: Piece) -> bool:
    """Whether nothing that can be tested is left between the tested neighbours of a change."""
    neighbours = (piece.last_before, piece.last)
    if any(seen.outcomes.get(index, Outcome.SKIP) is Outcome.SKIP for index in neighbours):
        return False
    if seen.dear_skips(*neighbours) >= aim.max_skips:
        return True
    return not untested_stretches(*neighbours, seen.outcomes.keys())


def _confirmed(aim: Aim, seen: Seen, sides: tuple[int, int], *, agreeing: bool = False) -> Standing:
    needed = boots_needed(aim.confidence)
    again = tuple(i for i in sides if len(boots_of(aim, seen, i)) < needed and _may_boot(seen, i))
    return Standing(not again, again, agreeing)


def _of_one(aim: Aim, seen: Seen, seconds: Seconds | None, free: int) -> tuple[int, ...]:
    """Up to ``free`` candidates to boot now, tested ones among them, each after the last.

    While nothing flaked what is untested comes first, as where the change can be is known.
    """
    if not flaky(seen) and (picks := plain_picks(aim, seen, seconds, free)):
        return picks
    ends = find_ends(aim.count, seen)
    if ends is None:
        return ()
    new = [i for i in (ends.low, ends.high) if i not in seen.outcomes and i not in seen.running]
    picks = tuple(dict.fromkeys(new))[:free]
    belief = believe(aim, seen, ends, Weighing(None))
    now = standing(aim, seen, belief)
    again = len(seen.running) + sum(seen.tries(index) - 1 for index in seen.judged)
    # Confirming must not fail for want of one boot.
    most = most_repeats(aim.count) + (4 if now.to_confirm else 0)
    left = min(free - len(picks), most - again)
    if left <= 0:
        return picks
    if now.agreeing and (outward := [*outward_picks(aim.count, seen)]):
        return (*picks, *(i for i in outward if i not in seen.running))[:free]
    if retries := [i for i in _retries(aim, seen, belief, now) if i not in seen.running]:
        return (*picks, *retries[:left])
    if now.settled:
        return picks
    if now.to_confirm:
        return (*picks, *[i for i in now.to_confirm if i not in seen.running][:left])
    if seen.running and not flaky(seen):
        return picks  # what runs may settle it: a further boot is not for an idle slot alone
    weighing = Weighing(aim.weights)
    steering = believe(aim, seen, ends, weighing) if aim.weights else belief
    chooser = _Chooser(aim, seen, steering, weighing, seconds)
    return (*picks, *chooser.choose(left, seen.running | set(picks)))


def _retries(aim: Aim, seen: Seen, belief: Belief, now: Standing) -> list[int]:
    """Skips between the sides of the change to try again, the nearest to the middle first."""
    best = belief.best
    if best is None or now.agreeing or not is_closed(aim, seen, best):
        return []
    if best.mass < 0.5:
        return []
    low, high = best.last_before, best.last
    passing = [i for i in seen.passing_skips if low < i < high]
    if sum(seen.tries(index) - 1 for index in passing) >= _MOST_IN_VAIN:
        return []
    again = [index for index in passing if seen.tries(index) < MOST_TRIES]
    return sorted(again, key=lambda i: (seen.tries(i), abs(2 * i - low - high), i))[:1]


def _may_boot(seen: Seen, index: int) -> bool:
    """Whether a release has not come to a skip again and again since it was first judged."""
    return sum(not boot.total for boot in seen.boots.get(index, ())) <= MOST_TRIES


@dataclass
class _Chooser:
    """Picks one candidate after the other, each with the most information per second."""

    aim: Aim
    seen: Seen
    belief: Belief
    weighing: Weighing
    seconds: Seconds | None

    def choose(self, number: int, running: frozenset[int] | set[int]) -> list[int]:
        picks: list[int] = []
        least = min(_FEWEST_BITS, 0.05 * binary_entropy(1 - self.aim.confidence))
        requests = None if mixed(self.seen) else passes_needed(self.aim.confidence)
        for left in range(number, 0, -1):
            taken = {*running, *picks}
            outlook = Outlook(self.belief, taken, self.weighing, requests)
            best, most = None, 0.0
            for index in self._candidates(outlook, taken, left + 1):
                bits = outlook.bits(index)
                rate = bits / (
                    self.seconds(index) + 2 * self.seconds(self.seen.judged[0])
                    if self.seconds
                    else 1.0
                )
                if bits >= least and rate > most:
                    best, most = index, rate
            if best is None:
                break
            picks.append(best)
        return picks

    def _candidates(self, outlook: Outlook, taken: set[int], ways: int) -> Iterator[int]:
        """Every tested release in doubt, and of each untested stretch the points worth a look."""
        for index in self.seen.judged:
            if index not in taken and _may_boot(self.seen, index):
                yield index
        taken = taken | self.seen.outcomes.keys()
        places = {(piece.last_before, piece.last) for piece in self.belief.pieces}
        for low, high in sorted(places):
            if self.seen.dear_skips(low, high) >= self.aim.max_skips:
                continue
            stretches = untested_stretches(low, high, taken)
            longest = max(
                stretches, key=lambda s: (s.share(self.weighing), -s.off_middle), default=None
            )
            if longest is not None:
                yield from self._points(outlook, longest.first, longest.beyond, ways)

    def _points(self, outlook: Outlook, first: int, beyond: int, ways: int) -> Iterator[int]:
        """The point that divides what is open, and the nearest cheaper one on either side."""
        point = outlook.dividing(first, beyond, ways)
        yield point
        if self.seconds is None:
            return
        dear = self.seconds(point)
        for side in (range(point - 1, first - 1, -1), range(point + 1, beyond)):
            cheaper = next((i for i in side if self.seconds(i) < 0.9 * dear), None)
            if cheaper is not None:
                yield cheaper
