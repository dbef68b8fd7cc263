"""The tables of a comment, each in a bounded number of characters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vbisect.reasons import SkipReason
from vbisect.report.comment.text import code, length, prose
from vbisect.report.rows import finding
from vbisect.report.variations import cell
from vbisect.run.records import ControlRecord, TrialRecord, VariationRecord
from vbisect.run.state import RunState
from vbisect.search import Outcome

_SIGNS = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.SKIP: "○"}
_VARIATIONS = 40
"""The most columns of a table of variations."""


def trials_table(state: RunState, limit: int) -> str:
    """Every tested release, or those nearest to the change where ``limit`` is too small."""
    records = state.records.values()
    columns: dict[str, Callable[[TrialRecord], str]] = {
        "version": lambda record: prose(record.version, 100),
        "outcome": lambda record: f"{_SIGNS[record.outcome]} {record.outcome}",
        "pass / fail": _counts,
        "what was seen": _seen,
    }
    if any(record.parameters for record in records):
        columns["parameters in the server's log"] = _parameters
    controls = dict.fromkeys(record.control.model for record in records if record.control)
    if controls:
        models = ", ".join(code(model, 200) for model in list(controls)[:3])
        columns[f"the same with {models}"] = _control
    columns["boot"] = lambda record: _seconds(record.seconds.boot)
    ranked = _by_nearness(state)
    lines = {record.version: _row(show(record) for show in columns.values()) for record in ranked}
    return _table(list(columns), lines, state, limit)


def variations_table(state: RunState, limit: int) -> str:
    """Version by variation; empty where no variations were asked for."""
    names = dict.fromkeys(v.name for record in state.records.values() for v in record.variations)
    if not names:
        return ""
    shown = list(names)[:_VARIATIONS]
    lines = {}
    for record in _by_nearness(state):
        known = {variation.name: variation for variation in record.variations}
        cells = (_variation(known.get(name)) for name in shown)
        lines[record.version] = _row([prose(record.version, 100), *cells])
    heads = ["version", *(code(name, 60) for name in shown)]
    return _table(heads, lines, state, limit)


def tested(state: RunState) -> list[TrialRecord]:
    """The records of releases that were tested or skipped, oldest first."""
    return [state.records[v] for v in state.settings.versions if v in state.records]


def _by_nearness(state: RunState) -> list[TrialRecord]:
    """Those that say most about the change first."""
    versions, answer = state.settings.versions, state.finding.answer if state.finding else None
    pair = (answer.last_before, answer.first_after) if answer else (versions[0], versions[-1])
    edges = [versions.index(v) for v in pair if v in versions] or [0]
    place = {version: index for index, version in enumerate(versions)}
    return sorted(tested(state), key=lambda r: min(abs(place[r.version] - e) for e in edges))


def _table(heads: Sequence[str], lines: dict[str, str], state: RunState, limit: int) -> str:
    """The first of ``lines`` that fit, in the order of the versions."""
    rule = _row("---" for _ in heads)
    used = length(_row(heads)) + length(rule)
    kept = {}
    for version, line in lines.items():
        used += length(line) + 1
        if used > limit:
            break
        kept[version] = line
    body = [kept[version] for version in state.settings.versions if version in kept]
    table = "\n".join([_row(heads), rule, *body])
    if left_out := len(lines) - len(kept):
        table += f"\n\n{left_out} more were tested, further from the change."
    return table


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _counts(record: TrialRecord | ControlRecord) -> str:
    seen = record.observations
    return f"{seen.passes} / {seen.fails}" if seen.total else ""


def _seen(record: TrialRecord) -> str:
    text = finding(record)
    return text if text == "as asked" else code(text)


def _parameters(record: TrialRecord) -> str:
    return code(record.parameters.sentence, 250) if record.parameters else ""


def _control(record: TrialRecord) -> str:
    control = record.control
    if control is None:
        return ""
    text = finding(control)
    seen = text if text == "as asked" else code(text, 250)
    return f"{_SIGNS[control.outcome]} {control.outcome} {_counts(control)} {seen}".strip()


def _variation(variation: VariationRecord | None) -> str:
    if variation is None:
        return ""
    if variation.reason is SkipReason.VARIATION_NOT_ASKED or not cell(variation):
        return cell(variation)
    sign = _SIGNS[variation.outcome]
    return sign if variation.outcome is Outcome.PASS else f"{sign} {code(finding(variation), 150)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds else ""
