"""Text for a comment on GitHub that breaks out of nothing and calls nobody.

GitHub looks for mentions, references and addresses in what Markdown was rendered to, so a backslash
is no help there; it leaves code alone (https://docs.github.com/github/writing-on-github).
"""

from __future__ import annotations

import re

from vbisect.text import one_line, plain

MOST = 65_000
"""Characters of a whole comment; GitHub takes 65,536, and an edit by hand may add a few."""

_BLANK = "&#8203;"  # a zero-width space
_PINGS = re.compile(r"(?i)([@#])|(:)(?=//)|(www)(?=\.)|(gh)(?=-\d)")
_NEEDLESS = frozenset(" ,.-;%=/:()'\"?")
_STARTS_SOMETHING = re.compile(r"[-=]|\d{1,9}\.(\s|$)")
_LONG_RUN = re.compile(r"(`{16})(?=`)")


def length(text: str) -> int:
    """Characters as the strictest reading counts them: UTF-16 units, never fewer than others.

    At most 3 bytes each, so that 65,536 are below GitHub's 262,144 bytes as well.
    """
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


def prose(value: object, limit: int = 800) -> str:
    """One line of text as it is, in at most about ``limit`` characters of Markdown."""
    line = _PINGS.sub(lambda found: f"{found[0]}\0", one_line(str(value), limit))
    shown = _BLANK if _STARTS_SOMETHING.match(line) else ""
    for character in line:
        more = _entity(character)
        if length(shown) + length(more) > limit:
            return shown + "…"
        shown += more
    return shown


def code(value: object, limit: int = 400) -> str:
    """The same as inline code; it may stand in a table. Nothing in, nothing out."""
    shown = prose(value, limit)
    return f"<code>{shown}</code>" if shown.strip() else ""


def block(text: str, limit: int) -> str:
    """``text`` as a block of code in at most ``limit`` characters, which keeps its beginning."""
    return _fenced(_cut(harmless(text), limit - 80, keep_end=False))


def end_block(text: str, limit: int) -> str:
    """The same, keeping its end."""
    return _fenced(_cut(harmless(text), limit - 80, keep_end=True))


def harmless(text: str) -> str:
    """``text`` without controls, secrets or runs of backticks that would need a long fence."""
    return _LONG_RUN.sub("\\1\u200b", plain(text, len(text) + 1000))


def _entity(character: str) -> str:
    if character == "\0":
        return _BLANK
    needs = character.isascii() and not character.isalnum() and character not in _NEEDLESS
    return f"&#{ord(character)};" if needs else character


def _cut(text: str, limit: int, *, keep_end: bool) -> str:
    if length(text) <= limit:
        return text
    units = text.encode("utf-16-le")
    kept = units[-2 * limit :] if keep_end else units[: 2 * limit]
    shown = kept.decode("utf-16-le", errors="ignore")
    return f"…{shown}" if keep_end else f"{shown}…"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.rstrip()}\n{fence}"
