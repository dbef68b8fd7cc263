"""The answer on stdout, for a person."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from vbisect.report.rows import Row, labelled, tested_rows
from vbisect.report.variations import names, troubles, variation_rows
from vbisect.run.scope import scope_of
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState
from vbisect.text import one_line, plain, without_controls


def print_answer(state: RunState, run_dir: Path) -> None:
    """The verdict, what it rests on, and how to go on or repeat it."""
    for line in answer_lines(state, run_dir):
        print(line)


def answer_lines(state: RunState, run_dir: Path) -> list[str]:
    """What ``print_answer`` prints: every text of it is one line without controls."""
    finding = state.finding
    assert finding is not None
    lines = [f"{finding.status.upper()}: {one_line(finding.message, 1000)}"]
    lines += [f"  {warning}" for warning in map(one_line, finding.warnings)]
    if finding.answer is not None:
        answer = finding.answer
        suspects = one_line(", ".join(answer.suspects), 2000)
        exact = "exact" if answer.exact else f"suspects {suspects}"
        lines.append(f"  {answer.change}, {exact}, confidence {answer.shown_confidence}")
    for change in finding.told if len(finding.told) > 1 else ():
        lines.append(f"  {change.change}: {change.last_before} → {change.first_after}")
    scope = scope_of(state)
    if scope is not None:
        lines.append(f"  {scope.scope.upper()}: {one_line(scope.message, 1000)}")
    lines.append("")
    shown = tested_rows(state)
    lines += _table(shown) if scope is None else _table_of_both(shown, state.settings)
    lines += [""] if shown else []
    lines += _variation_lines(state)
    lines.append(f"evidence: {without_controls(str(run_dir))}")
    if finding.status.resumable:
        words = shlex.join(["vbisect", "run", "--resume", str(run_dir)])
        lines.append(f"go on:    {without_controls(words)}")
    lines.append(f"repeat:   {plain(state.settings.replay_command(), 20_000)}")
    return lines


def _table(shown: Sequence[Row]) -> list[str]:
    told = labelled(shown)
    width = max((len(name) for name, _ in told), default=0)
    return [f"  {name:<{width}}  {_cells(row)}" for name, row in told]


def _table_of_both(shown: Sequence[Row], settings: RunSettings) -> list[str]:
    """The model's columns, then the control's."""
    told = labelled(shown)
    width = max((len(name) for name, _ in told), default=0)
    model = [_cells(row) for _, row in told]
    tested, control = one_line(settings.model), one_line(settings.control_model or "")
    middle = max((len(tested), *map(len, model)), default=0)
    lines = [f"  {'':<{width}}  {tested:<{middle}}  {control}"]
    for (name, row), cells in zip(told, model, strict=True):
        control = _cells(row, control=True) if row.control_outcome else ""
        lines.append(f"  {name:<{width}}  {cells:<{middle}}  {control}".rstrip())
    return lines if shown else []


def _cells(row: Row, *, control: bool = False) -> str:
    outcome = row.control_outcome if control else row.outcome
    passes = row.control_passes if control else row.passes
    fails = row.control_fails if control else row.fails
    seen = row.control_finding if control else row.finding
    received = row.control_parameters if control else row.parameters
    counts = "" if passes is None else f"{passes}/{fails}"
    told = one_line(seen or "", 120) + (f" ({one_line(received, 120)})" if received else "")
    return f"{outcome:<4}  {counts:>7}  {told}"


def _variation_lines(state: RunState) -> list[str]:
    """The table of a suite, passes and fails of each variation, and what was seen."""
    rows = variation_rows(state)
    if not rows:
        return []
    heads = (one_line(name, 60) for name in names(state))
    cells = ((row.version, *(one_line(cell, 60) for cell in row.cells)) for row in rows)
    table = [("", *heads), *cells]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "  "
        + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    lines += [f"  {one_line(trouble, 160)}" for trouble in troubles(state)]
    return [*lines, ""]
