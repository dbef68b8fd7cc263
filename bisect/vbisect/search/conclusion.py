"""The answer, with how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vbisect.search.aim import Aim
from vbisect.search.belief import Belief, Piece, believe
from vbisect.search.belief_picks import standing
from vbisect.search.boundary import Boundary, Conclusion, Ends, Verdict, conclude
from vbisect.search.confidence import Counts, pass_confidence, weakest
from vbisect.search.models import Evidence, log_bad, log_good
from vbisect.search.outcome import Change, Outcome
from vbisect.search.seen import Seen, flaky
from vbisect.search.sides import Sides
from vbisect.search.weighing import Weighing
from vbisect.search.windows import confidences

_CONTRADICTION = 4.6
"""Log of the odds (100 to 1) at which a release alone speaks against a single change."""


def conclude_seen(aim: Aim, seen: Seen) -> Conclusion:
    """Read the answer from what was seen, each boundary with its confidence.

    As long as nothing was flaky the outcomes decide, after that the posterior: the one boundary, or
    with ``sweep`` and ``find_all`` each on its own. An untested candidate is never answered for.
    """
    plain = conclude(aim.count, seen.outcomes, find=aim.find)
    if plain.verdict is Verdict.TOO_FEW or plain.ends is None:
        return plain
    if not flaky(seen):
        return _with_confidence(plain, [_plain_confidence(aim, seen, b) for b in plain.boundaries])
    if aim.several:
        return _of_several(aim, seen)
    return _of_one(aim, seen, plain.ends)


def _of_one(aim: Aim, seen: Seen, ends: Ends) -> Conclusion:
    """The answer of a search for one change among flaky releases."""
    belief = believe(aim, seen, ends, Weighing(None))
    more = _contradicts(belief)
    best = belief.best
    settled = standing(aim, seen, belief).settled
    if best is None or not settled:
        kind, suspects, held = _suspects(aim, belief)
        boundary = _boundary(seen, best)
        return Conclusion(Verdict.UNSURE, boundary, ends, suspects, more, held, kind)
    boundaries = _boundary(seen, best)
    if not aim.find.wants(best.change) and belief.changed >= 0.5:
        return Conclusion(Verdict.OTHER_CHANGE, boundaries, ends, (), more)
    if best.mass < aim.confidence:
        return Conclusion(Verdict.NO_CHANGE, (), ends, (), more)
    if _is_upside_down(seen, best):
        return Conclusion(Verdict.UNSURE, (), ends, (), more_changes=True)
    return Conclusion(Verdict.FOUND, boundaries, ends, boundaries[0].suspects, more)


def _of_several(aim: Aim, seen: Seen) -> Conclusion:
    """Every boundary between bad and good releases; each of the kind looked for has to be sure.

    So has to be on which side every release is: one that is taken for the other hides a change.
    """
    sides = Sides(aim, seen)
    seen = replace(seen, outcomes=sides.outcomes)
    plain = conclude(aim.count, seen.outcomes, find=aim.find)
    told = _with_confidence(plain, confidences(aim, seen, plain.boundaries))
    wanted = [boundary for boundary in told.boundaries if aim.find.wants(boundary.change)]
    allowed = 1 - aim.confidence
    doubts = sides.doubts
    unsure = [boundary for boundary in wanted if 1 - (boundary.confidence or 0) > allowed]
    if not unsure and sum(doubts.values()) <= allowed:
        return told
    doubtful = tuple(i for i, doubt in doubts.items() if doubt > allowed / len(doubts))
    return replace(told, verdict=Verdict.UNSURE, suspects=(), doubtful=doubtful)


def _with_confidence(conclusion: Conclusion, sure: Sequence[float]) -> Conclusion:
    boundaries = tuple(
        replace(boundary, confidence=confidence)
        for boundary, confidence in zip(conclusion.boundaries, sure, strict=True)
    )
    return replace(conclusion, boundaries=boundaries)


def _plain_confidence(aim: Aim, seen: Seen, boundary: Boundary) -> float:
    """How sure the passing side is; the failing side was seen to fail."""
    good = boundary.first_after if boundary.change is Change.FIX else boundary.last_before
    if good not in seen.boots:
        return aim.confidence
    failing = weakest(seen.total(i) for i, o in seen.outcomes.items() if o is Outcome.FAIL)
    return pass_confidence(seen.total(good).passes, failing)


def _boundary(seen: Seen, piece: Piece | None) -> tuple[Boundary, ...]:
    """The boundary a piece stands for, unless one of its neighbours was not tested."""
    if piece is None:
        return ()
    neighbours = (piece.last_before, piece.last)
    if any(seen.outcomes.get(index, Outcome.SKIP) is Outcome.SKIP for index in neighbours):
        return ()
    return (Boundary(piece.change, *neighbours, confidence=piece.mass),)


def _suspects(aim: Aim, belief: Belief) -> tuple[Change | None, tuple[int, ...], float | None]:
    """The likeliest kind of change, and the candidates that hold it with the confidence asked for.

    They are as few as can be; with them goes the probability that there is such a change, and that
    it is in one of them. Nothing is named where such a change is no likelier than anything else.
    Places that nothing seen can tell apart are left out together or not at all.
    """
    masses: dict[Change, dict[tuple[int, int], float]] = {change: {} for change in Change}
    for piece in belief.pieces:
        place = (piece.first, piece.last)
        masses[piece.change][place] = masses[piece.change].get(place, 0.0) + piece.mass
    kind = max(Change, key=lambda change: sum(masses[change].values()))
    total = sum(masses[kind].values())
    if total < 0.5 or not aim.find.wants(kind):
        return None, (), None
    needed = aim.confidence * total
    suspects: list[int] = []
    held = 0.0
    for (first, last), mass in sorted(
        masses[kind].items(), key=lambda item: item[1] / (item[0][1] - item[0][0] + 1), reverse=True
    ):
        if held >= needed:
            break
        held += mass
        suspects += range(first, last + 1)
    return kind, tuple(sorted(suspects)), held


def _is_upside_down(seen: Seen, piece: Piece) -> bool:
    """Whether the bad side of a change was seen to fail no more than its good side.

    So it comes where a stretch is unlike both of its sides: no single change explains that.
    """
    fix = piece.change is Change.FIX
    bad, good = (piece.last_before, piece.last) if fix else (piece.last, piece.last_before)
    beside = seen.boots.keys() >= {bad, good}
    return _fails_no_more(piece.bad, piece.good) or (
        beside and _fails_no_more(seen.total(bad), seen.total(good))
    )


def _fails_no_more(bad: Evidence | Counts, good: Evidence | Counts) -> bool:
    """Whether the first failed in no larger a share of its requests than the second."""
    return bad.fails * (good.passes + good.fails) <= good.fails * (bad.passes + bad.fails)


def _contradicts(belief: Belief) -> bool:
    """Whether a release, taken alone, is on the other side than the best single change says."""
    for index, own in belief.evidence.items():
        bad, good = belief.sides_without(index)
        for_bad = log_bad(bad.plus(own)) - log_bad(bad)
        for_good = log_good(good.plus(own)) - log_good(good)
        against = for_good - for_bad if belief.is_bad(index) else for_bad - for_good
        if against > _CONTRADICTION:
            return True
    return False
