"""What a search is to find, and how sure it has to be."""

from __future__ import annotations

from dataclasses import dataclass

from vbisect.search.outcome import Find

MAX_SKIPS = 10
"""Without a limit, 15 broken of 60 in a row cost up to two boots more and name no more answers."""


@dataclass(frozen=True)
class Aim:
    """What is looked for among ``count`` candidates, oldest first.

    ``sweep`` tests every candidate. ``find_all`` narrows down every change seen and leaves no
    untested stretch between agreeing releases longer than about an eighth of the range.
    ``confidence``, in (0, 1), is what an answer needs. After ``max_skips`` dear skips inside one
    bracket the search stops with suspects. ``weights[i]`` says how likely the change came with
    candidate ``i`` (index 0 is unused); it steers the picks, never the answer; ``None`` is even.

    Raises ``ValueError`` unless there is one weight, finite and not negative, for each candidate.
    """

    count: int
    find: Find = Find.AUTO
    sweep: bool = False
    find_all: bool = False
    confidence: float = 0.95
    # Of 60 candidates with 15 broken in a row, 10 name as many exact answers as 12 do, with half a
    # boot less: whoever has skipped so often is inside the broken stretch for good.
    max_skips: int = MAX_SKIPS
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.weights is None:
            return
        if len(self.weights) != self.count:
            raise ValueError(f"{len(self.weights)} weights for {self.count} candidates")
        if not all(0 <= weight < float("inf") for weight in self.weights):
            raise ValueError("a weight is negative or not finite")

    @property
    def several(self) -> bool:
        """Whether all changes are looked for, not one."""
        return self.sweep or self.find_all

    @property
    def longest_agreeing(self) -> int:
        """How many untested candidates in a row ``find_all`` leaves between agreeing releases."""
        return self.count // 8
