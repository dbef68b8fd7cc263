"""The templates of the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

Filters = Mapping[str, Callable[..., Any]]


def load_template(
    name: str,
    filters: Filters,
    *,
    autoescape: bool = False,
    keep_trailing_newline: bool = True,
) -> Template:
    """The template ``name`` with its ``filters``.

    HTML is escaped by itself with ``autoescape``; the escapes of Markdown are filters.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vbisect.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=autoescape,
        keep_trailing_newline=keep_trailing_newline,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def capital(text: str) -> str:
    """``text`` with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]
