"""How likely what was seen is on either side of a change, whatever the rates of failure are.

A bad release shows the bug in a share of its boots, mostly in all; in such a boot a request fails
at a rate, mostly always. A good release fails never, in some requests, or in some boots. Nobody
knows the shares and rates, so both sides are a mixture over a few points of each, whose weights are
what is thought of them beforehand. Given a point, releases are independent of each other: their
log-likelihoods add up, point by point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce
from typing import NamedTuple

from vbisect.search.known import Counts

Logs = tuple[float, ...]
"""A log-likelihood for each point of one side."""


class Point(NamedTuple):
    """Failures in a ``share`` of the boots, in a ``rate`` of the requests of such a boot.

    With ``spread``, its two weights of a Beta distribution, each release has a rate of its own; and
    each boot, where ``each_boot``.
    """

    weight: float
    share: float
    rate: float
    spread: tuple[float, float] | None = None
    each_boot: bool = False

    @property
    def level(self) -> float:
        """The share of all requests that fail."""
        return self.share * self.rate


_SPREADS = ((2.0, 1.0), (1.0, 1.0), (0.5, 0.5), (1.0, 3.0))
"""Rates that differ from release to release: rather high, anywhere, at either end, rather low."""

_SHARES = {0.3: 0.6, 0.5: 1.0, 0.65: 1.1, 0.8: 1.3, 0.9: 1.4, 0.95: 1.4}
"""Shares of the boots in which the bug shows, with what each weighs: mostly it shows in most."""


def _evenly(weight: float, points: Sequence[Point]) -> list[Point]:
    whole = sum(point.weight for point in points)
    return [point._replace(weight=weight * point.weight / whole) for point in points]


BAD: tuple[Point, ...] = tuple(
    sorted(
        (
            Point(1.2, 1.0, 1.0),
            *_evenly(0.2, [Point(weight, s, 1.0) for s, weight in _SHARES.items()]),
            *_evenly(
                0.14, [Point(1, 1.0, r) for r in (0.06, 0.1, 0.17, 0.3, 0.45, 0.6, 0.8, 0.95)]
            ),
            *_evenly(
                0.08, [Point(1, s, r) for s in (0.3, 0.5, 0.7, 0.9) for r in (0.2, 0.35, 0.5, 0.8)]
            ),
            *_evenly(0.04, [Point(1, 1.0, a / (a + b), (a, b)) for a, b in _SPREADS]),
            Point(0.03, 1.0, 0.5, (1.0, 1.0), each_boot=True),
        ),
        key=lambda point: point.level,
    )
)
"""The bad side, the rarest failures first."""

GOOD: tuple[Point, ...] = (
    Point(0.9, 0.0, 0.0),
    *_evenly(0.2, [Point(1, 1.0, r) for r in (0.004, 0.012, 0.03, 0.06, 0.1, 0.17)]),
    *_evenly(0.15, [Point(1, s, 1.0) for s in (0.05, 0.1, 0.2, 0.35)]),
    *_evenly(0.05, [Point(1, s, 0.5) for s in (0.05, 0.1, 0.2, 0.35)]),
)
"""The good side."""

TIMES_AS_OFTEN = 1.8
"""How much more often a bad release fails than a good one at least: else they are alike."""

_IMPOSSIBLE = -1e5
"""Not infinite, so that sums stay numbers."""

_STRAY = 0.1
"""Chance that a boot which does not show the bug has stray failures; of one request in thirty."""

_STRAY_REQUESTS = 30.0

_FIRST = tuple(
    next(
        (place for place, bad in enumerate(BAD) if bad.level >= TIMES_AS_OFTEN * good.level),
        len(BAD),
    )
    for good in GOOD
)
"""For each good point the first bad one that fails often enough to be told from it."""


class Evidence(NamedTuple):
    """What was seen of any number of releases, for each point of either side."""

    bad: Logs
    good: Logs

    def plus(self, other: Evidence) -> Evidence:
        """What was seen of both."""
        return Evidence(
            tuple(a + b for a, b in zip(self.bad, other.bad, strict=True)),
            tuple(a + b for a, b in zip(self.good, other.good, strict=True)),
        )


NO_EVIDENCE = Evidence((0.0,) * len(BAD), (0.0,) * len(GOOD))
"""Nothing seen."""


@lru_cache(maxsize=1 << 16)
def evidence_of(boots: tuple[Counts, ...]) -> Evidence:
    """What the boots of one release say."""
    known = [boot for boot in boots if boot.total]
    return Evidence(
        tuple(_log_likelihood(point, known) for point in BAD),
        tuple(_log_likelihood(point, known) for point in GOOD),
    )


def _log_likelihood(point: Point, boots: Sequence[Counts]) -> float:
    if point.spread is not None:
        a, b = point.spread
        parts = boots if point.each_boot else [reduce(Counts.plus, boots, Counts())]
        return sum(_log_beta(a + p.fails, b + p.passes) - _log_beta(a, b) for p in parts)
    return sum(_of_boot(point.share, point.rate, boot) for boot in boots)


@lru_cache(maxsize=1 << 16)
def _of_boot(share: float, rate: float, boot: Counts) -> float:
    shown = _log_power(rate, boot.fails) + _log_power(1 - rate, boot.passes)
    if share == 1:
        return shown
    if boot.fails:
        stray = _log_beta(1 + boot.fails, _STRAY_REQUESTS + boot.passes)
        hidden = math.log(_STRAY) + stray - _log_beta(1, _STRAY_REQUESTS)
    else:
        hidden = math.log(1 - _STRAY)
    if share == 0:
        return _IMPOSSIBLE if boot.fails else 0.0
    return max(log_sum((math.log(share) + shown, math.log(1 - share) + hidden)), _IMPOSSIBLE)


def _log_power(chance: float, times: int) -> float:
    if not times:
        return 0.0
    return times * math.log(chance) if chance > 0 else _IMPOSSIBLE


_LOG_BAD = tuple(math.log(point.weight) for point in BAD)
_ALLOWED = tuple(math.log(sum(point.weight for point in BAD[first:])) for first in _FIRST)
_LOG_GOOD = tuple(
    math.log(point.weight) - whole for point, whole in zip(GOOD, _ALLOWED, strict=True)
)
_LOG_ALONE = tuple(math.log(point.weight) for point in GOOD)


def log_both(bad: Logs, good: Logs) -> float:
    """The log-likelihood of what was seen on both sides of a change."""
    first_bad = max(a + b for a, b in zip(_LOG_BAD, bad, strict=True))
    first_good = max(a + b for a, b in zip(_LOG_GOOD, good, strict=True))
    beyond, whole = [0.0] * (len(BAD) + 1), 0.0
    for place in range(len(BAD) - 1, -1, -1):
        whole += math.exp(_LOG_BAD[place] + bad[place] - first_bad)
        beyond[place] = whole
    total = sum(
        math.exp(weight + log - first_good) * beyond[first]
        for weight, log, first in zip(_LOG_GOOD, good, _FIRST, strict=True)
    )
    return first_bad + first_good + math.log(total + 1e-290)


def log_alone(bad: Logs | None, good: Logs | None) -> float:
    """The log-likelihood of releases that are all on one side, the one that is given."""
    if bad is not None:
        return log_sum([a + b for a, b in zip(_LOG_BAD, bad, strict=True)])
    assert good is not None
    return log_sum([a + b for a, b in zip(_LOG_ALONE, good, strict=True)])


Shares = tuple[tuple[int, float], ...]
"""The likely points of one side, each with its probability."""

_NEGLIGIBLE = 1e-5


def likely_points(bad: Logs, good: Logs) -> tuple[Shares, Shares]:
    """How likely the points of either side are by what was seen there."""
    return _shares(_LOG_BAD, bad), _shares(_LOG_ALONE, good)


def _shares(weights: Logs, logs: Logs) -> Shares:
    sums = [a + b for a, b in zip(weights, logs, strict=True)]
    top = max(sums)
    chances = [math.exp(value - top) for value in sums]
    whole = sum(chances)
    return tuple(
        (place, chance / whole)
        for place, chance in enumerate(chances)
        if chance > _NEGLIGIBLE * whole
    )


def log_mixed(points: Shares, logs: Logs) -> float:
    """The log-likelihood of a release at the ``points``, by its own ``logs``."""
    return log_sum([math.log(chance) + logs[place] for place, chance in points])


def log_sum(logs: Iterable[float]) -> float:
    """The log of the sum of numbers given by their logs."""
    known = list(logs)
    top = max(known)
    return top + math.log(sum(math.exp(value - top) for value in known))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
