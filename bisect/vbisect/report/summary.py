"""The one JSON object of a run: the contract that scripts read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vbisect.locks import is_at_work
from vbisect.reasons import ADVICE
from vbisect.report.upgrade import upgrade_of
from vbisect.report.variations import names
from vbisect.run.comparisons import read_comparisons
from vbisect.run.records import Status, TrialRecord
from vbisect.run.scope import scope_of
from vbisect.run.state import RunState
from vbisect.text import without_secrets_in

_RUNNING = "running"
"""The status of a run that a vbisect is at work on; all others are how a run ended."""


def summary(state: RunState, run_dir: Path, on: str | None = None) -> dict[str, Any]:
    """What ``vbisect run --json`` prints, without secrets; fields are added, never renamed.

    ``upgrade`` is ``Upgrade`` of ``vbisect.report.upgrade``, for somebody on release ``on``.
    """
    settings, finding = state.settings, state.finding
    scope = scope_of(state)
    answer = finding.answer.model_dump(mode="json") if finding and finding.answer else None
    status, message = _ending(state, run_dir)
    told = {
        "schema": 1,
        "run_id": settings.run_id,
        "run_dir": str(run_dir.absolute()),
        "status": status,
        "message": message,
        "answer": answer,
        "excluded": finding.excluded if finding else None,
        "changes": [a.model_dump(mode="json") for a in finding.changes] if finding else [],
        "range": {
            "from": {
                "asked": settings.start,
                "resolved": settings.versions[0],
                "tested": finding.tested_from if finding else None,
            },
            "to": {
                "asked": settings.end,
                "resolved": settings.versions[-1],
                "tested": finding.tested_to if finding else None,
            },
        },
        "runtime": settings.runtime,
        "device": settings.device,
        "model": settings.model,
        "control": settings.control_model,
        "scope": asdict(scope) if scope else None,
        "upgrade": asdict(upgrade_of(state, on, read_comparisons(run_dir))),
        "variations": list(names(state)),
        "bisect_on": settings.suite.bisect_on if settings.suite else None,
        "candidates": list(settings.versions),
        "left_out": list(settings.excluded),
        "engine": {
            "asked": settings.engine,
            "of_answer": state.engine,
            "set_aside": [_trial(record) for record in state.set_aside],
        },
        "trials": [_trial(record) for record in state.records.values()],
        "notes": state.notes,
        "warnings": list(finding.warnings) if finding else [],
        "replay": settings.replay_command(),
        "seconds": round(state.seconds, 1),
    }
    safe: dict[str, Any] = without_secrets_in(told)
    return safe


def _ending(state: RunState, run_dir: Path) -> tuple[str, str]:
    """How the run ended, or that it has not."""
    if state.finding is not None:
        return state.finding.status, state.finding.message
    if is_at_work(run_dir):
        return _RUNNING, "vbisect is at work on this run"
    return Status.INTERRUPTED, "vbisect was killed, or works elsewhere; the run can be resumed"


def _trial(record: TrialRecord) -> dict[str, Any]:
    kinds = {"kinds": True}  # the journal has them: which is the bug is in the tally
    part = {"observations": kinds, "boots": {"__all__": kinds}}
    variations = {"variations": {"__all__": part}}
    data = record.model_dump(
        mode="json",
        by_alias=True,
        exclude=part | variations | {"control": part | variations},  # type: ignore[arg-type]
    )
    data["advice"] = ADVICE[record.reason] if record.reason else None
    return data
