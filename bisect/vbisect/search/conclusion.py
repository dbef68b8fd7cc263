"""The answer, with how sure it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce

from vbisect.search.belief import Belief, Piece, believe, boots_of
from vbisect.search.boundary import Boundary, Conclusion, Excluded, Verdict, conclude
from vbisect.search.cuts import Weighing
from vbisect.search.ends import Ends
from vbisect.search.known import Aim, Change, Counts, Outcome, Seen, flaky
from vbisect.search.models import NO_EVIDENCE, Evidence, log_both
from vbisect.search.picks import all_alike, standing
from vbisect.search.several import Sides, confidences

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
    boundaries = _boundary(seen, best)
    if best is None or not standing(aim, seen, belief).settled:
        kind, suspects, held = _suspects(aim, belief)
        return Conclusion(Verdict.UNSURE, boundaries, ends, suspects, more, held, kind)
    if all_alike(seen):
        excluded = _excluded(aim, seen, (ends.low, ends.high))
        return Conclusion(Verdict.NO_CHANGE, (), ends, excluded=excluded)
    if not aim.find.wants(best.change) and belief.changed >= 0.5:
        sure = boundaries if best.mass >= aim.confidence else ()
        return Conclusion(Verdict.OTHER_CHANGE, sure, ends, (), more)
    if best.mass < aim.confidence:
        verdict = Verdict.NO_CHANGE if flaky(seen) else Verdict.UNSURE
        return Conclusion(verdict, (), ends, (), more)
    return Conclusion(Verdict.FOUND, boundaries, ends, boundaries[0].suspects, more)


def _of_several(aim: Aim, seen: Seen) -> Conclusion:
    """Every boundary between bad and good releases; each of the kind looked for has to be sure.

    So has to be on which side every release is: one that is taken for the other hides a change.
    """
    sides = Sides(aim, seen)
    seen = replace(seen, outcomes=sides.outcomes)
    plain = conclude(seen, find=aim.find)
    sure = confidences(aim, seen, plain.boundaries)
    boundaries = zip(plain.boundaries, sure, strict=True)
    told = replace(plain, boundaries=tuple(replace(b, confidence=c) for b, c in boundaries))
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
    totals = [reduce(Counts.plus, kept, Counts()) for kept in boots]
    if any(total.passes and total.fails for total in totals):
        return None

    def share(looks: int) -> float:
        return float(1 - (1 - aim.confidence) ** (1 / looks))

    return Excluded(
        per_request=share(min(total.total for total in totals)),
        per_boot=share(min(map(len, boots))),
    )


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
    kind = belief.likelier
    pieces = [piece for piece in belief.pieces if piece.change is kind]
    total = sum(piece.mass for piece in pieces)
    if total < 0.5 or not aim.find.wants(kind):
        return None, (), None
    suspects: list[int] = []
    held = 0.0
    for piece in sorted(pieces, key=lambda p: p.mass / (p.last - p.first + 1), reverse=True):
        if held >= aim.confidence * total:
            break
        held += piece.mass
        suspects += range(piece.first, piece.last + 1)
    return kind, tuple(sorted(suspects)), held


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
