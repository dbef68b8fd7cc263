"""How many requests a verdict on a steady release takes."""

from __future__ import annotations

import math

from vbisect.search.confidence import STEADY_FAILURES

_RARE = 0.1
"""The share of requests in which a bug may show and still be seen by a search."""


def passes_needed(confidence: float) -> int:
    """The clean requests after which a release counts as passing, while nothing was flaky."""
    return max(1, math.ceil(confidence / (1 - confidence) - 1 - 1e-9))


def end_passes_needed(confidence: float) -> int:
    """The clean requests of an end after which "no change" may be said.

    A bug that shows in a tenth of the requests would have shown, with half of the error that an
    answer may have; but no more than twice as many as other releases need.
    """
    error = (1 - confidence) / 2
    rare = math.ceil(math.log(error) / math.log(1 - _RARE) - 1e-9)
    needed = passes_needed(confidence)
    return min(max(needed, rare), 2 * needed)


def expected_requests(confidence: float) -> float:
    """The requests of one trial, when passing and failing are equally likely."""
    needed = passes_needed(confidence)
    return (needed + min(needed, STEADY_FAILURES)) / 2
