"""A fault of the run itself: what no release can be tested for, seen from both ends of the range.

A skip says nothing of its release where the model, the host or its network is what is missing
(``SkipReason.of_the_run``). One such skip may still be the release's: an old one takes more memory,
say. So it is held against the other end before anything between is tried, and once any server
became ready, the search goes on as ever. An engine that does not start two releases, in the same
words, starts nothing, whatever it did before. On resuming, what was skipped for such a fault is
tried again (``RunState``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from vbisect.reasons import ADVICE, SkipReason
from vbisect.run.records import TrialRecord
from vbisect.run.state import RunState
from vbisect.search import Seen, find_ends

_MANY = 3
"""Releases skipped for one reason, wherever they are, after which the others are not tried."""

_NUMBER = re.compile(r"\d+")


def common_fault(state: RunState) -> str | None:
    """Why nothing of this run can be tested, and what to do about it; ``None`` while that is open.

    So it is where releases of both halves of the range, or three of them, were skipped for the same
    reason that is none of theirs, and nothing else ran; or two were not started in the same words.
    """
    skips = _skips(state)
    if refused := _not_started(skips):
        return _told("Nothing more can be tested", refused)
    if state.has_run:
        return None
    for reason, number in Counter(record.reason for record in skips).items():
        alike = [record for record in skips if record.reason is reason]
        sides = {_is_low(state, record) for record in alike}
        if reason is not None and (number >= _MANY or sides >= {True, False}):
            return _told("Nothing can be tested", alike)
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


def _not_started(skips: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Releases that the engine did not start in the same words, their numbers aside."""
    alike: dict[str, list[TrialRecord]] = {}
    for record in skips:
        if record.reason is SkipReason.NOT_STARTED:
            alike.setdefault(_NUMBER.sub("", record.detail or ""), []).append(record)
    return next((records for records in alike.values() if len(records) > 1), [])


def _told(what: str, alike: Sequence[TrialRecord]) -> str:
    reason = alike[-1].reason
    assert reason is not None
    versions = " and ".join(record.version for record in alike)
    return (
        f"{what}: {versions} were skipped for the same reason, which is no release's doing: "
        f"{reason} ({alike[-1].detail}). {ADVICE[reason]} Then resume the run."
    )


def _skips(state: RunState) -> list[TrialRecord]:
    """The skips that may be the run's, in the order in which they were recorded."""
    return [r for r in state.records.values() if r.reason is not None and r.reason.of_the_run]


def _is_low(state: RunState, record: TrialRecord) -> bool | None:
    """Whether the release is in the older half; ``None`` for the one in the middle."""
    versions = state.settings.versions
    place = versions.index(record.version)
    half = len(versions) // 2
    return True if place < half else False if place >= len(versions) - half else None
