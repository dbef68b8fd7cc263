"""The templates of the reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

_ADDRESS = re.compile(r"https://[A-Za-z0-9._~:/?#@!$&*+,;=%-]{1,2000}")

Filters = Mapping[str, Callable[..., Any]]


def load_template(
    name: str,
    escape: Callable[[object], Markup],
    filters: Filters,
    *,
    keep_trailing_newline: bool = True,
) -> Template:
    """The template ``name`` with its ``filters``.

    Whatever is shown goes through ``escape``, which leaves as it is only what a filter has escaped
    otherwise, or the template itself calls ``safe``: nothing is shown raw for being forgotten.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vbisect.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        finalize=escape,
        keep_trailing_newline=keep_trailing_newline,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def address(text: str) -> str:
    """A web address as a link may lead to in any format, or the top of the page where it is none.

    https://www.rfc-editor.org/rfc/rfc3986#section-2, without what ends a link in Markdown.
    """
    return text if _ADDRESS.fullmatch(text) else "#"


def capital(text: str) -> str:
    """``text`` with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]
