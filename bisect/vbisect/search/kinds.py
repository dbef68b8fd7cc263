"""Which kind of failure is the bug, and what was seen of it: failures of another kind are neither.

The kind is decided from both ends together: the bug is what fails most steadily at one of them. A
crash ends its boot, so one says little: it is looked at again, and can be the bug only once it was
seen in two boots of a release, or in three where something else fails steadily elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from vbisect.search.known import Counts, Outcome, Seen
from vbisect.search.requests import STEADY_FAILURES

CRASHED = "crashed"
"""The kind of a server that died while it was asked."""

CRASHES = 2
"""Boots of a release that crash before that says anything."""


@dataclass(frozen=True)
class Boot:
    """One boot of a release: passes, and failures by kind; neither where it came to a skip."""

    passes: int = 0
    fails: Mapping[str, int] = field(default_factory=dict)

    def counts(self, bug: str | None) -> Counts:
        """What it says of ``bug``."""
        return Counts(self.passes, self.fails.get(bug, 0) if bug else 0)


Boots = Mapping[int, tuple[Boot, ...]]
"""The boots of each release that was tried, in order."""


def bug_kind(boots: Boots, never: Collection[str] = ()) -> str | None:
    """The kind of failure that is the bug, none of ``never``; ``None`` while none is known."""
    asked = _asked(boots)
    if not asked:
        return None
    found = _steadiest(boots, _ends(asked), never)
    return found if found is not None else _steadiest(boots, sorted(asked), never)


def other_ends_kind(boots: Boots, bug: str | None) -> str | None:
    """The kind in which one end fails steadily, and never as ``bug``, where that is the case."""
    for index in _ends(_asked(boots)):
        totals = _totals(boots[index])
        if bug is None or totals.get(bug) or any(boot.passes for boot in boots[index]):
            continue
        kinds = [kind for kind, fails in totals.items() if fails >= STEADY_FAILURES]
        if kinds:
            return kinds[0]
    return None


def told_of(
    boots: Boots,
    bug: str | None,
    *,
    judged_as: Mapping[int, Outcome],
    running: frozenset[int] = frozenset(),
    cheap_skips: frozenset[int] = frozenset(),
    passing_skips: frozenset[int] = frozenset(),
) -> Seen:
    """What ``boots`` tell of ``bug``.

    ``judged_as`` is what each release was taken for when it was seen both passing and failing. One
    that crashed once and was never asked else counts as untested. One that only failed in other
    ways is a skip.
    """
    outcomes = dict.fromkeys(cheap_skips, Outcome.SKIP)
    counts, passing = {}, set(passing_skips)
    ends, enough = _ends(_asked(boots)), _crashes_needed(boots)
    for index, kept in boots.items():
        counts[index] = tuple(boot.counts(bug) for boot in kept)
        crashes = enough if index in ends else CRASHES
        outcome = outcome_by(kept, bug, judged_as.get(index), crashes)
        if outcome is not None:
            outcomes[index] = outcome
        if CRASHED in _totals(kept):
            passing.add(index)
    skipped = {index for index, outcome in outcomes.items() if outcome is Outcome.SKIP}
    return Seen(
        outcomes,
        counts,
        running,
        cheap_skips,
        frozenset(passing & skipped - cheap_skips),
    )


def outcome_by(
    kept: Iterable[Boot], bug: str | None, judged_as: Outcome | None, crashes: int = CRASHES
) -> Outcome | None:
    """What the boots of a release amount to; ``None`` while that is open.

    ``judged_as`` is what it was taken for where it was seen both passing and failing; if it only
    crashed, that is open until it was booted ``crashes`` times.
    """
    kept = tuple(kept)
    passes = any(boot.passes for boot in kept)
    fails = any(boot.counts(bug).fails for boot in kept)
    if passes and fails:
        return Outcome.PASS if judged_as is Outcome.PASS else Outcome.FAIL
    if passes or fails:
        return Outcome.PASS if passes else Outcome.FAIL
    failed = [boot.fails for boot in kept if boot.fails]
    only_crashed = bool(failed) and all(CRASHED in fails for fails in failed)
    return None if only_crashed and len(kept) < crashes else Outcome.SKIP


def _asked(boots: Boots) -> list[int]:
    """The releases that answered anything, in any order."""
    return [index for index, kept in boots.items() if any(b.passes or b.fails for b in kept)]


def _ends(asked: Collection[int]) -> list[int]:
    return [*dict.fromkeys((min(asked), max(asked)))] if asked else []


def _crashes_needed(boots: Boots) -> int:
    """The boots of a release that crash before that can be the bug."""
    others_steady = any(
        fails >= STEADY_FAILURES
        for kept in boots.values()
        for kind, fails in _totals(kept).items()
        if kind != CRASHED
    )
    return CRASHES + others_steady


def _steadiest(boots: Boots, among: Iterable[int], never: Collection[str]) -> str | None:
    """The kind that fails in the largest share at any of these; of equals that of the first."""
    best, most = None, 0.0
    for index in among:
        kept = boots[index]
        total = sum(boot.passes + sum(boot.fails.values()) for boot in kept)
        for kind, fails in _totals(kept).items():
            if kind in never or (kind == CRASHED and fails < _crashes_needed(boots)):
                continue
            steady = (fails + 0.5) / (total + 2)
            if steady > most:
                best, most = kind, steady
    return best


def _totals(kept: tuple[Boot, ...]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for boot in kept:
        for kind, fails in boot.fails.items():
            totals[kind] = totals.get(kind, 0) + fails
    return totals
