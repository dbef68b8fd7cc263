"""The candidates as one line: which pass, which fail, and where the change is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vbisect.report.comment.text import prose
from vbisect.report.rows import Row, rows
from vbisect.run.records import Answer
from vbisect.run.state import RunState

_SIGNS = {"pass": "✓", "fail": "✗", "skip": "○"}
_UNTRIED = "·"
_SAID = {"✓": "passes", "✗": "fails", "○": "could not be judged", _UNTRIED: "not tried"}
_CHANGE, _OPENS, _CLOSES = "│", "├", "┤"
_SHOWN = 24
"""As many versions as a line can name; others are counted."""


@dataclass(frozen=True)
class Strip:
    """``line`` is inline code, ``legend`` says what its signs mean."""

    line: str
    legend: str


def strip(state: RunState) -> Strip:
    """All candidates, oldest first, those far from every change only counted.

    An exact change is one stroke; otherwise a bracket is around all that are suspects.
    """
    entries = rows(state)
    changes = _changes(state)
    shown = _near(len(entries), [i for change in changes for i in _edges(state, change)])
    words = list(_words(state, entries, changes, shown))
    signs = dict.fromkeys(_sign(entry) for entry in entries)
    legend = [f"{sign} {_SAID[sign]}" for sign in signs]
    asked = state.settings.confidence
    probably = any(change.exact and change.confidence < asked for change in changes)
    legend += [f"{_CHANGE} {'probably ' * probably}the change"] if _CHANGE in words else []
    if _OPENS in words:
        guessed = state.finding is not None and state.finding.is_guess
        legend.append(f"{_OPENS} {_CLOSES} the change is {'probably ' * guessed}in one of these")
    return Strip(f"<code>{'  '.join(words)}</code>", ", ".join(legend))


def _changes(state: RunState) -> tuple[Answer, ...]:
    return state.finding.told if state.finding else ()


def _edges(state: RunState, change: Answer) -> tuple[int, int]:
    """The first and last suspect, by index."""
    versions = state.settings.versions
    places = [versions.index(v) for v in (*change.suspects, change.first_after) if v in versions]
    return (min(places), max(places)) if places else (0, 0)


def _near(count: int, edges: list[int]) -> set[int]:
    """The candidates to name: both ends, then the nearest to a change."""
    beside = [i + side for i in edges for side in (-0.5, 0.5)] or [0, count - 1]
    ranked = sorted(range(count), key=lambda i: (min(abs(i - b) for b in beside), i))
    return {0, count - 1, *ranked[:_SHOWN]}


def _words(
    state: RunState, entries: list[Row], changes: tuple[Answer, ...], shown: set[int]
) -> Iterator[str]:
    before: dict[int, str] = {}
    after: dict[int, str] = {}
    for change in changes:
        first, last = _edges(state, change)
        if change.exact:
            before[first] = _CHANGE
        elif {first, last} <= shown:
            before[first], after[last] = _OPENS, _CLOSES
    hidden = 0
    for index, entry in enumerate(entries):
        if index not in shown:
            hidden += 1
            continue
        if hidden:
            yield f"… {hidden} more …"
            hidden = 0
        if index in before:
            yield before[index]
        yield f"{prose(entry.version, 100)} {_sign(entry)}"
        if index in after:
            yield after[index]


def _sign(entry: Row) -> str:
    tried = entry.order is not None  # what was left out with --skip was not
    return _SIGNS[entry.outcome] if tried else _UNTRIED
