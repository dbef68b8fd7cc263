"""What may be tested after the trials that are on, so that it can be fetched meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import zip_longest

from vbisect.search.belief import boots_of
from vbisect.search.ends import find_ends
from vbisect.search.known import Aim, Costs, Counts, Outcome, Seen
from vbisect.search.picks import next_picks

_MOST = 24
"""More than can be fetched while a few servers boot."""


def likely_after(
    aim: Aim, seen: Seen, costs: Costs | None = None, *, jobs: int = 1, depth: int = 1
) -> Iterator[int]:
    """What may be picked within ``depth`` rounds after the running trials, the soonest first.

    A round is over when all of its trials are, of which there are up to ``jobs`` at once. Every
    place where a single change may be counts as equally likely; what follows skips is listed last.
    Each candidate comes once, and is only looked for when it is asked for.
    """
    likely: dict[int, None] = {}
    level = [seen]
    for _ in range(depth):
        rounds = [
            (then, next_picks(aim, then, costs, free=jobs))
            for known in level
            for then in _endings(aim, known)
        ]
        # one of each place first: only one of them is the right one
        for ranked in zip_longest(*(_inside_out(picks) for _, picks in rounds)):
            yield from _new(likely, (pick for pick in ranked if pick is not None))
        if len(likely) >= _MOST:
            break
        level = [replace(then, running=frozenset(picks)) for then, picks in rounds if picks]
    yield from _new(likely, _after_skips(aim, seen, costs, jobs))


def leads_on(aim: Aim, seen: Seen, costs: Costs | None = None, *, jobs: int = 1) -> bool:
    """Whether something not yet tested comes next whatever the running trials pass or fail."""
    return all(
        any(pick not in then.outcomes for pick in next_picks(aim, then, costs, free=jobs))
        for then in _endings(aim, seen)
    )


def _new(known: dict[int, None], picks: Iterable[int]) -> Iterator[int]:
    """Those of ``picks`` not ``known`` so far, which are from now on."""
    for pick in picks:
        if pick not in known:
            known[pick] = None
            yield pick


def _endings(aim: Aim, seen: Seen) -> Iterator[Seen]:
    """What is known after the running trials, for each place of a single change among them.

    What is booted again comes to the same again.
    """
    running = _new_ones(seen)
    ends = find_ends(aim.count, seen)
    below = seen.outcomes.get(ends.low) if ends else None
    above = seen.outcomes.get(ends.high) if ends else None
    below = below or (Outcome.PASS if above is Outcome.FAIL else Outcome.FAIL)
    above = above or (Outcome.FAIL if below is Outcome.PASS else Outcome.PASS)
    for cut in range(len(running) + 1):
        ending = {**seen.outcomes}
        ending |= dict.fromkeys(running[:cut], below) | dict.fromkeys(running[cut:], above)
        boots = {i: (*boots_of(aim, seen, i), *_steady(aim, ending[i])) for i in seen.running}
        yield replace(seen, outcomes=ending, boots={**seen.boots} | boots, running=frozenset())


def _new_ones(seen: Seen) -> list[int]:
    """The running trials of what neither passed nor failed so far."""
    return sorted(seen.running.difference(seen.judged))


def _steady(aim: Aim, outcome: Outcome) -> tuple[Counts, ...]:
    """A boot that comes to an outcome."""
    return boots_of(aim, Seen({0: outcome}), 0)


def _inside_out(picks: tuple[int, ...]) -> list[int]:
    """The middle one first: of several in one bracket it alone tells the most."""
    middle = sum(picks) / len(picks) if picks else 0
    return sorted(picks, key=lambda pick: (abs(pick - middle), pick))


def _after_skips(aim: Aim, seen: Seen, costs: Costs | None, jobs: int) -> tuple[int, ...]:
    skipped = {**seen.outcomes} | dict.fromkeys(_new_ones(seen), Outcome.SKIP)
    then = replace(seen, outcomes=skipped, running=frozenset())
    return next_picks(aim, then, costs, free=jobs)
