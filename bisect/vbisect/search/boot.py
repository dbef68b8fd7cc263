"""Whether enough requests have been sent inside one boot.

While nothing was flaky this is the plain judgement. After that it is a sequential test between the
two sides, with what is known of both: it ends when the odds are far enough either way, or when a
further boot tells more than a further request in the same time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vbisect.search.aim import Aim
from vbisect.search.belief import believe, boots_of
from vbisect.search.boundary import Ends, testable_ends
from vbisect.search.confidence import STEADY_FAILURES, Counts, judge, weakest
from vbisect.search.models import NO_EVIDENCE, Evidence, evidence_of, log_bad, log_good
from vbisect.search.outcome import Outcome
from vbisect.search.quickest import binary_entropy
from vbisect.search.requests import end_passes_needed
from vbisect.search.seen import Costs, Seen, flaky
from vbisect.search.sides import Sides
from vbisect.search.weighing import Weighing

MOST_REQUESTS = 300
"""Requests in one boot; what they leave open, only another boot can tell."""

_ERROR_SHARE = 0.1
"""Part of the error an answer may have that a single boot may have: several decide an answer."""

_USUAL = Costs((), 150.0, 2.0)
"""What a boot and a request take where nobody has measured it."""


@dataclass(frozen=True)
class BootContext:
    """What judging one boot of a release needs to know; plain numbers, so that it can travel.

    ``weakest`` has the passes and fails of the failing release that fails least often.
    ``earlier`` holds passes and fails of each earlier boot of the release, while nothing was flaky
    of those that were interrupted; ``bad`` and ``good`` are
    the sums over the other releases of either side. ``least_bits`` is what a request must tell
    once there were ``least_requests``; with fewer than ``least_passes`` no release passes.
    """

    confidence: float
    flaky: bool = False
    weakest: tuple[int, int] | None = None
    earlier: tuple[tuple[int, int], ...] = ()
    bad: Evidence = NO_EVIDENCE
    good: Evidence = NO_EVIDENCE
    least_bits: float = 0.0
    least_requests: int = 10
    least_passes: int = 0


def boot_context(aim: Aim, seen: Seen, index: int, costs: Costs | None = None) -> BootContext:
    """What judging a boot of candidate ``index`` needs to know, made when the trial begins."""
    failing = weakest(seen.total(i) for i, o in seen.outcomes.items() if o is Outcome.FAIL)
    told = (failing.passes, failing.fails) if failing else None
    ends = testable_ends(aim.count, seen.outcomes)
    if not flaky(seen) or ends is None:
        least = _least_passes(aim, seen, index)
        return BootContext(aim.confidence, weakest=told, least_passes=least)
    bad, good = _other_sides(aim, seen, ends, index)
    earlier = tuple((boot.passes, boot.fails) for boot in boots_of(aim, seen, index))
    return BootContext(
        aim.confidence,
        True,
        told,
        earlier,
        bad,
        good,
        _least_bits(costs or _USUAL),
        _least_requests(costs or _USUAL),
    )


def _other_sides(aim: Aim, seen: Seen, ends: Ends, index: int) -> tuple[Evidence, Evidence]:
    """What was seen of the bad and of the good releases, ``index`` itself left out."""
    if aim.several:
        return Sides(aim, seen).without(index)
    belief = believe(aim, seen, ends, Weighing(None))
    return belief.sides_without(index)


def judge_boot(now: Counts, context: BootContext) -> Outcome | None:
    """The outcome of a boot that came to ``now`` so far; ``None``: send another request.

    The outcome is that of the release: earlier boots of it count for which one it is, and not for
    whether this boot has been asked enough.
    """
    if not now.total:
        return None
    whole = Counts(
        now.passes + sum(passes for passes, _ in context.earlier),
        now.fails + sum(fails for _, fails in context.earlier),
    )
    if not context.flaky:
        if not whole.fails and whole.passes < context.least_passes:
            return None
        return judge(whole, context.confidence, _counts(context.weakest))
    if now.total < MOST_REQUESTS and not _is_enough(now, context):
        return None
    if not (whole.passes and whole.fails):
        return Outcome.FAIL if whole.fails else Outcome.PASS
    return Outcome.FAIL if _odds(now, context, of_boot=False) > 0 else Outcome.PASS


def _is_enough(now: Counts, context: BootContext) -> bool:
    if not now.passes and now.fails >= STEADY_FAILURES:
        return True  # more of the same would not tell a bad release from an odd boot of a good one
    odds = _odds(now, context)
    bad = 1 / (1 + math.exp(-max(-700.0, min(700.0, odds))))
    if min(bad, 1 - bad) <= _ERROR_SHARE * (1 - context.confidence):
        return True
    if now.total < context.least_requests:
        return False
    return _next_bits(now, context, bad) < context.least_bits


def _next_bits(now: Counts, context: BootContext, bad: float) -> float:
    """How much the next request is expected to tell of which side the release is on."""
    one_more = Counts(now.passes, now.fails + 1)
    fails_bad = math.exp(_log_if_bad(one_more, context) - _log_if_bad(now, context))
    fails_good = math.exp(_log_if_good(one_more, context) - _log_if_good(now, context))
    fails = bad * fails_bad + (1 - bad) * fails_good
    open_still = bad * binary_entropy(fails_bad) + (1 - bad) * binary_entropy(fails_good)
    return binary_entropy(fails) - open_still


def _odds(now: Counts, context: BootContext, *, of_boot: bool = True) -> float:
    """The log of the odds that the release is bad, even ones before this boot or before all."""
    odds = _log_if_bad(now, context) - _log_if_good(now, context)
    if of_boot:
        return odds - _log_if_bad(Counts(), context) + _log_if_good(Counts(), context)
    return odds - log_bad(context.bad) + log_good(context.good)


def _log_if_bad(now: Counts, context: BootContext) -> float:
    return log_bad(context.bad.plus(_own(now, context)))


def _log_if_good(now: Counts, context: BootContext) -> float:
    return log_good(context.good.plus(_own(now, context)))


def _own(now: Counts, context: BootContext) -> Evidence:
    return evidence_of([now, *(Counts(*boot) for boot in context.earlier)])


def _least_bits(costs: Costs) -> float:
    """What a request must tell at least: half of what a boot tells, in the time of a request."""
    return min(0.02, 0.5 * costs.request / max(costs.boot, costs.request, 1e-9))


def _least_requests(costs: Costs) -> int:
    """Requests that take half as long as the boot: until then they are the cheaper evidence."""
    most = 0.5 * costs.boot / costs.request if costs.request else math.inf
    return round(min(max(most, 10), 60))


def _least_passes(aim: Aim, seen: Seen, index: int) -> int:
    """The clean requests that an end needs on which "no change" may come to rest.

    No other release is asked then, so the bug has to show at the end itself.
    """
    ends = testable_ends(aim.count, seen.outcomes)
    if ends is None or index not in (ends.low, ends.high):
        return 0
    if any(seen.outcomes.get(end) is Outcome.FAIL for end in (ends.low, ends.high)):
        return 0
    return end_passes_needed(aim.confidence)


def _counts(pair: tuple[int, int] | None) -> Counts | None:
    return Counts(*pair) if pair else None
