"""Whether stated confidences hold: how often answers were right, by the confidence they stated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vbisect.simulate import Run, Status

EDGES = (0.95, 0.97, 0.99, 1.0)
NORMAL_95 = 1.959964

Stated = tuple[float, bool]
"""The confidence that an answer stated, and whether it is right."""


@dataclass(frozen=True)
class Bin:
    """Answers whose stated confidence is between ``low`` and ``high``."""

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


def exact_answers(runs: Iterable[Run]) -> list[Stated]:
    """The answers that name one release."""
    return _stated(run for run in runs if run.answer.status is Status.FOUND)


def suspect_answers(runs: Iterable[Run]) -> list[Stated]:
    """The answers that name suspects; right are those that hold the change."""
    return _stated(
        run for run in runs if run.answer.status is Status.INCONCLUSIVE and run.answer.suspects
    )


def calibrate(runs: Iterable[Run]) -> list[Bin]:
    """The bins that have exact answers in them; 1 itself is in the last."""
    answers = exact_answers(runs)
    bins = []
    for low, high in pairwise(EDGES):
        held = [each for each in answers if low <= each[0] < high or each[0] == high == EDGES[-1]]
        if held:
            bins.append(_bin(low, high, held))
    return bins


def quartiles(runs: Iterable[Run]) -> list[Bin]:
    """The exact answers in four bins of as many, the least sure first."""
    answers = sorted(exact_answers(runs), key=lambda each: each[0])
    cuts = [len(answers) * quarter // 4 for quarter in range(5)]
    parts = [answers[first:beyond] for first, beyond in pairwise(cuts)]
    return [_bin(part[0][0], part[-1][0], part) for part in parts if part]


def margin(answers: Sequence[Stated]) -> float:
    """How far the share that is right may be above the mean stated; 0 without answers."""
    if not answers:
        return 0.0
    whole = _bin(0, 1, answers)
    return whole.interval[1] - whole.stated


def _stated(runs: Iterable[Run]) -> list[Stated]:
    return [
        (run.answer.confidence, not run.wrong) for run in runs if run.answer.confidence is not None
    ]


def _bin(low: float, high: float, held: Sequence[Stated]) -> Bin:
    mean = sum(confidence for confidence, _ in held) / len(held)
    return Bin(low, high, len(held), sum(right for _, right in held), mean)
