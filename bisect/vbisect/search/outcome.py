"""The words of a search: what a trial can come to, which changes there are, which are wanted."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What a trial of one release came to; a skip says nothing about the bug."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


class Change(StrEnum):
    """``fix``: fail before, pass after. ``break``: pass before, fail after."""

    FIX = "fix"
    BREAK = "break"


class Find(StrEnum):
    """Which change is looked for; ``auto`` lets the two ends decide."""

    AUTO = "auto"
    FIX = "fix"
    BREAK = "break"

    def wants(self, change: Change) -> bool:
        """Whether ``change`` is of the kind looked for."""
        return self is Find.AUTO or self.value == change.value


def change_between(before: Outcome, after: Outcome) -> Change | None:
    """The change from ``before`` to ``after``, neither a skip; ``None`` when they agree."""
    if before is after:
        return None
    return Change.FIX if before is Outcome.FAIL else Change.BREAK
