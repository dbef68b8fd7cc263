"""The formats a run can be reported in; a new one is one function and one line here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from vbisect.files import write_whole
from vbisect.locks import is_at_work
from vbisect.run.comparisons import read_comparisons
from vbisect.run.state import RunState

Format = Callable[[RunState, Path, str | None], str]
"""Renders a run, for somebody on a certain release or, by default, on the oldest one tested."""


def render(name: str, state: RunState, run_dir: Path, on: str | None = None) -> str:
    """The report of a run in format ``name``, one of ``FORMATS``, for somebody on release ``on``.

    Raises ``UsageError`` when ``on`` is no candidate of the run.
    """
    return FORMATS[name](state, run_dir, on)


def _markdown(state: RunState, run_dir: Path, on: str | None) -> str:
    from vbisect.report.markdown import to_markdown

    return to_markdown(state, on, read_comparisons(run_dir), at_work=is_at_work(run_dir))


def _csv(state: RunState, run_dir: Path, on: str | None) -> str:
    from vbisect.report.csv import to_csv

    return to_csv(state)


def _html(state: RunState, run_dir: Path, on: str | None) -> str:
    from vbisect.report.html import to_html

    return to_html(state, run_dir, on, read_comparisons(run_dir))


def _json(state: RunState, run_dir: Path, on: str | None) -> str:
    from vbisect.report.summary import summary

    return json.dumps(summary(state, run_dir, on), allow_nan=False) + "\n"


FORMATS: dict[str, Format] = {
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
        write_whole(run_dir / name, render(format_name, state, run_dir))
