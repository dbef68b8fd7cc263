"""What the variations of a suite say of a release, and whether that is the bug the run is about."""

from __future__ import annotations

from collections.abc import Iterable

from vbisect.probes import Observation, SuiteSettings, Variation
from vbisect.reasons import SkipReason, Untestable
from vbisect.run.records import Bug, ControlRecord, Tally, TrialRecord, VariationRecord
from vbisect.search import Outcome


def not_asked(variation: Variation) -> VariationRecord:
    """The record of a variation that servers of this version are not asked."""
    return VariationRecord(
        name=variation.name,
        outcome=Outcome.SKIP,
        reason=SkipReason.VARIATION_NOT_ASKED,
        detail=f"only versions {variation.specifier} are asked",
    )


def nothing_to_ask(suite: SuiteSettings, version: str) -> Untestable | None:
    """The skip of a version that no variation which decides is for; ``None`` for all others."""
    deciding = [variation for variation in suite.variations if suite.decides(variation.name)]
    if any(variation.applies_to(version) for variation in deciding):
        return None
    told = "; ".join(f"{v.name}: only versions {v.specifier} are asked" for v in deciding)
    return Untestable(SkipReason.VARIATION_NOT_ASKED, told)


def could_not_be_judged(record: VariationRecord, skip: Untestable) -> VariationRecord:
    """``record`` of a variation that is not asked any more; what it failed before stands."""
    told = {"reason": skip.reason, "detail": skip.detail}
    outcome = record.outcome if record.outcome is Outcome.FAIL else Outcome.SKIP
    return record.model_copy(update={"outcome": outcome, **told})


def counted(record: VariationRecord, seen: Observation, bug: Bug) -> VariationRecord:
    """``record`` with one more observation; failures of another kind count as ``other``.

    The kind is that of ``bug`` as soon as it shows, else the first that was seen.
    """
    tally = record.observations
    if seen.passed:
        outcome = Outcome.FAIL if tally.fails else Outcome.PASS
        return _with(record, outcome, passes=tally.passes + 1)
    assert seen.kind is not None
    told = {"signature": seen.signature, "failure_kind": seen.kind}
    if record.failure_kind in (None, seen.kind):
        return _with(record, Outcome.FAIL, fails=tally.fails + 1).model_copy(update=told)
    if (record.name, seen.kind) in bug and (record.name, record.failure_kind) not in bug:
        swapped = _with(record, Outcome.FAIL, fails=1, other=tally.other + tally.fails)
        return swapped.model_copy(update=told)
    return _with(record, Outcome.FAIL, other=tally.other + 1)


def finished(
    records: Iterable[VariationRecord], outcome: Outcome, suite: SuiteSettings
) -> tuple[VariationRecord, ...]:
    """The records as they stand once the release came to ``outcome``.

    Where a release passes in spite of single failures, the variations that decided pass too.
    """
    if outcome is not Outcome.PASS:
        return tuple(records)
    return tuple(
        record.model_copy(update={"outcome": Outcome.PASS})
        if record.outcome is Outcome.FAIL and suite.decides(record.name)
        else record
        for record in records
    )


def bug_of(record: TrialRecord | ControlRecord, suite: SuiteSettings) -> Bug:
    """In which of the deciding variations a release fails, and how; empty where it does not."""
    if record.outcome is not Outcome.FAIL:
        return frozenset()
    return frozenset(
        (variation.name, variation.failure_kind)
        for variation in record.variations
        if variation.outcome is Outcome.FAIL
        and variation.failure_kind is not None
        and suite.decides(variation.name)
    )


def against(record: TrialRecord, bug: Bug, suite: SuiteSettings) -> TrialRecord:
    """``record`` as it counts in a run that is about ``bug``, which is empty until it is known.

    A failure in other variations, or of another kind, is not this bug; and a release that was not
    asked a variation which fails at the failing end is never said to be without the bug.
    """
    if not bug:
        return record
    if record.outcome is Outcome.FAIL and not bug & bug_of(record, suite):
        return _skipped(
            record,
            SkipReason.DIFFERENT_FAILURE,
            f"{record.signature}; the failing end fails otherwise ({words(bug)})",
        )
    if record.outcome is Outcome.PASS:
        passed = {v.name for v in record.variations if v.outcome is Outcome.PASS}
        if unknown := sorted({name for name, _ in bug} - passed):
            return _skipped(
                record,
                SkipReason.VARIATION_NOT_ASKED,
                f"{', '.join(unknown)}: fails at the failing end, and was not asked here",
            )
    return record


def words(bug: Bug) -> str:
    """The bug for people, as in "stream: broken stream"."""
    return ", ".join(f"{name}: {kind}" for name, kind in sorted(bug))


def _with(record: VariationRecord, outcome: Outcome, **counts: int) -> VariationRecord:
    seen = record.observations
    own = {"passes": seen.passes, "fails": seen.fails, "other": seen.other}
    return record.model_copy(update={"outcome": outcome, "observations": Tally(**(own | counts))})


def _skipped(record: TrialRecord, reason: SkipReason, detail: str) -> TrialRecord:
    return record.model_copy(update={"outcome": Outcome.SKIP, "reason": reason, "detail": detail})
