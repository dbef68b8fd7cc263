"""How fast each tested release was, and how large: what was measured, nothing concluded."""

from __future__ import annotations

from dataclasses import dataclass

from vbisect.run.records import TrialRecord
from vbisect.run.state import RunState


@dataclass(frozen=True)
class Speed:
    """What was measured of one release: seconds, and bytes unpacked; ``None`` where it was not.

    ``boot_seconds`` is that of the last boot that became ready, ``request_seconds`` the median of
    its requests.
    """

    version: str
    boot_seconds: float | None
    request_seconds: float | None
    size_bytes: int | None


def speeds(state: RunState) -> tuple[Speed, ...]:
    """The measured releases, oldest first; by their own boots."""
    made = [_speed(state.records[v]) for v in state.settings.versions if v in state.records]
    return tuple(
        speed
        for speed in made
        if (speed.boot_seconds, speed.request_seconds, speed.size_bytes) != (None, None, None)
    )


def _speed(record: TrialRecord) -> Speed:
    median = record.measured.get("latency_median")
    booted = record.measured.get("boot_seconds")
    if not isinstance(booted, int | float):  # a run of an older vbisect
        ready = record.reported_version is not None
        booted = record.seconds.boot / max(len(record.boots), 1) if ready else 0.0
    return Speed(
        version=record.version,
        boot_seconds=round(booted, 3) or None,
        request_seconds=float(median) if isinstance(median, int | float) else None,
        size_bytes=record.size_bytes,
    )
