"""Whether enough requests have been sent inside one boot.

While no boot was seen both passing and failing, a few requests in a row settle it. After that it is
a sequential test between the two sides, with what is known of both: it ends when the odds are far
enough either way, or when a further boot tells more than a further request in the same time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vbisect.search.belief import believe, boots_of
from vbisect.search.cuts import Weighing, binary_entropy
from vbisect.search.ends import find_ends
from vbisect.search.known import Aim, Costs, Counts, Outcome, Seen, flaky, mixed
from vbisect.search.models import NO_EVIDENCE, Shares, evidence_of, likely_points, log_mixed
from vbisect.search.requests import STEADY_FAILURES, end_passes_needed, passes_needed
from vbisect.search.several import Sides

MOST_REQUESTS = 300
"""Requests in one boot; what they leave open, only another boot can tell."""

_ERROR_SHARE = 0.1
"""Part of the error an answer may have that a single boot may have: several decide an answer."""

_UNKNOWN = likely_points(*NO_EVIDENCE)
"""The points of either side before anything was seen."""

_USUAL = Costs((), 150.0, 2.0)
"""What a boot and a request take where nobody has measured it."""


@dataclass(frozen=True)
class BootContext:
    """What judging one boot of a release needs to know; plain numbers, so that it can travel.

    ``clean`` passes in a row settle a boot while none was ``mixed``. ``earlier`` holds passes and
    fails of each earlier boot of the release; ``bad`` and ``good`` are the likely points of either
    side by the other releases. ``least_bits`` is what a request must tell once there were
    ``least_requests``.
    """

    confidence: float
    clean: int = 1
    mixed: bool = False
    earlier: tuple[tuple[int, int], ...] = ()
    bad: Shares = _UNKNOWN[0]
    good: Shares = _UNKNOWN[1]
    least_bits: float = 0.0
    least_requests: int = 10


def boot_context(aim: Aim, seen: Seen, index: int, costs: Costs | None = None) -> BootContext:
    """What judging a boot of candidate ``index`` needs to know, made when the trial begins."""
    bad, good = _other_sides(aim, seen, index)
    return BootContext(
        aim.confidence,
        _clean(aim, seen, index),
        mixed(seen),
        tuple((boot.passes, boot.fails) for boot in boots_of(aim, seen, index)),
        bad,
        good,
        _least_bits(costs or _USUAL),
        _least_requests(costs or _USUAL),
    )


def _other_sides(aim: Aim, seen: Seen, index: int) -> tuple[Shares, Shares]:
    """The likely points of the bad and of the good releases, by all but ``index``."""
    ends = find_ends(aim.count, seen)
    if not flaky(seen) or ends is None:
        return _UNKNOWN
    if aim.several:
        bad, good = Sides(aim, seen).without(index)
        return likely_points(bad.bad, good.good)
    return believe(aim, seen, ends, Weighing(None)).points_without(index)


def judge_boot(now: Counts, context: BootContext, other: int = 0) -> Outcome | None:
    """The outcome of a boot that came to ``now`` so far; ``None``: send another request.

    The outcome is that of the release: earlier boots of it count for which one it is, and not for
    whether this boot has been asked enough. ``other`` failures, of another kind than the bug, are
    neither; a boot is a skip where there was nothing else.
    """
    if not now.total:
        return Outcome.SKIP if other >= STEADY_FAILURES else None
    if now.total + other < MOST_REQUESTS and not _is_enough(now, context):
        return None
    passes = now.passes + sum(passes for passes, _ in context.earlier)
    fails = now.fails + sum(fails for _, fails in context.earlier)
    if not (passes and fails):
        return Outcome.FAIL if fails else Outcome.PASS
    return Outcome.FAIL if _odds(now, context) > 0 else Outcome.PASS


def _is_enough(now: Counts, context: BootContext) -> bool:
    if not now.passes and now.fails >= STEADY_FAILURES:
        return True  # more of the same would not tell a bad release from an odd boot of a good one
    if not context.mixed and not now.fails:
        return now.passes >= context.clean
    odds = _odds(now, context) - _odds(Counts(), context)
    bad = 1 / (1 + math.exp(-max(-700.0, min(700.0, odds))))
    if min(bad, 1 - bad) <= _ERROR_SHARE * (1 - context.confidence):
        return True
    if now.total < context.least_requests:
        return False
    return _next_bits(now, context, bad) < context.least_bits


def _next_bits(now: Counts, context: BootContext, bad: float) -> float:
    """How much the next request is expected to tell of which side the release is on."""
    one_more = Counts(now.passes, now.fails + 1)
    fails_bad, fails_good = (
        math.exp(more - before)
        for more, before in zip(_logs(one_more, context), _logs(now, context), strict=True)
    )
    fails = bad * fails_bad + (1 - bad) * fails_good
    open_still = bad * binary_entropy(fails_bad) + (1 - bad) * binary_entropy(fails_good)
    return binary_entropy(fails) - open_still


def _odds(now: Counts, context: BootContext) -> float:
    """The log of the odds that the release is bad, even ones before all of its boots."""
    bad, good = _logs(now, context)
    return bad - good


def _logs(now: Counts, context: BootContext) -> tuple[float, float]:
    """The log-likelihood of all boots of the release, this one among them, on either side."""
    own = evidence_of((*(Counts(*boot) for boot in context.earlier), now))
    return log_mixed(context.bad, own.bad), log_mixed(context.good, own.good)


def _least_bits(costs: Costs) -> float:
    """What a request must tell at least: half of what a boot tells, in the time of a request."""
    return min(0.02, 0.5 * costs.request / max(costs.boot, costs.request, 1e-9))


def _least_requests(costs: Costs) -> int:
    """Requests that take half as long as the boot: until then they are the cheaper evidence."""
    most = 0.5 * costs.boot / costs.request if costs.request else math.inf
    return round(min(max(most, 10), 60))


def _clean(aim: Aim, seen: Seen, index: int) -> int:
    """The clean requests that settle a boot; more at an end on which "no change" may come to rest.

    No other release is asked then, so the bug has to show at the end itself.
    """
    ends = find_ends(aim.count, seen)
    none_failed = Outcome.FAIL not in seen.outcomes.values()
    if ends is not None and index in (ends.low, ends.high) and none_failed:
        return end_passes_needed(aim.confidence)
    return passes_needed(aim.confidence)
