"""How large amounts may be, as a clock can wait for no more, and how they are told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST = 10**9

Amount = Annotated[int, Field(ge=1, le=MOST)]

Timeout = Annotated[float, Field(gt=0, le=MOST)]
"""Seconds."""


def sized(size: int) -> str:
    """``size`` bytes for people."""
    return f"{size / 1e9:.2f} GB" if size >= 10**9 else f"{size / 1e6:.1f} MB"


def counted(number: int, thing: str) -> str:
    """How many of a thing there are, for people."""
    return f"{number} {thing}{'s' * (number != 1)}"
