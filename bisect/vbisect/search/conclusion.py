"""The answer, with how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce

from vbisect.search.aim import Aim
from vbisect.search.belief import Belief, Piece, believe, boots_of
from vbisect.search.belief_picks import all_alike, standing
from vbisect.search.boundary import Boundary, Conclusion, Excluded, Verdict, conclude
from vbisect.search.ends import Ends
from vbisect.search.models import NO_EVIDENCE, Evidence, log_both
from vbisect.search.outcome import Change, Outcome
from vbisect.search.seen import Counts, Seen
from vbisect.search.sides import Sides
from vbisect.search.weighing import Weighing
from vbisect.search.windows import confidences

_CONTRADICTION = 4.6
"""Log of the odds (100 to 1) at which releases in a row speak against a single change."""


def conclude_seen(aim: Aim, seen: Seen) -> Conclusion:
    """Read the answer from what was seen, each boundary with its confidence.

    The posterior decides: of the one boundary, or with ``sweep`` and ``find_all`` of each on its
    own. An untested candidate is never answered for.
    """
    plain = conclude(seen, find=aim.find)
    if plain.verdict is Verdict.TOO_FEW or plain.ends is None:
        return plain
    return _of_several(aim, seen) if aim.several else _of_one(aim, seen, plain.ends)


def _of_one(aim: Aim, seen: Seen, ends: Ends) -> Conclusion:
    """The answer of a search for one change."""
    belief = believe(aim, seen, ends, Weighing(None))
    more = _contradicts(belief)
    best = belief.best
    settled = standing(aim, seen, belief).settled
    if best is None or not settled:
        kind, suspects, held = _suspects(aim, belief)
        boundary = _boundary(seen, best)
        return Conclusion(Verdict.UNSURE, boundary, ends, suspects, more, held, kind)
    boundaries = _boundary(seen, best)
    if all_alike(seen):
        excluded = _excluded(aim, seen, (ends.low, ends.high))
        return Conclusion(Verdict.NO_CHANGE, (), ends, excluded=excluded)
    if not aim.find.wants(best.change) and belief.changed >= 0.5:
        sure = boundaries if best.mass >= aim.confidence else ()
        return Conclusion(Verdict.OTHER_CHANGE, sure, ends, (), more)
    if best.mass < aim.confidence:
        return Conclusion(Verdict.NO_CHANGE, (), ends, (), more)
    if _is_upside_down(belief, best):
        return Conclusion(Verdict.UNSURE, (), ends, (), more_changes=True)
    return Conclusion(Verdict.FOUND, boundaries, ends, boundaries[0].suspects, more)


def _of_several(aim: Aim, seen: Seen) -> Conclusion:
    """Every boundary between bad and good releases; each of the kind looked for has to be sure.

    So has to be on which side every release is: one that is taken for the other hides a change.
    """
    sides = Sides(aim, seen)
    seen = replace(seen, outcomes=sides.outcomes)
    plain = conclude(seen, find=aim.find)
    told = _with_confidence(plain, confidences(aim, seen, plain.boundaries))
    wanted = [boundary for boundary in told.boundaries if aim.find.wants(boundary.change)]
    allowed = 1 - aim.confidence
    doubts = sides.doubts
    unsure = [boundary for boundary in wanted if 1 - (boundary.confidence or 0) > allowed]
    if not unsure and sum(doubts.values()) <= allowed:
        if told.verdict is Verdict.NO_CHANGE:
            return replace(told, excluded=_excluded(aim, seen, seen.judged))
        return told
    doubtful = tuple(i for i, doubt in doubts.items() if doubt > allowed / len(doubts))
    return replace(told, verdict=Verdict.UNSURE, suspects=(), doubtful=doubtful)


def _excluded(aim: Aim, seen: Seen, releases: Iterable[int]) -> Excluded | None:
    """What would have shown in each of ``releases``, all of which were steady."""
    boots = [boots_of(aim, seen, index) for index in releases]
    totals = [_total([kept]) for kept in boots]
    if any(total.passes and total.fails for total in totals):
        return None

    def share(looks: int) -> float:
        return float(1 - (1 - aim.confidence) ** (1 / looks))

    return Excluded(
        per_request=share(min(total.total for total in totals)),
        per_boot=share(min(map(len, boots))),
    )


def _with_confidence(conclusion: Conclusion, sure: Sequence[float]) -> Conclusion:
    boundaries = tuple(
        replace(boundary, confidence=confidence)
        for boundary, confidence in zip(conclusion.boundaries, sure, strict=True)
    )
    return replace(conclusion, boundaries=boundaries)


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


def _is_upside_down(belief: Belief, piece: Piece) -> bool:
    """Whether the bad side of a change was seen to fail no more than its good side.

    So it comes where a stretch is unlike both of its sides: no single change explains that.
    """
    before, after = (
        _total(boots for i, boots in belief.boots.items() if (i < piece.first) is older)
        for older in (True, False)
    )
    pairs = [(before, after)]
    if belief.boots.keys() >= {piece.last_before, piece.last}:
        pairs.append(
            (_total([belief.boots[piece.last_before]]), _total([belief.boots[piece.last]]))
        )
    if piece.change is Change.BREAK:
        pairs = [(bad, good) for good, bad in pairs]
    return any(bad.fails * good.total <= good.fails * bad.total for bad, good in pairs)


def _total(releases: Iterable[tuple[Counts, ...]]) -> Counts:
    return reduce(Counts.plus, (boot for boots in releases for boot in boots), Counts())


def _contradicts(belief: Belief) -> bool:
    """Whether some releases in a row are on the other side than the best single change says."""
    known = [(belief.is_bad(index), belief.evidence(index)) for index in belief.boots]
    for first in range(len(known)):
        side = known[first][0]
        taken = NO_EVIDENCE
        for beyond in range(first, len(known)):
            if known[beyond][0] is not side:
                break
            taken = taken.plus(known[beyond][1])
            others = known[:first] + known[beyond + 1 :]
            bad = reduce(Evidence.plus, (own for is_bad, own in others if is_bad), NO_EVIDENCE)
            good = reduce(Evidence.plus, (own for is_bad, own in others if not is_bad), NO_EVIDENCE)
            if_bad = log_both(bad.plus(taken).bad, good.good)
            if_good = log_both(bad.bad, good.plus(taken).good)
            if (if_good - if_bad if side else if_bad - if_good) > _CONTRADICTION:
                return True
    return False
