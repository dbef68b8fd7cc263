"""A fault of the run itself: what no release can be tested for, seen from both ends of the range.

A skip says nothing of its release where the model, the host or its network is what is missing
(``SkipReason.of_the_run``). One such skip may still be the release's: an old one takes more memory,
say. So it is held against the other end before anything between is tried, and once any server
became ready, the search goes on as ever. On resuming, what was skipped for such a fault is tried
again (``RunState``).
"""

from __future__ import annotations

from collections import Counter

from vbisect.reasons import ADVICE
from vbisect.run.records import TrialRecord
from vbisect.run.state import RunState
from vbisect.search import Seen, find_ends

_MANY = 3
"""Releases skipped for one reason, wherever they are, after which the others are not tried."""


def common_fault(state: RunState) -> str | None:
    """Why nothing of this run can be tested, and what to do about it; ``None`` while that is open.

    So it is where releases of both halves of the range, or three of them, were skipped for the same
    reason that is none of theirs, and nothing else ran.
    """
    if state.has_run:
        return None
    skips = _skips(state)
    for reason, number in Counter(record.reason for record in skips).items():
        alike = [record for record in skips if record.reason is reason]
        sides = {_is_low(state, record) for record in alike}
        if reason is not None and (number >= _MANY or sides >= {True, False}):
            versions = " and ".join(record.version for record in alike)
            return (
                f"Nothing can be tested: {versions} were skipped for the same reason, which is no "
                f"release's doing: {reason} ({alike[-1].detail}). {ADVICE[reason]} Then resume the "
                "run."
            )
    return None


def end_to_compare(state: RunState, seen: Seen) -> int | None:
    """The end that is to be tested before all else, or is running: the other one may have met a
    fault of the run.
    """
    skips = _skips(state)
    if not skips or state.has_run:
        return None
    ends = find_ends(len(state.settings.candidates), seen)
    if ends is None:
        return None
    other = ends.high if _is_low(state, skips[-1]) else ends.low
    return None if other in seen.outcomes else other


def _skips(state: RunState) -> list[TrialRecord]:
    """The skips that may be the run's, in the order in which they were recorded."""
    return [r for r in state.records.values() if r.reason is not None and r.reason.of_the_run]


def _is_low(state: RunState, record: TrialRecord) -> bool | None:
    """Whether the release is in the older half; ``None`` for the one in the middle."""
    versions = state.settings.versions
    place = versions.index(record.version)
    half = len(versions) // 2
    return True if place < half else False if place >= len(versions) - half else None
