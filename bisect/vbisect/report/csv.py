"""The table of a run as CSV."""

from __future__ import annotations

from vbisect.report.rows import COLUMNS, rows
from vbisect.report.variations import names, variation_rows
from vbisect.run.state import RunState
from vbisect.text import plain

_WHOLE_NUMBERS = ("passes", "fails", "size_bytes", "order", "control_passes", "control_fails")
_TEXTS = (
    *("version", "outcome", "finding", "parameters", "engine"),
    *("reported_version", "build", "digest"),
    *("control_outcome", "control_finding", "control_parameters"),
)
_FORMULA_STARTS = tuple("=+-@＝＋－＠")


def to_csv(state: RunState) -> str:
    """Every candidate, one line each; cells a spreadsheet would take for a formula are quoted.

    The variations of a suite have a column each, after all others.
    """
    import pandas

    table = pandas.DataFrame([row.values() for row in rows(state)], columns=list(COLUMNS))
    for column in _WHOLE_NUMBERS:
        table[column] = table[column].astype("Int64")
    for column in _TEXTS:
        table[column] = [_cell(value) for value in table[column]]
    cells = {row.version: row.cells for row in variation_rows(state)}
    for place, name in enumerate(names(state)):
        asked = [cells[v][place] if v in cells else None for v in state.settings.versions]
        table[f"variation {name}"] = [_cell(value) for value in asked]
    text: str = table.to_csv(index=False, lineterminator="\n")
    return text


def _cell(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    text = plain(value)
    return "'" + text if text.lstrip().startswith(_FORMULA_STARTS) else text
