"""Excerpts of what a trial left behind: bounded in what is read and in what is kept."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import BinaryIO

from vbisect.files import Below
from vbisect.text import one_line, plain

_MARGIN = 2048
"""Bytes read beyond an excerpt, so that a token across its edge is known as one."""

_JSON_ESCAPES = str.maketrans(
    {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
)


def as_json(value: object) -> str:
    """``value`` as JSON that HTML and JavaScript both take for nothing else.

    https://html.spec.whatwg.org/multipage/scripting.html#restrictions-for-contents-of-script-elements
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_JSON_ESCAPES)


@dataclass(frozen=True)
class Excerpt:
    """Both ends of a text, fit for people; ``left_out`` counts the bytes between them, about."""

    head: str
    tail: str = ""
    left_out: int = 0

    def within(self, limit: int) -> Excerpt:
        """As much of both ends as takes ``limit`` bytes as JSON, without the note between."""
        shown = self
        if len(self.head + self.tail) * 6 <= limit:
            return self
        while (size := shown._size()) > limit:
            text = shown.head + shown.tail
            keep = int(len(text) * limit / size * 0.95)
            before, after = (keep + 1) // 2, keep // 2
            if shown.tail:
                head, tail = shown.head[:before], shown.tail[len(shown.tail) - after :]
            else:
                head, tail = text[:before], text[len(text) - after :] if after else ""
            lost = len((shown.head + shown.tail).encode()) - len((head + tail).encode())
            shown = Excerpt(head, tail, shown.left_out + lost)
        return shown

    def _size(self) -> int:
        return len(as_json(self.head + self.tail).encode()) - 2

    def __str__(self) -> str:
        if not self.left_out:
            return self.head + self.tail
        return f"{self.head}\n[… {self.left_out:,} bytes left out …]\n{self.tail}"


def both_ends(place: Below, limit: int) -> Excerpt | None:
    """The first and last ``limit // 2`` bytes of a file, or all of it; ``None`` without one."""
    handle = opened(place)
    if handle is None:
        return None
    with handle:
        size = os.fstat(handle.fileno()).st_size
        if size <= limit:
            return Excerpt(_slice(handle, 0, size, size))
        head = _whole_lines(_slice(handle, 0, limit // 2, size)[: limit // 2], last=True)
        tail = _slice(handle, size - limit // 2, size, size)
        tail = _whole_lines(tail[max(0, len(tail) - limit // 2) :], last=False)
    return Excerpt(head, tail, max(0, size - len(head.encode()) - len(tail.encode())))


def around(place: Below, words: str, limit: int, scan: int) -> str | None:
    """``limit`` bytes of a file around ``words``, sought in its first and last ``scan`` bytes."""
    handle = opened(place)
    needle = words.encode("utf-8", errors="replace")
    if handle is None or not needle:
        return None
    with handle:
        size = os.fstat(handle.fileno()).st_size
        for start in dict.fromkeys((0, max(0, size - scan))):
            handle.seek(start)
            found = handle.read(scan).find(needle)
            if found >= 0:
                at = start + found
                return _slice(handle, max(0, at - limit // 2), min(size, at + limit // 2), size)
    return None


def first_lines(place: Below, limit: int) -> list[str]:
    """The whole lines within the first ``limit`` bytes of a file, as they are."""
    handle = opened(place)
    if handle is None:
        return []
    with handle:
        text = handle.read(limit).decode("utf-8", errors="replace")
    return text.split("\n")[:-1]


def opened(place: Below) -> BinaryIO | None:
    """The file at ``place`` for reading; ``None`` where there is none of the run's own."""
    try:
        return place.open()
    except OSError:
        return None


def short(text: str, limit: int) -> str:
    """``text`` on one line that takes about ``limit`` bytes as JSON."""
    return all_short([text], limit)[0]


def all_short(texts: list[str], limit: int) -> list[str]:
    """Each of ``texts`` as ``short`` makes it; looked through together, which is much sooner."""
    lines = [" ".join(text.split()) for text in texts]
    together = "\n".join(lines)
    if plain(together, len(together)) != together:
        lines = [one_line(line) for line in lines]
    return [_cut(line, limit) for line in lines]


def _cut(line: str, limit: int) -> str:
    if len(line) > limit:
        line = line[: limit - 1] + "…"
    # no character takes more than six bytes
    while len(line) * 6 > limit and len(as_json(line).encode()) > limit + 2 and len(line) > 8:
        line = line[: len(line) * 3 // 4] + "…"
    return line


def _slice(handle: BinaryIO, start: int, end: int, size: int) -> str:
    """Bytes ``start`` to ``end`` of a file of ``size`` bytes, as text for people."""
    low, high = max(0, start - _MARGIN), min(size, end + _MARGIN)
    handle.seek(low)
    raw = handle.read(high - low).decode("utf-8", errors="replace")
    text = plain(raw, len(raw) + 1000)
    return text[start - low : max(0, len(text) - (high - end))]


def _whole_lines(text: str, *, last: bool) -> str:
    """``text`` without the line that was cut at its end (``last``) or start, if others are left."""
    if last:
        return text.rpartition("\n")[0] or text
    return text.partition("\n")[2] or text
