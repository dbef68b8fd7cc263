"""The rows of a run's table: one a candidate, oldest first, in plain words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import Any

from vbisect.reasons import SkipReason
from vbisect.releases.fitness import stretch
from vbisect.run.records import ControlRecord, TrialRecord, VariationRecord
from vbisect.run.state import RunState
from vbisect.search import Outcome

UNTESTED = "untested"


@dataclass(frozen=True)
class Row:
    """One candidate. ``finding`` is what was seen or why not, ``parameters`` what the server's log
    has of those that were sent; times in seconds.

    The same of the control model, where there was one; ``control_seconds`` is all it took.
    """

    version: str
    outcome: str
    finding: str
    passes: int | None = None
    fails: int | None = None
    parameters: str | None = None
    engine: str | None = None
    reported_version: str | None = None
    build: str | None = None
    digest: str | None = None
    fetch_seconds: float | None = None
    boot_seconds: float | None = None
    probe_seconds: float | None = None
    size_bytes: int | None = None
    order: int | None = None
    control_outcome: str | None = None
    control_finding: str | None = None
    control_passes: int | None = None
    control_fails: int | None = None
    control_parameters: str | None = None
    control_seconds: float | None = None

    def values(self) -> dict[str, object]:
        """Column name to value."""
        return asdict(self)


COLUMNS = tuple(field.name for field in fields(Row))


def rows(state: RunState) -> list[Row]:
    """A row for every candidate, tested or not; ``order`` is the order of testing, from 1."""
    unfit = {each.version for each in state.settings.unfit}
    tried = (v for v, record in state.records.items() if record.build or v not in unfit)
    order = {version: number for number, version in enumerate(tried, 1)}
    return [_row(state, version, order.get(version)) for version in state.settings.versions]


def tested_rows(state: RunState) -> list[Row]:
    """The rows of candidates that were tested or skipped."""
    return [row for row in rows(state) if row.outcome != UNTESTED]


def labelled(shown: Iterable[Row]) -> list[tuple[str, Row]]:
    """Rows with their names; neighbours that were never tried, for one reason, are one row."""
    told: list[tuple[str, Row]] = []
    for (_, finding, order), group in groupby(shown, lambda r: (r.outcome, r.finding, r.order)):
        members = list(group)
        together = len(members) > 2 and finding and order is None
        names = [stretch([row.version for row in members])] if together else []
        told += zip(names or [row.version for row in members], members, strict=False)
    return told


def finding(record: TrialRecord | ControlRecord | VariationRecord) -> str:
    """What a trial showed, or its control or one variation, in one line."""
    if record.outcome is Outcome.SKIP:
        return f"{record.reason}: {record.detail}" if record.reason else "not settled"
    seen = record.observations
    if record.outcome is Outcome.FAIL:
        flaky = f" ({seen.fails} of {seen.total} times)" if seen.fails < seen.total else ""
        return f"{record.signature}{flaky}"
    if seen.fails:
        return f"as asked, but for {seen.fails} of {seen.total} times: {record.signature}"
    return "as asked"


def _row(state: RunState, version: str, order: int | None) -> Row:
    record = state.records.get(version)
    if record is None:
        if version in state.settings.excluded:
            return Row(version, Outcome.SKIP, f"{SkipReason.EXCLUDED} with --skip")
        return Row(version, UNTESTED, "")
    return Row(
        version=version,
        outcome=record.outcome,
        finding=finding(record),
        passes=record.observations.passes if record.observations.total else None,
        fails=record.observations.fails if record.observations.total else None,
        parameters=_received(record),
        engine=record.engine,
        reported_version=record.reported_version,
        build=record.build.ref if record.build else None,
        digest=record.build.digest if record.build else None,
        fetch_seconds=record.seconds.fetch,
        boot_seconds=record.seconds.boot,
        probe_seconds=record.seconds.probe,
        size_bytes=record.size_bytes,
        order=order,
        **_control_cells(record.control),
    )


def _received(record: TrialRecord | ControlRecord) -> str | None:
    return record.parameters.sentence if record.parameters else None


def _control_cells(control: ControlRecord | None) -> dict[str, Any]:
    if control is None:
        return {}
    seen, seconds = control.observations, control.seconds
    return {
        "control_outcome": control.outcome,
        "control_finding": finding(control),
        "control_passes": seen.passes if seen.total else None,
        "control_fails": seen.fails if seen.total else None,
        "control_parameters": _received(control),
        "control_seconds": round(seconds.fetch + seconds.boot + seconds.probe, 3),
    }
