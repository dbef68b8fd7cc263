"""Watch pulls: how fast they are together, which of them has stalled, and what to say of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from vbisect.builds.lanes import Lanes
from vbisect.builds.pull_job import PullJob

_SAMPLE_SECONDS = 0.75
_SAY_SECONDS = 5.0
_ANSWER_SECONDS = 2.0


class PullWatch:
    """Looks at the pulls that go on, several times a second."""

    def __init__(self, stall_seconds: float, say: Callable[[str], None]) -> None:
        self.lanes = Lanes()
        self._stall_seconds = stall_seconds
        self._say = say
        self._sample = (time.monotonic(), 0, 0)  # since when, pulls downloading, bytes by then
        self._said = time.monotonic()

    def look(self, active: Sequence[PullJob]) -> None:
        """Measure, give up what has stalled, and tell how far the others are."""
        self._measure(active)
        self._end_stalled(active)
        self._tell(active)

    def begin_anew(self) -> None:
        """Another pull begins: what was measured so far is of fewer."""
        self._sample = (time.monotonic(), 0, 0)

    def asking(self, active: Sequence[PullJob]) -> bool:
        """Whether the engine has yet to say what it makes of the latest pull.

        It downloads layers in the order in which it learns of them, so one asks after the other;
        an engine that takes long to answer is not waited for.
        """
        now = time.monotonic()
        pulls = [job.pull for job in active if job.pull is not None]
        return any(not pull.announced and now - pull.last_sign < _ANSWER_SECONDS for pull in pulls)

    def _measure(self, active: Sequence[PullJob]) -> None:
        """Sample how fast the pulls are while their number stays the same."""
        pulls = [job.pull for job in active if job.pull is not None]
        coming = sum(pull.downloading for pull in pulls)
        done = sum(pull.done_bytes for pull in pulls)
        since, number, before = self._sample
        now = time.monotonic()
        if coming != number or done < before:
            self._sample = (now, coming, done)
        elif coming and now - since >= _SAMPLE_SECONDS:
            self.lanes.measured(coming, (done - before) / (now - since))
            self._sample = (now, coming, done)

    def _end_stalled(self, active: Sequence[PullJob]) -> None:
        now = time.monotonic()
        pulls = [job.pull for job in active if job.pull is not None]
        for pull in pulls:
            # one that waits for the engine to begin with it is not stalled while others go on
            alone = all(other is pull or not other.downloading for other in pulls)
            if now - pull.last_sign > self._stall_seconds and (pull.downloading or alone):
                pull.stalled()

    def _tell(self, active: Sequence[PullJob]) -> None:
        if time.monotonic() - self._said < _SAY_SECONDS:
            return
        shares = [
            f"{job.request.version} {gigabytes(job.pull.done_bytes)} of {gigabytes(job.size)}"
            for job in active
            if job.pull is not None and job.size
        ]
        if shares:
            self._said = time.monotonic()
            self._say("pulling " + ", ".join(shares))


def gigabytes(size: int, *, up: bool = False) -> str:
    """``size`` bytes as an option takes them; ``up`` rounds up."""
    if size < 10**9:
        return f"{size / 1e6 + (0.5 if up else 0):.0f}MB"
    return f"{size / 1e9 + (0.05 if up else 0):.1f}GB"
