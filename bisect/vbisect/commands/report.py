"""``vbisect report``: a run directory rendered in one of the formats."""

from __future__ import annotations

import sys
from pathlib import Path

from vbisect.errors import UsageError
from vbisect.report.formats import FORMATS, render
from vbisect.run.state import load_state


def print_report(run_dir: Path, format_name: str, on: str | None = None) -> None:
    """Print the report, for somebody on release ``on``.

    A torn last line of the journal is said on stderr.
    """
    if format_name not in FORMATS:
        raise UsageError(f"--format {format_name}: choose one of {', '.join(FORMATS)}.")
    state, torn = load_state(run_dir)
    if torn:
        print("vbisect: the journal's last line is torn; it is left out.", file=sys.stderr)
    sys.stdout.write(render(format_name, state, run_dir, on))
