"""What a simulated search answers, held against what is true."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vbisect.search import Change
from vbisect.simulate.world import World


class Status(StrEnum):
    """How a simulated run can end; the words of ``vbisect run``."""

    FOUND = "found"
    NONE = "none"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Answer:
    """A status, and the boundary where one is named.

    ``change`` is set where a change is claimed, its place known or not. ``suspects`` are the
    indices it could be in, or would be in if there is one. ``confidence`` is the one stated,
    ``None`` where a strategy states none. ``changes`` are all boundaries named, each
    with the first and the last index it could be in; ``more`` says that what was seen cannot come
    from one change. ``tested`` are the oldest and the newest release that could be tested.
    """

    status: Status
    change: Change | None = None
    last_before: int | None = None
    first_after: int | None = None
    exact: bool = False
    suspects: tuple[int, ...] = ()
    confidence: float | None = None
    changes: tuple[tuple[Change, int, int], ...] = ()
    more: bool = False
    tested: tuple[int, int] | None = None


def is_wrong(answer: Answer, world: World) -> bool:
    """Whether ``answer`` denies what is true in ``world``.

    A definite answer is wrong unless it is the truth. One that is not sure is wrong where it claims
    a change that is not there or of the other kind, or where its suspects leave the truth out. Of
    several changes any is the truth.
    """
    truths = world.visible_changes
    claimed = answer.change is not None
    if not truths:
        return claimed
    if answer.status is Status.INCONCLUSIVE:
        missed = bool(answer.suspects) and not any(t.at in answer.suspects for t in truths)
        return missed or (claimed and all(answer.change is not t.kind for t in truths))
    named = (answer.change, answer.first_after, answer.exact)
    return all(named != (truth.kind, truth.at, True) for truth in truths)
