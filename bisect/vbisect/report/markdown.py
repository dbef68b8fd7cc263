"""The report of a run as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

from vbisect.reasons import ADVICE
from vbisect.report.rows import tested_rows
from vbisect.report.templating import Filters, address, capital, load_template
from vbisect.report.upgrade import upgrade_of
from vbisect.report.variations import names, troubles, variation_rows
from vbisect.run.comparisons import KeptComparison
from vbisect.run.scope import scope_of
from vbisect.run.state import RunState
from vbisect.text import one_line, plain

if TYPE_CHECKING:
    from jinja2 import Template

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")
_LONGEST_BLOCK = 20_000
_AT_START = re.compile(r"^(\d*)([-=.)])(?=\s|[-=]*$)")
_LINKED = re.compile(r"@|#(?=\d)|GH(?=-)|https?:|ftp:|www(?=\.)", re.IGNORECASE)


def to_markdown(
    state: RunState,
    on: str | None = None,
    comparisons: Sequence[KeptComparison] = (),
    *,
    at_work: bool = False,
) -> str:
    """Verdict, what it means for somebody on release ``on``, table, and how to repeat it.

    ``at_work``: a vbisect is, where there is no verdict yet.
    """
    records = state.records.values()
    of_both = [r for record in records for r in (record, record.control) if r is not None]
    reasons = {r.reason for r in of_both if r.reason is not None}
    text = _template().render(
        state=state,
        settings=state.settings,
        finding=state.finding,
        at_work=at_work,
        scope=scope_of(state),
        upgrade=upgrade_of(state, on, comparisons),
        rows=tested_rows(state),
        advice={str(reason): ADVICE[reason] for reason in sorted(reasons)},
        variation_names=names(state),
        variation_rows=variation_rows(state),
        troubles=troubles(state),
        untried=len(state.settings.versions) - len(state.records),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _escape(value: object, limit: int = 300) -> Markup:
    """Text from servers as one line that Markdown shows as it is, and that pings nobody.

    A zero-width space parts what GitHub would link in a finished text: names, issues, addresses.
    """
    if isinstance(value, Markup):
        return value
    text = _LINKED.sub("\\g<0>\u200b", one_line(str(value), limit))
    return Markup(_AT_START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", text)))


def _code(value: object) -> Markup:
    """Text as inline code, whatever backticks it holds."""
    text = one_line(str(value), 2000)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    return Markup(f"{fence} {text} {fence}" if longest else f"`{text}`")


def _block(value: object) -> Markup:
    """Text within an indented block, to its last line."""
    text = plain(re.sub(r"\r\n|\r", "\n", str(value)), _LONGEST_BLOCK)
    return Markup(text.replace("\n", "\n    "))


@cache
def _template() -> Template:
    filters: Filters = {
        "md": _escape,
        "address": lambda text: Markup(address(text)),
        "capital": capital,
        "code": _code,
        "block": _block,
    }
    return load_template("report.md.j2", _escape, filters)
