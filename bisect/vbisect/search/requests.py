"""How many requests a boot takes, and how many boots a release, while nothing flakes.

All follow from the confidence asked for, by the bug that would have shown with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from vbisect.search.known import Counts

STEADY_FAILURES = 5
"""Failures in a row after which a boot in which nothing else was seen is not asked again."""

_REQUESTS, _END_REQUESTS, _BOOTS = 0.5, 0.14, 0.8
"""Shares: of the requests, of those at an end, and of the boots in which a bug would have shown."""


def passes_needed(confidence: float) -> int:
    """The clean requests after which a boot is not asked on."""
    return _until_shown(_REQUESTS, confidence)


def passes_to_show(rate: float, confidence: float) -> int:
    """The clean requests after which a bug would have shown that fails this share of them."""
    return max(passes_needed(confidence), _until_shown(min(rate, _REQUESTS), confidence))


def rarest(failing: Iterable[Counts]) -> float:
    """The share of requests that fail in the failing release where it is least; 1 without any."""
    return min((seen.fails / seen.total for seen in failing if seen.fails), default=1.0)


def end_passes_needed(confidence: float) -> int:
    """The clean requests of an end while no release failed: there the bug has to show itself."""
    return _until_shown(_END_REQUESTS, confidence)


def boots_needed(confidence: float) -> int:
    """The boots of each release that an answer rests on: requests of one boot are not boots."""
    return _until_shown(_BOOTS, confidence)


def expected_requests(confidence: float) -> float:
    """The requests of one boot, when passing and failing are equally likely."""
    needed = passes_needed(confidence)
    return (needed + min(needed, STEADY_FAILURES)) / 2


def _until_shown(share: float, confidence: float) -> int:
    """How often to look until what shows in ``share`` has shown with ``confidence``."""
    return max(1, math.ceil(math.log(1 - confidence) / math.log(1 - share) - 1e-9))
