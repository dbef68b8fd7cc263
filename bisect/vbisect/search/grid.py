"""Failures that stick to a boot: in a share of the boots the bug shows, in the others it does not.

Neither the share nor the rate at which a boot fails in which it shows is known, and together they
cannot be integrated out in closed form. So both are taken over a few values each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from vbisect.search.confidence import Counts

_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
_RATES = (0.1, 0.35, 0.65, 0.9, 1.0)
POINTS = tuple((share, rate) for share in _SHARES for rate in _RATES)
"""Every share of boots in which the bug shows, with every rate at which those boots fail."""

_RARE = 30.0
"""Requests of which one fails in a boot in which the bug does not show, if that happens at all."""

Logs = tuple[float, ...]
"""A log-likelihood for each of ``POINTS``."""

NOTHING: Logs = (0.0,) * len(POINTS)


def grid_of(boots: Iterable[Counts]) -> Logs:
    """What the boots of a bad release say of every point."""
    sums = list(NOTHING)
    for boot in boots:
        fails, passes = boot.fails, boot.passes
        hidden = _hidden(boot)
        # A point at which no boot can come to this is not ruled out, only very unlikely.
        for place, (share, rate) in enumerate(POINTS):
            shown = rate**fails * (1 - rate) ** passes
            sums[place] += math.log(share * shown + (1 - share) * hidden + 1e-300)
    return tuple(sums)


def chance_hidden(logs: Logs) -> float:
    """The expected share of boots in which the bug does not show, given what was seen."""
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    hidden = sum(w * (1 - share) for w, (share, _) in zip(weights, POINTS, strict=True))
    return hidden / sum(weights)


def _hidden(boot: Counts) -> float:
    """The likelihood of a boot in which the bug does not show; failures there are rare."""
    fails, passes = boot.fails, boot.passes
    rare = (
        math.lgamma(1 + fails)
        + math.lgamma(_RARE + passes)
        - math.lgamma(1 + fails + _RARE + passes)
    )
    return 0.5 * (not fails) + 0.5 * math.exp(rare + math.log(_RARE))
