"""Whether stated confidences hold: how often answers were right, by the confidence they stated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vbisect.simulate import Run, Status

EDGES = (0.95, 0.97, 0.99, 1.0)
NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Bin:
    """Answers whose stated confidence is in [``low``, ``high``); 1 itself is in the last."""

    low: float
    high: float
    answers: int
    right: int
    stated: float
    """The mean of what they stated."""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share that is right (Wilson)."""
        return wilson(self.right, self.answers)

    @property
    def holds(self) -> bool:
        """Whether the answers are right as often as they say, as far as so many can tell."""
        return self.interval[1] >= self.stated


def wilson(right: int, answers: int) -> tuple[float, float]:
    """Wilson's score interval, 95 %, of a share that was ``right`` out of ``answers`` times.

    https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval
    """
    share, square = right / answers, NORMAL_95**2
    middle = share + square / (2 * answers)
    spread = NORMAL_95 * math.sqrt(share * (1 - share) / answers + square / (4 * answers * answers))
    scale = 1 + square / answers
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def calibrate(runs: Iterable[Run]) -> list[Bin]:
    """The bins that have answers in them; only definite answers that name a change count."""
    stated = [
        (run.answer.confidence, not run.wrong)
        for run in runs
        if run.answer.status is Status.FOUND and run.answer.confidence is not None
    ]
    return [found for low, high in pairwise(EDGES) if (found := _bin(low, high, stated))]


def _bin(low: float, high: float, stated: Sequence[tuple[float, bool]]) -> Bin | None:
    held = [
        (confidence, right)
        for confidence, right in stated
        if low <= confidence < high or confidence == high == EDGES[-1]
    ]
    if not held:
        return None
    mean = sum(confidence for confidence, _ in held) / len(held)
    return Bin(low, high, len(held), sum(right for _, right in held), mean)
