"""What somebody who runs a certain release should do, as far as the run knows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vbisect.errors import UsageError
from vbisect.reasons import SkipReason
from vbisect.report.upgrade.known import (
    Certainty,
    KnownChange,
    evidence,
    known_changes,
    named,
)
from vbisect.report.upgrade.sides import Side, Sides
from vbisect.run.records import Status
from vbisect.run.state import RunState
from vbisect.search import Change, Outcome

_FLAKES = {
    Side.GOOD: "by all that was seen it is a good release that flakes",
    Side.BAD: "by all that was seen it is a failing release that flakes",
}


@dataclass(frozen=True)
class Advice:
    """For somebody on release ``on``.

    ``broken`` says how ``on`` itself did. ``earliest`` is the oldest newer release known to be
    fixed, and ``newest`` the newest one that still is, with no break known between the two.
    ``stay_on`` is the last good release to stay on before a break. All three were tested and
    passed; they are ``None`` where there is no such one, or it is not known. ``recommended`` is
    where ``recommendation`` leads to, ``None`` where it leads nowhere.
    ``caveats`` are what the run does not know.
    """

    on: str
    side: Side
    broken: str
    earliest: str | None
    newest: str | None
    stay_on: str | None
    recommended: str | None
    recommendation: str
    changes: tuple[KnownChange, ...]
    caveats: tuple[str, ...]


def advise(state: RunState, on: str | None = None) -> Advice:
    """The advice for ``on``, by default the oldest release that the run tested.

    Raises ``UsageError`` when ``on`` is no candidate of the run.
    """
    changes = known_changes(state)
    sides = Sides(state, changes)
    start = _start(state, sides, on)
    return _Adviser(state, changes, sides, start).advice()


def _start(state: RunState, sides: Sides, on: str | None) -> int:
    versions = state.settings.versions
    if on is not None:
        wanted = on.removeprefix("v")
        if wanted not in versions:
            raise UsageError(
                f"--on {on}: this run was about {versions[0]} to {versions[-1]}; "
                "choose one of its candidates."
            )
        return versions.index(wanted)
    answer = state.finding.answer if state.finding else None
    if answer is not None and answer.change is Change.FIX:
        failing = [i for i in sides.tested if sides.outcomes[i] is Outcome.FAIL]
        return failing[0] if failing else sides.index(answer.last_before)
    return sides.tested[0] if sides.tested else 0


class _Adviser:
    def __init__(
        self, state: RunState, changes: tuple[KnownChange, ...], sides: Sides, start: int
    ) -> None:
        self._state = state
        self._changes = changes
        self._sides = sides
        self._start = start
        self._later = [c for c in changes if sides.index(c.first_after) > start]

    def advice(self) -> Advice:
        sides, start = self._sides, self._start
        fix = next((change for change in self._later if change.is_fix), None)
        side = self._side_of_start()
        earliest = newest = stay_on = recommended = None
        if side is Side.GOOD or (side is Side.UNKNOWN and self._later[:1] not in ([], [fix])):
            stay_on = self._stay_on()
            recommended = stay_on if self._later else None
            told = self._when_good(stay_on)
        elif fix is not None:
            earliest = recommended = self._next_good(sides.index(fix.first_after))
            newest = self._still_good(earliest) if earliest is not None else None
            told = self._when_bad(fix, earliest, newest)
        elif sides.outcomes.get(start) is Outcome.PASS and side is Side.UNKNOWN:
            told = self._unsettled()
        else:
            told = self._without_fix() + self._way_back(side)
        return Advice(
            on=sides.versions[start],
            side=side,
            broken=self._broken(side),
            earliest=earliest,
            newest=newest,
            stay_on=stay_on,
            recommended=recommended,
            recommendation=told,
            changes=self._changes,
            caveats=tuple(self._caveats(recommended, newest or stay_on)),
        )

    def _side_of_start(self) -> Side:
        """That of the known changes; where they say nothing, what was seen of the release."""
        side = self._sides.side(self._start)
        if side is Side.UNKNOWN and self._sides.outcomes.get(self._start) is Outcome.FAIL:
            return Side.BAD
        return side

    def _broken(self, side: Side) -> str:
        version = self._sides.versions[self._start]
        outcome = self._sides.outcomes.get(self._start)
        record = self._state.records.get(version)
        if record is None or outcome is None or outcome is Outcome.SKIP:
            return f"{version} {self._why_not_tested(version)}{self._between(side)}."
        seen = evidence(self._state, version)
        if outcome is Outcome.FAIL:
            told = f"{seen}: {record.signature}"
            return f"{told}{', yet ' + _FLAKES[side] if side is Side.GOOD else ''}."
        if side is Side.BAD:
            return f"{seen}, yet {_FLAKES[side]}."
        return f"{seen}."

    def _why_not_tested(self, version: str) -> str:
        if version in self._state.settings.excluded:
            return "was left out with --skip"
        record = self._state.records.get(version)
        if record is not None and record.reason is SkipReason.DIFFERENT_FAILURE:
            return f"failed in another way: {record.signature}"
        return "was not tested" if record is None else f"could not be tested ({record.reason})"

    def _between(self, side: Side) -> str:
        """Where an untested release lies, when both tested neighbours agree."""
        if side is Side.UNKNOWN:
            return "; whether it is affected is not known"
        tested, versions = self._sides.tested, self._sides.versions
        low = max(index for index in tested if index < self._start)
        high = min(index for index in tested if index > self._start)
        verb = "fail" if side is Side.BAD else "pass"
        return f"; it lies between {versions[low]} and {versions[high]}, which {verb}"

    def _next_good(self, index: int) -> str | None:
        """The oldest release from ``index`` on, before the next change, that is known to pass."""
        return next(iter(self._known_good(index, self._next_change(index))), None)

    def _still_good(self, earliest: str) -> str:
        index = self._sides.index(earliest)
        return self._known_good(index, self._next_change(index))[-1]

    def _next_change(self, index: int) -> int:
        """The first index beyond the last release before the next change after ``index``."""
        ends = [self._sides.index(change.last_before) + 1 for change in self._changes]
        return min((end for end in ends if end > index), default=len(self._sides.versions))

    def _stay_on(self) -> str | None:
        """The newest release known to pass before the next break; for one that is good now."""
        good = self._known_good(self._start, self._next_change(self._start))
        return good[-1] if good else None

    def _known_good(self, low: int, high: int) -> list[str]:
        """The releases from ``low`` to before ``high`` that are known to pass, oldest first."""
        sides = self._sides
        return [sides.versions[at] for at in range(low, high) if sides.known_good(at)]

    def _when_good(self, stay_on: str | None) -> str:
        on = self._sides.versions[self._start]
        if stay_on is None and self._side_of_start() is Side.UNKNOWN:
            first, *more = self._later
            return f"It was {first.sentence}." + _then(more)
        if stay_on is None:
            return f"{on} is reckoned good, but it did not always pass, nor did any newer release."
        if not self._later:
            if stay_on == on:
                return f"Nothing is known to be broken in {on}, and nothing newer is known to pass."
            return f"Nothing known is broken from {on} to {stay_on}, the newest known to pass."
        first, *more = self._later
        where = f"Go no further than {stay_on}" if stay_on != on else f"Stay on {on}"
        return f"{where}: {first.sentence}." + _then(more)

    def _when_bad(self, fix: KnownChange, earliest: str | None, newest: str | None) -> str:
        if earliest is None:
            return f"It was {fix.sentence}. But {self._first_after(fix)}; no newer one is sure."
        surely = fix.certainty is not Certainty.PROBABLE
        told = f"Upgrade to {earliest}{'' if surely else ', which probably fixes it'}: "
        told += f"it was {fix.sentence}."
        if earliest != fix.first_after:
            told += f" But {self._first_after(fix)}: {earliest} is the earliest that passes."
        if newest is not None and newest != earliest:
            last = self._sides.index(newest) == self._sides.tested[-1]
            which = self._newest() if last else "the last before another change"
            told += f" {newest}, {which}, still passes."
        return told + _then(self._later[self._later.index(fix) + 1 :])

    def _first_after(self, fix: KnownChange) -> str:
        return str(evidence(self._state, fix.first_after))

    def _without_fix(self) -> str:
        """When no fix is known: what was seen of newer releases, and nothing more."""
        sides, finding = self._sides, self._state.finding
        newer = [index for index in sides.tested if index > self._start]
        if not newer:
            return "No newer release was tested: whether one fixes it is not known."
        newest = sides.versions[newer[-1]]
        passing = [index for index in newer if sides.outcomes[index] is Outcome.PASS]
        if not passing:
            too = " too" if sides.outcomes.get(self._start) is Outcome.FAIL else ""
            return f"No tested release fixes it; {newest}, {self._newest()}, fails{too}."
        if finding is not None and finding.status is Status.NONE:
            return f"No tested release is known to fix it: {finding.message}."
        seen = evidence(self._state, sides.versions[passing[0]])
        return f"{seen}; which release fixes it, if any, is not known."

    def _way_back(self, side: Side) -> str:
        """The newest release before a break, for one that is bad now."""
        good = self._known_good(0, self._start) if side is Side.BAD else []
        return f" Of the older ones, {good[-1]} is the newest known to pass." if good else ""

    def _unsettled(self) -> str:
        """When the release passed, and the run does not know what came after."""
        sides = self._sides
        newer = [index for index in sides.tested if index > self._start]
        failing = [index for index in newer if sides.outcomes[index] is Outcome.FAIL]
        if not failing:
            return "Nothing newer is known to be broken."
        seen = evidence(self._state, sides.versions[failing[0]])
        return f"{seen}; which release broke it, if any, is not known."

    def _caveats(self, recommended: str | None, until: str | None) -> list[str]:
        sides = self._sides
        told = []
        if self._state.finding is None or self._state.finding.status.resumable:
            told.append("The run was not finished: what is said here is what it saw until then.")
        if recommended is not None and until is not None:
            low, high = sorted((self._start, sides.index(until)))
            told += self._inferred(low, high)
        told += self._flaking()
        otherwise = self._failing_otherwise()
        told += [
            f"{version} failed in another way, which tells nothing of this one: "
            f"{self._state.records[version].signature}."
            for version in otherwise
        ]
        newer = sides.versions[sides.tested[-1] + 1 :] if sides.tested else ()
        if beyond := [version for version in newer if version not in otherwise]:
            told.append(f"Nothing is known of {named(beyond)}: newer than all that were tested.")
        return told

    def _failing_otherwise(self) -> list[str]:
        """The releases after ``on`` that failed, and not as the failing end does."""
        records = self._state.records
        return [
            version
            for version in self._sides.versions[self._start + 1 :]
            if version in records and records[version].reason is SkipReason.DIFFERENT_FAILURE
        ]

    def _newest(self) -> str:
        """What to call the newest release that passed or failed."""
        newer = self._sides.versions[self._sides.tested[-1] + 1 :]
        odd = any(version in newer for version in self._failing_otherwise())
        return "the newest that could be judged" if odd else "the newest that was tested"

    def _flaking(self) -> list[str]:
        """Releases from ``on`` on whose own outcome is not that of their side."""
        sides, told = self._sides, []
        for index in sides.tested:
            side = sides.side(index)
            odd = Outcome.PASS if side is Side.BAD else Outcome.FAIL
            if index > self._start and side in _FLAKES and sides.outcomes[index] is odd:
                told.append(f"{evidence(self._state, sides.versions[index])}, yet {_FLAKES[side]}.")
        return told

    def _inferred(self, low: int, high: int) -> list[str]:
        """Releases between tested neighbours that agree, which were not tested themselves."""
        sides = self._sides
        told = []
        for side, verb in ((Side.BAD, "fail"), (Side.GOOD, "pass")):
            silent = [
                version
                for before, after in pairwise(i for i in sides.tested if low <= i <= high)
                if sides.side(before) is sides.side(after) is side
                for version in sides.versions[before + 1 : after]
                if sides.side(before + 1) is side
            ]
            tried = [version for version in silent if version in self._state.records]
            untried = [version for version in silent if version not in tried]
            were = "was" if len(untried) == 1 else "were"
            for versions, why in ((untried, f"{were} not tested"), (tried, "could not be judged")):
                if versions:
                    told.append(
                        f"{named(versions)} {why}: between releases that {verb}, taken to {verb} "
                        "too."
                    )
        return told


def _then(changes: list[KnownChange]) -> str:
    """What comes after, change by change."""
    return "".join(f" Later {change.sentence}." for change in changes)
