"""The words of a search: what a trial can come to, and which way an answer can change."""

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
