"""The table of a run as CSV."""

from __future__ import annotations

import csv
import io

from vbisect.report.rows import COLUMNS, rows
from vbisect.report.variations import names, variation_rows
from vbisect.run.state import RunState
from vbisect.text import plain

_FORMULA_STARTS = tuple("=+-@＝＋－＠")


def to_csv(state: RunState) -> str:
    """Every candidate, one line each; cells a spreadsheet would take for a formula are quoted.

    The variations of a suite have a column each, after all others.
    """
    suite = names(state)
    cells = {row.version: row.cells for row in variation_rows(state)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(_cell(f"variation {name}") for name in suite)])
    for row in rows(state):
        asked = cells.get(row.version, ("",) * len(suite))
        writer.writerow([_cell(value) for value in (*row.values().values(), *asked)])
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = plain(value)
    return "'" + text if text.lstrip().startswith(_FORMULA_STARTS) else text
