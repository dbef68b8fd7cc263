"""The search: pure functions from what has been seen to what to test next and what to conclude.

``Aim`` says what is looked for, ``Seen`` what is known; ``next_picks``, ``pointless`` and
``is_over`` steer, ``boot_context`` with ``judge_boot`` decide inside a boot, and ``conclude_seen``
answers. Nothing here does I/O, reads a clock or draws random numbers, and nothing here imports
another part of vbisect.
"""

from vbisect.search.ahead import leads_on, likely_after
from vbisect.search.boot import BootContext, boot_context, judge_boot
from vbisect.search.boundary import Boundary, Conclusion, Verdict
from vbisect.search.conclusion import conclude_seen
from vbisect.search.ends import Ends, find_ends
from vbisect.search.kinds import (
    CRASHED,
    Boot,
    Boots,
    bug_kind,
    other_ends_kind,
    outcome_by,
    told_of,
)
from vbisect.search.known import MAX_SKIPS, Aim, Change, Costs, Counts, Find, Outcome, Seen, flaky
from vbisect.search.picks import is_over, next_picks, pointless
from vbisect.search.plain import open_range
from vbisect.search.requests import boots_needed, passes_to_show, rarest

__all__ = [
    "CRASHED",
    "MAX_SKIPS",
    "Aim",
    "Boot",
    "BootContext",
    "Boots",
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
    "boots_needed",
    "bug_kind",
    "conclude_seen",
    "find_ends",
    "flaky",
    "is_over",
    "judge_boot",
    "leads_on",
    "likely_after",
    "next_picks",
    "open_range",
    "other_ends_kind",
    "outcome_by",
    "passes_to_show",
    "pointless",
    "rarest",
    "told_of",
]
