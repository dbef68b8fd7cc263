"""What one more boot of a release can tell: a noisy look at which side it is on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vbisect.search.belief import Belief
from vbisect.search.grid import chance_hidden
from vbisect.search.models import (
    NO_EVIDENCE,
    OWN_FAILS,
    RARE_BOOTS,
    RARE_REQUESTS,
    Evidence,
    bad_models,
    chance_of_passes,
    good_models,
    shares,
)
from vbisect.search.quickest import binary_entropy

_REQUESTS = 30
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
        self._belief = belief
        self._bad, self._good = belief.sides
        self._bad_shares = shares(bad_models(self._bad))
        self.untested = self._channel(NO_EVIDENCE, self._good)

    def of(self, index: int) -> Channel:
        """The channel of a boot of candidate ``index``."""
        own = self._belief.evidence.get(index)
        if own is None:
            return self.untested
        good = self._good.plus(own) if self._belief.is_bad(index) else self._good
        return self._channel(own, good)

    def _channel(self, own: Evidence, good: Evidence) -> Channel:
        """``good`` is the good side with the release on it: what it would then be like."""
        _, one_rate, own_rates, by_boot = self._bad_shares
        _, rare_requests, rare_boots = shares(good_models(good))
        rare = rare_requests * (1 + good.fails) / (1 + RARE_REQUESTS + good.fails + good.passes)
        bad = self._bad
        alike = one_rate * _confusion((1 + bad.fails) / (2 + bad.fails + bad.passes), rare)
        alike += own_rates * _confusion(
            (OWN_FAILS + own.fails) / (OWN_FAILS + 1 + own.fails + own.passes), rare
        )
        unseen = one_rate * chance_of_passes(_REQUESTS, 1 + bad.fails, 1 + bad.passes)
        unseen += own_rates * chance_of_passes(_REQUESTS, OWN_FAILS + own.fails, 1 + own.passes)
        miss = max(alike, unseen) + by_boot * chance_hidden(bad.sticking)
        boots = good.failing + good.passing
        odd_boot = rare_boots * (1 + good.failing) / (1 + RARE_BOOTS + boots)
        return Channel(_within(miss), _within(alike + odd_boot))


def _confusion(bad_rate: float, good_rate: float) -> float:
    """How often the requests of one boot look like those of the other side, at known rates.

    Half of the overlap of the two distributions to the power of the requests, as Bhattacharyya's
    bound has it: rates alike cannot be told apart, however often one asks.
    """
    overlap = math.sqrt(bad_rate * good_rate) + math.sqrt((1 - bad_rate) * (1 - good_rate))
    return 0.5 * min(1.0, overlap) ** _REQUESTS


def _within(chance: float) -> float:
    return min(1 - _LEAST, max(_LEAST, chance))
