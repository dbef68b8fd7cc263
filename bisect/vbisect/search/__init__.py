"""The search: pure functions from what has been seen to what to test next and what to conclude.

``Aim`` says what is looked for, ``Seen`` what is known; ``next_picks``, ``pointless`` and
``is_over`` steer, ``boot_context`` with ``judge_boot`` decide inside a boot, and ``conclude_seen``
answers. Nothing here does I/O, reads a clock or draws random numbers, and nothing here imports
another part of vbisect.
"""

from vbisect.search.ahead import likely_after
from vbisect.search.aim import MAX_SKIPS, Aim
from vbisect.search.boot import BootContext, boot_context, judge_boot
from vbisect.search.boundary import Boundary, Conclusion, Ends, Verdict, conclude, testable_ends
from vbisect.search.conclusion import conclude_seen
from vbisect.search.confidence import Counts, judge, pass_confidence, weakest
from vbisect.search.one_by_one import (
    expected_trials,
    likely_next,
    next_pick,
    remaining_range,
)
from vbisect.search.outcome import Change, Find, Outcome
from vbisect.search.picks import is_over, next_picks, pointless
from vbisect.search.seen import Costs, Seen, flaky

__all__ = [
    "MAX_SKIPS",
    "Aim",
    "BootContext",
    "Boundary",
    "Change",
    "Conclusion",
    "Costs",
    "Counts",
    "Ends",
    "Find",
    "Outcome",
    "Seen",
    "Verdict",
    "boot_context",
    "conclude",
    "conclude_seen",
    "expected_trials",
    "flaky",
    "is_over",
    "judge",
    "judge_boot",
    "likely_after",
    "likely_next",
    "next_pick",
    "next_picks",
    "pass_confidence",
    "pointless",
    "remaining_range",
    "testable_ends",
    "weakest",
]
