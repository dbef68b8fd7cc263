"""What the outcomes say: where they change along an ordered list of candidates.

An exact answer always names two tested neighbours; a skip or an untested candidate between the two
sides of a change is a suspect.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from vbisect.search.ends import Ends
from vbisect.search.known import Change, Find, Seen, change_between


class Verdict(StrEnum):
    """How a search stands when nothing is left to test."""

    FOUND = "found"
    NO_CHANGE = "no_change"
    OTHER_CHANGE = "other_change"  # a change, but not of the kind that was asked for
    TOO_FEW = "too_few"  # fewer than two candidates could be tested
    UNSURE = "unsure"  # what was seen does not carry the confidence asked for


@dataclass(frozen=True)
class Boundary:
    """A change between two tested candidates; ``suspects`` are the indices it could be in.

    The change is in one of ``suspects``: the skipped candidates after ``last_before`` and
    ``first_after`` itself. ``exact`` when that is ``first_after`` alone. ``confidence``, in (0, 1),
    is how sure that is, ``None`` where only the outcomes were looked at.
    """

    change: Change
    last_before: int
    first_after: int
    confidence: float | None = None

    @property
    def suspects(self) -> tuple[int, ...]:
        return tuple(range(self.last_before + 1, self.first_after + 1))

    @property
    def exact(self) -> bool:
        return self.first_after == self.last_before + 1


@dataclass(frozen=True)
class Excluded:
    """What "no change" rules out: with the confidence asked for, a bug that shows in these shares.

    ``per_request`` where it shows independently in requests, ``per_boot`` where it sticks to boots.
    """

    per_request: float
    per_boot: float


@dataclass(frozen=True)
class Conclusion:
    """What was seen says this: the verdict, and every boundary between tested candidates.

    When the verdict is ``UNSURE`` and one change was looked for, ``suspects`` is the smallest set
    of indices that holds the confidence asked for, of a change of the kind ``likely``; ``held`` is
    the probability that it is in one of them. They are empty and ``None`` where no change is
    likelier than none. Of several changes, ``doubtful`` holds the indices that may be on the other
    side than the boundaries say. With another verdict, ``suspects`` is what the newest boundary of
    the kind looked for could be in.
    ``excluded`` goes with ``NO_CHANGE``, unless releases were seen both passing and failing.
    ``more_changes`` when what was seen cannot come from one change.
    """

    verdict: Verdict
    boundaries: tuple[Boundary, ...]
    ends: Ends | None
    suspects: tuple[int, ...] = ()
    more_changes: bool = False
    held: float | None = None
    likely: Change | None = None
    doubtful: tuple[int, ...] = ()
    excluded: Excluded | None = None


def conclude(seen: Seen, *, find: Find = Find.AUTO) -> Conclusion:
    """Read the answer from the outcomes seen so far; untested candidates are never answered for."""
    tested, outcomes = seen.judged, seen.outcomes
    ends = Ends(tested[0], tested[-1]) if tested else None
    if len(tested) < 2:
        return Conclusion(Verdict.TOO_FEW, (), ends)
    boundaries = tuple(
        Boundary(change, before, after)
        for before, after in pairwise(tested)
        if (change := change_between(outcomes[before], outcomes[after]))
    )
    more = len(boundaries) > 1
    wanted = [boundary for boundary in boundaries if find.wants(boundary.change)]
    if wanted:
        return Conclusion(Verdict.FOUND, boundaries, ends, wanted[-1].suspects, more)
    verdict = Verdict.OTHER_CHANGE if boundaries else Verdict.NO_CHANGE
    return Conclusion(verdict, boundaries, ends, more_changes=more)
