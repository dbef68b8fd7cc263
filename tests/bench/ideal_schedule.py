"""The shortest a search could have taken that pulls images ahead and boots one server at a time.

The ideal scheduler has no costs of its own. It has as many connections as the engine, knows the
outcomes seen so far and nothing of those to come, and always uses every connection: for the image
of the trial that is on, then for those that the search could pick next, the sooner and likelier
first, as far ahead as ``likely_after`` looks. The moment an outcome rules an image out, its
connection is free for another. A trial starts when its image is there, and takes its boot and its
probe.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from vbisect.search import Aim, Outcome, Seen, likely_after

AS_FAR_AS_IT_GOES = 9  # trials: more than a search among 51 candidates has left after its first


@dataclass
class _Line:
    """Connections of which each brings an image in ``pull_seconds``."""

    connections: int
    pull_seconds: float
    there: set[int]
    done_at: dict[int, float] = field(default_factory=dict)

    def order(self, wanted: Sequence[int], now: float) -> None:
        """Give up what is not ``wanted``; begin with what is, while connections are free."""
        self.done_at = {image: at for image, at in self.done_at.items() if image in wanted}
        for image in wanted:
            if len(self.done_at) < self.connections and image not in self.there | set(self.done_at):
                self.done_at[image] = now + self.pull_seconds

    def carry_on(self, wanted: Sequence[int], until: float) -> None:
        """Let time go by; a free connection goes on with the next of ``wanted`` at once."""
        while self.done_at and (at := min(self.done_at.values())) <= until:
            arrived = {image for image, done in self.done_at.items() if done <= at}
            self.there |= arrived
            for image in arrived:
                del self.done_at[image]
            self.order(wanted, at)


def ideal_seconds(
    candidates: int,
    trials: Sequence[tuple[int, Outcome]],
    *,
    cached: Collection[int],
    pull_seconds: float,
    trial_seconds: float,
    connections: int,
) -> float:
    """How long ``trials`` (candidate and outcome, in the order tested) take at least.

    ``pull_seconds`` is for an image that is not ``cached``, ``trial_seconds`` for the boot and the
    probe of one.
    """
    aim = Aim(candidates)
    now = 0.0
    known: dict[int, Outcome] = {}
    line = _Line(connections, pull_seconds, set(cached))
    for pick, outcome in trials:
        seen = Seen(known, running=frozenset({pick}))
        wanted = (pick, *likely_after(aim, seen, depth=AS_FAR_AS_IT_GOES))
        line.order(wanted, now)
        while pick not in line.there:
            now = min(line.done_at.values())
            line.carry_on(wanted, now)
        now += trial_seconds
        line.carry_on(wanted, now)
        known[pick] = outcome
    return now
