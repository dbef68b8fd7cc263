"""How likely what was seen is on either side of a change, whatever the rates of failure are.

Nobody knows how often a bad release fails, whether all bad releases fail alike, or whether one boot
fails every time and the next never. So each side is a mixture of models whose unknown rates are
integrated out, which the Beta distribution does in closed form. Every model needs only sums over
the releases of its side; ``Evidence`` holds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from vbisect.search.confidence import Counts
from vbisect.search.grid import NOTHING, Logs, grid_of


class Evidence(NamedTuple):
    """Sums over the boots of any number of releases.

    ``own_rates`` is the log-likelihood of the releases, each with a rate of its own; ``failing``
    and ``passing`` count the boots of which every request failed, or passed, ``mixed`` the others.
    ``sticking`` is the log-likelihood of failures that stick to a boot, for each of its points.
    """

    passes: float = 0
    fails: float = 0
    own_rates: float = 0
    failing: float = 0
    passing: float = 0
    mixed: float = 0
    sticking: Logs = NOTHING

    def plus(self, other: Evidence) -> Evidence:
        """The sums over the releases of both."""
        return Evidence(
            self.passes + other.passes,
            self.fails + other.fails,
            self.own_rates + other.own_rates,
            self.failing + other.failing,
            self.passing + other.passing,
            self.mixed + other.mixed,
            tuple(a + b for a, b in zip(self.sticking, other.sticking, strict=True)),
        )

    def minus(self, other: Evidence) -> Evidence:
        """The sums without those of ``other``, which are part of them."""
        return Evidence(
            self.passes - other.passes,
            self.fails - other.fails,
            self.own_rates - other.own_rates,
            self.failing - other.failing,
            self.passing - other.passing,
            self.mixed - other.mixed,
            tuple(a - b for a, b in zip(self.sticking, other.sticking, strict=True)),
        )


NO_EVIDENCE = Evidence()
"""Nothing seen."""


def evidence_of(boots: Iterable[Counts]) -> Evidence:
    """What the boots of one release say."""
    passes = fails = failing = passing = mixed = 0
    known = [boot for boot in boots if boot.total]
    for boot in known:
        passes, fails = passes + boot.passes, fails + boot.fails
        failing += not boot.passes
        passing += not boot.fails
        mixed += boot.passes > 0 and boot.fails > 0
    own = _log_beta(OWN_FAILS + fails, 1 + passes) - _log_beta(OWN_FAILS, 1)
    return Evidence(passes, fails, own, failing, passing, mixed, grid_of(known))


BAD_WEIGHTS = {"always": 0.2, "requests": 0.4, "own rates": 0.15, "boots": 0.25}
"""Bad releases fail always, at one rate per request, each at its own, or only in some boots."""

GOOD_WEIGHTS = {"never": 0.6, "requests": 0.3, "boots": 0.1}
"""Good releases fail never, or for another reason at a small rate per request or per boot."""

OWN_FAILS = 2.0
"""A rate of a release's own is Beta(this, 1): rather high, or a bad release is like a good one."""

RARE_REQUESTS = 30.0
RARE_BOOTS = 19.0
"""Requests, and boots, of which about one fails on the good side where that happens at all."""


def bad_models(seen: Evidence) -> tuple[float, ...]:
    """The log of weight times likelihood of each model, in the order of ``BAD_WEIGHTS``."""
    logs = (
        0.0 if not seen.passes else -math.inf,
        _log_beta(1 + seen.fails, 1 + seen.passes),
        seen.own_rates,
        log_sum(seen.sticking) - math.log(len(seen.sticking)),
    )
    return tuple(a + b for a, b in zip(_LOG_BAD, logs, strict=True))


def good_models(seen: Evidence) -> tuple[float, ...]:
    """The log of weight times likelihood of each model, in the order of ``GOOD_WEIGHTS``."""
    unanimous = not seen.mixed
    logs = (
        0.0 if not seen.fails else -math.inf,
        _log_beta(1 + seen.fails, RARE_REQUESTS + seen.passes) - _log_beta(1, RARE_REQUESTS),
        _log_beta(1 + seen.failing, RARE_BOOTS + seen.passing) - _log_beta(1, RARE_BOOTS)
        if unanimous
        else -math.inf,
    )
    return tuple(a + b for a, b in zip(_LOG_GOOD, logs, strict=True))


def log_bad(seen: Evidence) -> float:
    """The log-likelihood of ``seen`` on the bad side."""
    return log_sum(bad_models(seen))


def log_good(seen: Evidence) -> float:
    """The log-likelihood of ``seen`` on the good side."""
    return log_sum(good_models(seen))


def log_sum(logs: Iterable[float]) -> float:
    """The log of the sum of numbers given by their logs."""
    known = list(logs)
    top = max(known)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(value - top) for value in known))


def shares(logs: Iterable[float]) -> list[float]:
    """The numbers given by their logs, scaled to sum up to 1."""
    known = list(logs)
    whole = log_sum(known)
    return [math.exp(value - whole) for value in known]


def chance_of_passes(passes: int, fail_weight: float, pass_weight: float) -> float:
    """The chance of passes in a row at a rate that is Beta(``fail_weight``, ``pass_weight``)."""
    more = _log_beta(fail_weight, pass_weight + passes)
    return math.exp(more - _log_beta(fail_weight, pass_weight))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


_LOG_BAD = tuple(math.log(weight) for weight in BAD_WEIGHTS.values())
_LOG_GOOD = tuple(math.log(weight) for weight in GOOD_WEIGHTS.values())
