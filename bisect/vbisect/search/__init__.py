"""The search: pure functions from what has been seen to what to test next and what to conclude.

Nothing here does I/O, reads a clock or draws random numbers, and nothing here imports
another part of vbisect.
"""

from vbisect.search.boundary import (
    Boundary,
    Conclusion,
    Ends,
    Find,
    Verdict,
    conclude,
    expected_trials,
    likely_next,
    next_pick,
    remaining_range,
)
from vbisect.search.confidence import Counts, judge, pass_confidence, weakest
from vbisect.search.outcome import Change, Outcome

__all__ = [
    "Boundary",
    "Change",
    "Conclusion",
    "Counts",
    "Ends",
    "Find",
    "Outcome",
    "Verdict",
    "conclude",
    "expected_trials",
    "judge",
    "likely_next",
    "next_pick",
    "pass_confidence",
    "remaining_range",
    "weakest",
]
