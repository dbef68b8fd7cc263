"""The report of a run as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from vbisect.files import Below
from vbisect.locks import is_at_work
from vbisect.reasons import ADVICE
from vbisect.report.details import Section, details
from vbisect.report.excerpts import all_short, as_json
from vbisect.report.rows import UNTESTED, Row, rows
from vbisect.report.templating import Filters, address, capital, load_template
from vbisect.report.upgrade import upgrade_of
from vbisect.report.variations import names, troubles, variation_rows
from vbisect.run.comparisons import KeptComparison
from vbisect.run.records import Answer
from vbisect.run.scope import scope_of
from vbisect.run.state import RunState
from vbisect.search import Outcome
from vbisect.text import one_line, plain

if TYPE_CHECKING:
    from jinja2 import Template

_DETAIL_BYTES = 1_500_000
"""What the details of all versions may take together."""
_MOST_OF_ONE = 48_000
"""What the details of one version may take, in bytes."""
_FINDING_BYTES = 150_000
"""What the findings in the table may take together."""
_LABELLED = 120
"""So many candidates carry their version in the timeline; of more, only their shapes fit."""
_REMARKS = 100
"""So many notes and warnings are shown of each."""


@dataclass(frozen=True)
class Mark:
    """A candidate in the timeline and the table. ``place`` is where it stands in a change."""

    row: Row
    version: str
    finding: str
    control: str
    place: str
    inside: bool


def to_html(
    state: RunState,
    run_dir: Path,
    on: str | None = None,
    comparisons: Sequence[KeptComparison] = (),
) -> str:
    """Verdict, timeline, what it means for somebody on ``on``, table, and details on demand."""
    template, style, script = _page()
    made = rows(state)
    upgrade = upgrade_of(state, on, comparisons)
    records = state.records.values()
    tried = [each for record in records for each in (record, record.control) if each is not None]
    return template.render(
        state=state,
        settings=state.settings,
        finding=state.finding,
        at_work=is_at_work(run_dir),
        scope=scope_of(state),
        upgrade=upgrade,
        speeds={speed.version: speed for speed in upgrade.speeds},
        variation_names=names(state),
        variation_rows=variation_rows(state),
        troubles=troubles(state),
        sized=any(speed.size_bytes for speed in upgrade.speeds),
        marks=_marks(state, made),
        labelled=len(made) <= _LABELLED,
        counts={outcome: _count(made, outcome) for outcome in (*map(str, Outcome), UNTESTED)},
        advice={
            str(reason): ADVICE[reason]
            for reason in sorted({each.reason for each in tried if each.reason})
        },
        most=_REMARKS,
        details=Markup(as_json(_details(state, run_dir))),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _count(made: list[Row], outcome: str) -> int:
    return sum(row.outcome == outcome for row in made)


def _details(state: RunState, run_dir: Path) -> dict[str, list[Section]]:
    """Sections by index into the candidates, so that no version names a key."""
    budget = min(_MOST_OF_ONE, _DETAIL_BYTES // max(1, len(state.records)))
    index = {version: str(number) for number, version in enumerate(state.settings.versions)}
    return {
        index[version]: details(record, order, Below(run_dir) / "trials" / version, budget)
        for order, (version, record) in enumerate(state.records.items(), 1)
    }


def _marks(state: RunState, made: list[Row]) -> list[Mark]:
    """The candidates with their places in what changed."""
    changes = state.finding.told if state.finding else ()
    places: dict[str, str] = {}
    inside: set[str] = set()
    versions = [row.version for row in made]
    for change in changes:
        inside.update(_between(change, versions))
        places.update(dict.fromkeys(change.suspects, "suspect"))
        places[change.first_after] = "first after"
        places[change.last_before] = "last before"
    limit = max(80, min(300, _FINDING_BYTES // max(1, len(made))))
    labels = all_short(versions, 80)
    findings = all_short([row.finding for row in made], limit)
    controls = all_short([row.control_finding or "" for row in made], limit)
    return [
        Mark(row, label, seen, control, places.get(row.version, ""), row.version in inside)
        for row, label, seen, control in zip(made, labels, findings, controls, strict=True)
    ]


def _between(change: Answer, versions: list[str]) -> list[str]:
    """The candidates from the last before a change to the first after it."""
    if not {change.last_before, change.first_after} <= set(versions):
        return []
    return versions[versions.index(change.last_before) : versions.index(change.first_after) + 1]


def _hash(text: str) -> str:
    """What a Content-Security-Policy allows ``text`` by.

    https://www.w3.org/TR/CSP3/#grammardef-hash-source
    """
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _outcome(cell: str) -> str:
    """The outcome that a cell of the table of variations begins with; "n/a" counts as untested."""
    word = cell.partition(" ")[0].rstrip(":")
    return word if word in list(Outcome) else UNTESTED


def _line(value: object, limit: int = 1000) -> Markup:
    """Text as one line that HTML shows as it is."""
    return value if isinstance(value, Markup) else escape(one_line(str(value), limit))


@cache
def _page() -> tuple[Template, str, str]:
    """The template, the style sheet and the script."""
    filters: Filters = {
        "line": _line,
        "address": address,
        "outcome": _outcome,
        "capital": capital,
        "text": lambda value: escape(plain(str(value), 10_000)),
    }
    folder = files("vbisect.report") / "templates"
    style, script = (
        Markup("\n" + (folder / name).read_text(encoding="utf-8"))
        for name in ("report.css", "report.js")
    )
    return load_template("report.html.j2", _line, filters), style, script
