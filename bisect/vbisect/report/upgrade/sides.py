"""On which side of the known changes a release lies."""

from __future__ import annotations

from enum import StrEnum

from vbisect.report.upgrade.known import KnownChange
from vbisect.run.state import RunState
from vbisect.search import Outcome


class Side(StrEnum):
    """What the run says of a release, taken with all others."""

    BAD = "bad"
    GOOD = "good"
    UNKNOWN = "unknown"


class Sides:
    """The side of every candidate, by its index: between tested releases, and no suspect."""

    def __init__(self, state: RunState, changes: tuple[KnownChange, ...]) -> None:
        self.versions = state.settings.versions
        self.outcomes = state.outcomes
        self.tested = sorted(i for i, o in self.outcomes.items() if o is not Outcome.SKIP)
        self._places = [
            (self.index(change.last_before), self.index(change.first_after), change)
            for change in changes
        ]

    def index(self, version: str) -> int:
        """The place of ``version`` among the candidates."""
        return self.versions.index(version)

    def side(self, index: int) -> Side:
        """The side that the candidate at ``index`` is on."""
        if not self.tested or not self.tested[0] <= index <= self.tested[-1]:
            return Side.UNKNOWN
        if not self._places:
            return self._side_without_changes()
        side = Side.UNKNOWN
        for number, (last_before, first_after, change) in enumerate(self._places):
            if index >= first_after:
                side = Side.GOOD if change.is_fix else Side.BAD
            elif index > last_before:
                return Side.UNKNOWN
            elif number == 0:
                return Side.BAD if change.is_fix else Side.GOOD
        return side

    def known_good(self, index: int) -> bool:
        """Whether the release was tested, passed, and lies on the good side."""
        return self.outcomes.get(index) is Outcome.PASS and self.side(index) is Side.GOOD

    def _side_without_changes(self) -> Side:
        seen = {self.outcomes[index] for index in self.tested}
        if seen == {Outcome.PASS}:
            return Side.GOOD
        return Side.BAD if seen == {Outcome.FAIL} else Side.UNKNOWN
