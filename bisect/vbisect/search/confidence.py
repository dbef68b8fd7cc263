"""How many observations a verdict needs.

The failing side of a change may fail only now and then, at a rate nobody knows beforehand and
that differs from release to release. So a single failure of the bug's own kind proves a release
bad, while a clean release is proved by clean observations alone:

* Before any failure was seen the unknown rate is taken as uniform on (0, 1). A bad release then
  stays clean for ``m`` observations with probability 1 / (m + 1) (Laplace's rule of succession).
* Once failing releases were seen, a bad release may also look like the weakest of them: with
  ``f`` failures and ``p`` passes there, the chance is that of ``m`` passes in a row under
  Beta(1 + f, 1 + p). The larger of the two chances counts, so that a release which fails always
  never makes a verdict about another release cheaper.

With even odds before the first observation, a release that stayed clean is good with probability
1 / (1 + chance).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from vbisect.search.outcome import Outcome

STEADY_FAILURES = 5
"""Failures in a row after which a failing release is not asked again."""


@dataclass(frozen=True)
class Counts:
    """Observations of one release."""

    passes: int = 0
    fails: int = 0

    @property
    def total(self) -> int:
        return self.passes + self.fails


def miss_chance(passes: int, weakest_failing: Counts | None) -> float:
    """The chance that a bad release passes ``passes`` observations in a row."""
    unknown_rate = 1 / (passes + 1)
    if weakest_failing is None:
        return unknown_rate
    fails, clean = 1 + weakest_failing.fails, 1 + weakest_failing.passes
    # E[(1 - r)^m] for r ~ Beta(fails, clean), as a ratio of Beta functions
    seen_rate = math.exp(
        math.lgamma(clean + passes)
        - math.lgamma(fails + clean + passes)
        - math.lgamma(clean)
        + math.lgamma(fails + clean)
    )
    return min(1.0, max(unknown_rate, seen_rate))  # rounding can leave it above 1


def pass_confidence(passes: int, weakest_failing: Counts | None) -> float:
    """The probability, in [0.5, 1), that a release which only passed is good."""
    return 1 / (1 + miss_chance(passes, weakest_failing))


def judge(seen: Counts, confidence: float, weakest_failing: Counts | None) -> Outcome | None:
    """The verdict ``seen`` carries at ``confidence`` (in (0, 1)), or ``None``: observe more.

    Nothing observed is never a verdict, however little confidence is asked for.
    A release that fails every time is settled after a few failures; one that fails now and then
    is observed as often as a clean one, because its rate decides what later verdicts need.
    """
    if not seen.total:
        return None
    enough = pass_confidence(seen.total, weakest_failing if not seen.fails else None) >= confidence
    if not seen.fails:
        return Outcome.PASS if enough else None
    if enough or (not seen.passes and seen.fails >= STEADY_FAILURES):
        return Outcome.FAIL
    return None


def weakest(failing: Iterable[Counts]) -> Counts | None:
    """Of the releases seen failing, the one that failed in the smallest share of observations."""
    seen = [counts for counts in failing if counts.fails]
    return min(seen, key=lambda counts: (counts.fails / counts.total, -counts.total), default=None)
