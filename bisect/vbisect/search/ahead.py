"""What may be tested after the trials that are on, so that it can be fetched meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from vbisect.search.aim import Aim
from vbisect.search.boundary import testable_ends
from vbisect.search.outcome import Outcome
from vbisect.search.picks import next_picks
from vbisect.search.seen import Costs, Seen

_MOST = 24
"""More than can be fetched while a few servers boot."""


def likely_after(
    aim: Aim, seen: Seen, costs: Costs | None = None, *, jobs: int = 1, depth: int = 1
) -> tuple[int, ...]:
    """What may be picked within ``depth`` rounds after the running trials, the soonest first.

    A round is over when all of its trials are, of which there are up to ``jobs`` at once. Every
    place where a single change may be counts as equally likely; what follows skips is listed last.
    """
    likely: dict[int, None] = {}
    level = [seen]
    for _ in range(depth):
        following = []
        for known in level:
            for outcomes in _endings(aim, known):
                then = replace(known, outcomes=outcomes, running=frozenset())
                picks = next_picks(aim, then, costs, free=jobs)
                likely |= dict.fromkeys(picks)
                if picks and len(likely) < _MOST:
                    following.append(replace(then, running=frozenset(picks)))
        level = following
    return tuple(likely | dict.fromkeys(_after_skips(aim, seen, costs, jobs)))


def _endings(aim: Aim, seen: Seen) -> Iterator[Mapping[int, Outcome]]:
    """The outcomes after the running trials, for each place of a single change among them."""
    running = sorted(seen.running)
    ends = testable_ends(aim.count, seen.outcomes)
    below = seen.outcomes.get(ends.low) if ends else None
    above = seen.outcomes.get(ends.high) if ends else None
    below = below or (Outcome.PASS if above is Outcome.FAIL else Outcome.FAIL)
    above = above or (Outcome.FAIL if below is Outcome.PASS else Outcome.PASS)
    for cut in range(len(running) + 1):
        ending = {**seen.outcomes}
        ending |= dict.fromkeys(running[:cut], below) | dict.fromkeys(running[cut:], above)
        yield ending


def _after_skips(aim: Aim, seen: Seen, costs: Costs | None, jobs: int) -> tuple[int, ...]:
    skipped = {**seen.outcomes} | dict.fromkeys(seen.running, Outcome.SKIP)
    then = replace(seen, outcomes=skipped, running=frozenset())
    return next_picks(aim, then, costs, free=jobs)
