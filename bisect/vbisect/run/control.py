"""The control of a trial: the same build asked the same, with another model in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from vbisect.reasons import SkipReason
from vbisect.run.journal import EventKind
from vbisect.run.records import ControlRecord, TrialRecord, TrialSpec
from vbisect.run.runtimes.interface import Fetched
from vbisect.run.trial import Emit, SeeToWeights, TearDown, run_trial
from vbisect.search import BootContext, Counts, Outcome, judge_boot, passes_to_show, rarest
from vbisect.search.boot import MOST_REQUESTS

FOLDER = "control"
"""Where in a release's folder the evidence about the control goes."""

_EVERY_MODEL = frozenset(
    {
        SkipReason.EXCLUDED,
        SkipReason.NOT_PUBLISHED,
        SkipReason.NOT_INSTALLABLE,
        SkipReason.NOT_PULLABLE,
        SkipReason.BUILD_FAILED,
        SkipReason.UNKNOWN_ARGUMENT,
        SkipReason.DRIVER_TOO_OLD,
        SkipReason.GPU_NOT_SUPPORTED,
        SkipReason.NO_DEVICE,
        SkipReason.BROKEN_DEPENDENCIES,
        SkipReason.SYSTEM_LIBRARY,
        SkipReason.NO_COMPILER,
        SkipReason.ENGINE_MISSING,
        SkipReason.PORT_TAKEN,
        SkipReason.WRONG_VERSION,
        SkipReason.VARIATION_NOT_ASKED,
    }
)
"""What keeps every model from being tested, so that the control need not be tried."""

_EVENTS = {
    EventKind.SERVER_READY: EventKind.CONTROL_READY,
    EventKind.OBSERVATION: EventKind.CONTROL_OBSERVATION,
}


def control_wanted(
    record: TrialRecord, earlier: ControlRecord | None, context: BootContext
) -> bool:
    """Whether the control is still to be tested once the model's trial came to ``record``.

    ``earlier`` is what the control came to in earlier trials of the release, ``context`` is its
    own: a pass is settled once it was asked as often as that wants it to be.
    """
    if earlier is not None and earlier.outcome is Outcome.FAIL:
        return False
    if earlier is not None and earlier.outcome is Outcome.PASS:
        return judge_boot(earlier.observations.counts, context) is None
    return record.reason not in _EVERY_MODEL


def control_context(
    context: BootContext, record: TrialRecord, failing: Iterable[Counts]
) -> BootContext:
    """What judging the control needs to know, in the trial whose model came to ``record``.

    To pass, it has to be asked often enough that the bug would have shown, were it as rare as in
    the ``failing`` release where it is rarest; unless that takes more than one boot is good for.
    """
    own = [record.observations.counts] if record.outcome is Outcome.FAIL else []
    needed = passes_to_show(rarest((*failing, *own)), context.confidence)
    clean = needed if needed <= MOST_REQUESTS else passes_to_show(1.0, context.confidence)
    return BootContext(context.confidence, clean, bad=context.bad, good=context.good)


def run_control(
    model: str,
    spec: TrialSpec,
    fetch: Callable[[], Fetched],
    weights: SeeToWeights,
    emit: Emit,
    tear_down: TearDown,
    given_up: threading.Event,
    boot_turn: AbstractContextManager[None],
) -> ControlRecord:
    """Carry out ``spec``, the trial of the control called ``model``; what keeps it from being
    judged becomes a typed skip.

    Raises as ``run_trial`` does. The journal is told of it in events of their own.
    """

    def tell(kind: EventKind, **fields: Any) -> None:
        if kind in _EVENTS:
            emit(_EVENTS[kind], **fields)

    record = run_trial(spec, fetch, weights, tell, tear_down, given_up, boot_turn)
    return ControlRecord(
        model=model,
        outcome=record.outcome,
        reason=record.reason,
        detail=record.detail,
        signature=record.signature,
        failure_kind=record.failure_kind,
        observations=record.observations,
        boots=record.boots or ((record.observations,) if record.observations.total else ()),
        seconds=record.seconds,
        engine=record.engine,
        parameters=record.parameters,
        variations=record.variations,
    )
