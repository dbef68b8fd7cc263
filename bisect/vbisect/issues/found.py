"""Something found in the text: a value, its place, and how much the place is worth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Generic, TypeVar

from vbisect.issues.thread import Thread

T = TypeVar("T")


class Worth(IntEnum):
    """How much a finding says about what was run; of several the most telling counts."""

    PROSE = 1
    LOG = 2
    CODE = 3
    FACT = 4
    """A program's own report of itself, or the command that was run."""


@dataclass(frozen=True)
class Line:
    """One line of the thread; ``code`` within a fenced block."""

    text: str
    where: str
    code: bool

    @property
    def logged(self) -> bool:
        """Whether a server wrote it: its values may be defaults nobody asked for."""
        return "Received request" in self.text or "skip_special_tokens=" in self.text


@dataclass(frozen=True)
class Found(Generic[T]):
    """``value`` in ``line``."""

    value: T
    line: Line
    worth: Worth


def lines_of(thread: Thread) -> list[Line]:
    """All lines in their order; one that ends in a backslash has the next ones joined to it."""
    found: list[Line] = []
    for passage in thread.passages:
        code, pending, began = False, list[str](), 0
        for number, text in enumerate(passage.lines, 1):
            if text.lstrip().startswith(("```", "~~~")):
                code = not code
            began = began if pending else number
            stripped = text.rstrip()
            pending.append(stripped.removesuffix("\\"))
            if stripped.endswith("\\") and len(pending) < _MOST_JOINED:
                continue
            where = passage.where if passage.where == "title" else f"{passage.where}, line {began}"
            found.append(Line(" ".join(pending), where, code))
            pending = []
        if pending:
            found.append(Line(" ".join(pending), f"{passage.where}, line {began}", code))
    return found


_MOST_JOINED = 100


def best(found: Iterable[Found[T]]) -> list[Found[T]]:
    """The most telling ones, in the order of the text, each value once."""
    listed = list(found)
    top = max((each.worth for each in listed), default=Worth.PROSE)
    unlike: dict[T, Found[T]] = {}
    for each in listed:
        if each.worth is top:
            unlike.setdefault(each.value, each)
    return list(unlike.values())


def others(found: Iterable[Found[T]], than: Iterable[Found[T]]) -> list[Found[T]]:
    """What else was found, each value once."""
    known = {each.value for each in than}
    unlike: dict[T, Found[T]] = {}
    for each in found:
        if each.value not in known:
            unlike.setdefault(each.value, replace(each))
    return list(unlike.values())
