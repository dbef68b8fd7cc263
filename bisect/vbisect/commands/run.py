"""``vbisect run``: a new run, or an old one gone on with."""

from __future__ import annotations

import sys
from pathlib import Path

from vbisect.commands.consent import ask_to_run
from vbisect.commands.signals import signals_as_interrupt
from vbisect.files import refuse_links
from vbisect.report.formats import write_reports
from vbisect.report.progress import progress
from vbisect.run.ask_commits import ask_commits
from vbisect.run.hub_access import see_to_access
from vbisect.run.options import RunOptions
from vbisect.run.prepare import make_run_dir, prepare
from vbisect.run.session import resume_run, start_run
from vbisect.run.settings import RunSettings, read_settings, require_settings
from vbisect.run.state import RunState, load_state
from vbisect.run.trust import enter, is_ours, what_would_run
from vbisect.text import one_line


def new_run(options: RunOptions, results: Path) -> tuple[RunState, Path]:
    """Check everything, make the run directory, and carry the run to its end."""
    with signals_as_interrupt():
        settings = see_to_access(prepare(options, results), begins=True)
        run_dir = make_run_dir(results, settings.run_id)
        settings = settings.model_copy(update={"run_id": run_dir.name})
        print(f"vbisect: run directory {run_dir}", file=sys.stderr)
        with progress() as display:
            state = start_run(settings, run_dir, display)
        _report(state, run_dir)
    return state, run_dir


def old_run(run_dir: Path, *, trusted: bool) -> tuple[RunState, Path]:
    """Resume the run in ``run_dir``; its own settings hold.

    One that this user did not begin on this host is run after a yes only, or when ``trusted``; one
    that is over is only told, and nothing is asked, run or written. Raises ``UsageError`` without a
    yes, and for one with links in it.
    """
    with signals_as_interrupt():
        require_settings(run_dir)  # what is no run directory is told as that, whatever lies in it
        refuse_links(run_dir)
        content = read_settings(run_dir)
        settings = RunSettings.parse(content, run_dir)
        if not is_ours(content):
            state, _ = load_state(run_dir)
            if state.finding is not None and not state.finding.status.resumable:
                return state, run_dir
            _agree(settings, run_dir, trusted=trusted)
            refuse_links(run_dir)  # it may have been changed while somebody thought about it
            enter(run_dir, content)
        with progress() as display:
            state = resume_run(run_dir, settings, display)
        _report(state, run_dir)
    return state, run_dir


def _agree(settings: RunSettings, run_dir: Path, *, trusted: bool) -> None:
    """Show what going on with the run of somebody else would run, and have a yes to it."""
    print(
        f"vbisect: {one_line(str(run_dir))} was not begun by you on this host, as far as the cache "
        "knows:",
        file=sys.stderr,
    )
    for line in what_would_run(settings):
        print(line, file=sys.stderr, flush=True)
    if not trusted:
        ask_to_run("--trust")


def _report(state: RunState, run_dir: Path) -> None:
    """The reports of a run that is over, with the commits its answer lies between.

    The answer is told even where they cannot be written.
    """
    try:
        ask_commits(state, run_dir, lambda line: print(f"vbisect: {line}", file=sys.stderr))
        write_reports(state, run_dir)
    except OSError as error:
        print(f"vbisect: the reports cannot be written: {error.strerror}", file=sys.stderr)
