"""``vbisect run``: a new run, or an old one gone on with."""

from __future__ import annotations

import sys
from pathlib import Path

from vbisect.commands.signals import signals_as_interrupt
from vbisect.report.formats import write_reports
from vbisect.report.progress import progress
from vbisect.run.ask_commits import ask_commits
from vbisect.run.options import RunOptions
from vbisect.run.prepare import make_run_dir, prepare
from vbisect.run.session import resume_run, start_run
from vbisect.run.state import RunState


def new_run(options: RunOptions, results: Path) -> tuple[RunState, Path]:
    """Check everything, make the run directory, and carry the run to its end."""
    with signals_as_interrupt():
        settings = prepare(options)
        run_dir = make_run_dir(results, settings.run_id)
        settings = settings.model_copy(update={"run_id": run_dir.name})
        print(f"vbisect: run directory {run_dir}", file=sys.stderr)
        with progress() as display:
            state = start_run(settings, run_dir, display)
        _report(state, run_dir)
    return state, run_dir


def old_run(run_dir: Path) -> tuple[RunState, Path]:
    """Resume the run in ``run_dir``; its own settings hold."""
    with signals_as_interrupt():
        with progress() as display:
            state = resume_run(run_dir, display)
        _report(state, run_dir)
    return state, run_dir


def _report(state: RunState, run_dir: Path) -> None:
    """The reports of a run that is over, with the commits its answer lies between.

    The answer is told even where they cannot be written.
    """
    try:
        ask_commits(state, run_dir, lambda line: print(f"vbisect: {line}", file=sys.stderr))
        write_reports(state, run_dir)
    except OSError as error:
        print(f"vbisect: the reports cannot be written: {error.strerror}", file=sys.stderr)
