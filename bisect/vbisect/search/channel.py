"""What one more boot of a release can tell: a noisy look at which side it is on."""

from __future__ import annotations

from dataclasses import dataclass

from vbisect.search.belief import Belief
from vbisect.search.models import (
    RARE_BOOTS,
    Evidence,
    bad_models,
    chance_of_passes,
    good_models,
    shares,
)
from vbisect.search.quickest import binary_entropy

_REQUESTS = 20
"""Requests that one boot is taken to be worth before it is known how many it gets."""

_LEAST = 0.005
"""No boot is surer than this: what the models leave out can always happen."""


@dataclass(frozen=True)
class Channel:
    """The chances that a boot of a bad release looks good, and one of a good release bad."""

    miss: float
    false_alarm: float

    def bits(self, bad: float) -> float:
        """What a boot tells of a release that is bad with probability ``bad``."""
        looks_bad = bad * (1 - self.miss) + (1 - bad) * self.false_alarm
        noise = bad * binary_entropy(self.miss) + (1 - bad) * binary_entropy(self.false_alarm)
        return max(0.0, binary_entropy(looks_bad) - noise)


class Channels:
    """The channel of every candidate, given what was seen on both sides."""

    def __init__(self, belief: Belief) -> None:
        """Take the sides from the likeliest hypothesis."""
        self._evidence = belief.evidence
        self._bad, good = belief.sides
        self._bad_shares = shares(bad_models(self._bad))
        _, _, by_boot = shares(good_models(good))
        fails = (1 + good.failing) / (1 + RARE_BOOTS + good.failing + good.passing)
        self._false_alarm = max(_LEAST, by_boot * fails)
        self.untested = self._channel(Evidence())

    def of(self, index: int) -> Channel:
        """The channel of a boot of candidate ``index``."""
        own = self._evidence.get(index)
        return self._channel(own) if own is not None else self.untested

    def _channel(self, own: Evidence) -> Channel:
        _, one_rate, own_rates, by_boot = self._bad_shares
        bad = self._bad
        miss = (
            one_rate * chance_of_passes(_REQUESTS, 1 + bad.fails, 1 + bad.passes)
            + own_rates * chance_of_passes(_REQUESTS, 1 + own.fails, 1 + own.passes)
            + by_boot * (1 + bad.passing) / (2 + bad.passing + bad.failing)
        )
        return Channel(min(1 - _LEAST, max(_LEAST, miss)), self._false_alarm)
