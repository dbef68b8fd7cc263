"""The table of a suite: what each variation came to in each tested release."""

from __future__ import annotations

from dataclasses import dataclass

from vbisect.reasons import SkipReason
from vbisect.run.records import VariationRecord
from vbisect.run.state import RunState
from vbisect.search import Outcome


@dataclass(frozen=True)
class VariationRow:
    """One tested release: a cell for each variation, in the suite's order."""

    version: str
    cells: tuple[str, ...]


def names(state: RunState) -> tuple[str, ...]:
    """The variations of the suite; none where the run had no suite."""
    suite = state.settings.suite
    return tuple(variation.name for variation in suite.variations) if suite else ()


def variation_rows(state: RunState) -> list[VariationRow]:
    """A row for every release that was asked, oldest first."""
    found = []
    for version in state.settings.versions:
        record = state.records.get(version)
        if record is not None and record.variations:
            by_name = {variation.name: variation for variation in record.variations}
            cells = tuple(cell(by_name.get(name)) for name in names(state))
            found.append(VariationRow(version, cells))
    return found


def cell(record: VariationRecord | None) -> str:
    """A variation in a few words: "pass 18/0", "fail 0/5", "n/a", or why it is a skip."""
    if record is None or (record.outcome is Outcome.SKIP and record.reason is None):
        return ""
    if record.reason is SkipReason.VARIATION_NOT_ASKED:
        return "n/a"
    if record.outcome is Outcome.SKIP:
        return f"skip: {record.reason}"
    seen = record.observations
    return f"{record.outcome} {seen.passes}/{seen.fails + seen.other}"


def troubles(state: RunState) -> list[str]:
    """What was seen of each variation that did not pass, one line for the same words.

    As in "0.30.0, 0.31.0: stream: the stream broke off".
    """
    seen: dict[str, list[str]] = {}
    for version in state.settings.versions:
        record = state.records.get(version)
        for variation in record.variations if record else ():
            if variation.outcome is Outcome.FAIL:
                words = f"{variation.name}: {variation.signature}"
            elif variation.outcome is Outcome.SKIP and variation.reason is not None:
                words = f"{variation.name}: {variation.reason}: {variation.detail}"
            else:
                continue
            seen.setdefault(words, []).append(version)
    return [f"{', '.join(versions)}: {words}" for words, versions in seen.items()]
