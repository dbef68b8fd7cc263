"""How many requests a verdict on a steady release takes."""

from __future__ import annotations

import math

from vbisect.search.confidence import STEADY_FAILURES

_RARE = 0.1
"""The share of requests in which a bug may show and still be seen by a search."""


def passes_needed(confidence: float) -> int:
    """The clean requests after which a release counts as passing, while nothing was flaky."""
    return max(1, math.ceil(confidence / (1 - confidence) - 1 - 1e-9))


def rare_passes_needed(confidence: float) -> int:
    """The clean requests after which a bug is not taken to show in a tenth of them or more.

    It takes half of the error that an answer may have.
    """
    error = (1 - confidence) / 2
    return max(passes_needed(confidence), math.ceil(math.log(error) / math.log(1 - _RARE) - 1e-9))


def expected_requests(confidence: float) -> float:
    """The requests of one trial, when passing and failing are equally likely."""
    needed = passes_needed(confidence)
    return (needed + min(needed, STEADY_FAILURES)) / 2
