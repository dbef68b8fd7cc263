"""What a search knows so far, and what finding out more costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

from vbisect.search.outcome import Outcome


class Counts(NamedTuple):
    """Observations of one boot or release: passes, and failures of the kind that is the bug."""

    passes: int = 0
    fails: int = 0

    @property
    def total(self) -> int:
        return self.passes + self.fails

    def plus(self, more: Counts) -> Counts:
        """Both together."""
        return Counts(self.passes + more.passes, self.fails + more.fails)


@dataclass(frozen=True)
class Seen:
    """The trials so far, by candidate.

    ``outcomes`` holds pass, fail or skip of each release tested. ``boots`` holds the observations
    of each of its boots, none for one that came to a skip; a release missing there counts as steady
    in its outcome. ``running`` are under trial now. ``cheap_skips`` cost no boot (never published,
    left out), do not count for ``max_skips`` and are not tried again; ``passing_skips`` are skips
    for a reason that can pass.
    """

    outcomes: Mapping[int, Outcome]
    boots: Mapping[int, tuple[Counts, ...]] = field(default_factory=dict)
    running: frozenset[int] = frozenset()
    cheap_skips: frozenset[int] = frozenset()
    passing_skips: frozenset[int] = frozenset()

    @property
    def judged(self) -> list[int]:
        """The releases that passed or failed, oldest first."""
        return sorted(i for i, outcome in self.outcomes.items() if outcome is not Outcome.SKIP)

    def total(self, index: int) -> Counts:
        """All observations of a release, over its boots."""
        return reduce(Counts.plus, self.boots.get(index, ()), Counts())

    def tries(self, index: int) -> int:
        """How often a release was booted, in vain or not."""
        return len(self.boots.get(index, (None,))) if index in self.outcomes else 0

    def dear_skips(self, low: int, high: int) -> int:
        """How many skips that cost a boot lie strictly between ``low`` and ``high``."""
        return sum(
            outcome is Outcome.SKIP and low < index < high and index not in self.cheap_skips
            for index, outcome in self.outcomes.items()
        )


@dataclass(frozen=True)
class Costs:
    """Seconds: ``fetch`` by candidate, 0 where the build is there, a boot, and a request."""

    fetch: Sequence[float]
    boot: float
    request: float


def flaky(seen: Seen) -> bool:
    """Whether any release was seen both passing and failing, within a boot or between boots."""
    return any(
        seen.outcomes.get(index) is not Outcome.SKIP
        and any(boot.passes for boot in boots)
        and any(boot.fails for boot in boots)
        for index, boots in seen.boots.items()
    )


def mixed(seen: Seen) -> bool:
    """Whether any boot was seen both passing and failing."""
    return any(boot.passes and boot.fails for boots in seen.boots.values() for boot in boots)
