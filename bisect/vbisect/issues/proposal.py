"""One thing that an issue says, as an option of vbisect with the place it was found at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Proposal:
    """``option`` with ``value``, both as they would be typed; a flag has no value.

    ``where`` names passage and line, and ``excerpt`` is that line: hostile text, to be shown plain.
    ``refused`` says why it is shown but not taken, and is ``None`` where it is.
    """

    option: str
    value: str | None
    where: str
    excerpt: str
    refused: str | None = None
