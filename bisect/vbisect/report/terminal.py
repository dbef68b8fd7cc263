"""The answer on stdout, for a person."""

from __future__ import annotations

import shlex
from pathlib import Path

from vbisect.report.rows import tested_rows
from vbisect.run.state import RunState
from vbisect.text import one_line


def print_answer(state: RunState, run_dir: Path) -> None:
    """The verdict, what it rests on, and how to go on or repeat it."""
    for line in answer_lines(state, run_dir):
        print(line)


def answer_lines(state: RunState, run_dir: Path) -> list[str]:
    """What ``print_answer`` prints."""
    finding = state.finding
    assert finding is not None
    lines = [f"{finding.status.upper()}: {one_line(finding.message, 1000)}"]
    lines += [f"  {warning}" for warning in map(one_line, finding.warnings)]
    if finding.answer is not None:
        answer = finding.answer
        exact = "exact" if answer.exact else f"suspects {', '.join(answer.suspects)}"
        lines.append(f"  {answer.change}, {exact}, confidence {answer.confidence:.3f}")
    for change in finding.changes if len(finding.changes) > 1 else ():
        lines.append(f"  {change.change}: {change.last_before} → {change.first_after}")
    lines.append("")
    shown = tested_rows(state)
    width = max((len(row.version) for row in shown), default=0)
    for row in shown:
        counts = "" if row.passes is None else f"{row.passes}/{row.fails}"
        seen = one_line(row.finding, 120)
        lines.append(f"  {row.version:<{width}}  {row.outcome:<4}  {counts:>7}  {seen}")
    lines += [""] if shown else []
    lines.append(f"evidence: {run_dir}")
    if finding.status.resumable:
        lines.append(f"go on:    {shlex.join(['vbisect', 'run', '--resume', str(run_dir)])}")
    lines.append(f"repeat:   {state.settings.replay_command()}")
    return lines
