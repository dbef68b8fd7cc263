"""The formats a run can be reported in; a new one is one function and one line here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from vbisect.run.state import RunState


def render(name: str, state: RunState, run_dir: Path) -> str:
    """The report of a run in format ``name``, one of ``FORMATS``."""
    return FORMATS[name](state, run_dir)


def _markdown(state: RunState, run_dir: Path) -> str:
    from vbisect.report.markdown import to_markdown

    return to_markdown(state)


def _csv(state: RunState, run_dir: Path) -> str:
    from vbisect.report.csv import to_csv

    return to_csv(state)


def _html(state: RunState, run_dir: Path) -> str:
    from vbisect.report.html import to_html

    return to_html(state, run_dir)


def _json(state: RunState, run_dir: Path) -> str:
    from vbisect.report.summary import summary

    return json.dumps(summary(state, run_dir)) + "\n"


FORMATS: dict[str, Callable[[RunState, Path], str]] = {
    "md": _markdown,
    "html": _html,
    "csv": _csv,
    "json": _json,
}


FILES = {"table.csv": "csv", "report.md": "md", "report.html": "html"}
"""The files that every finished run directory holds, each with its format."""


def write_reports(state: RunState, run_dir: Path) -> None:
    """Write ``FILES`` into the run directory."""
    for name, format_name in FILES.items():
        (run_dir / name).write_text(render(format_name, state, run_dir), encoding="utf-8")
