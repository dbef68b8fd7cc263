"""How many pulls at once make the whole faster, learnt from how fast they have been."""

from __future__ import annotations

from dataclasses import dataclass, field

_WORTH = 0.5
"""The share of a lane's even part of the rate that one more lane has to bring."""

_WEIGHT = 0.5
"""How much a new sample counts against those before it."""


@dataclass
class Lanes:
    """One pull at first; one more as long as the last one added its share to the rate.

    A registry that limits each connection is read faster with more of them; a slow line is not, and
    there every pull beside the one that is waited for would only delay it.
    """

    most: int = 6
    _rates: dict[int, float] = field(default_factory=dict)

    def measured(self, active: int, bytes_per_second: float) -> None:
        """Take in the rate seen while ``active`` pulls were downloading."""
        before = self._rates.get(active)
        rate = bytes_per_second
        self._rates[active] = rate if before is None else before + _WEIGHT * (rate - before)

    @property
    def allowed(self) -> int:
        """How many pulls may go on at once."""
        lanes, tried = 1, max(self._rates, default=0)
        while lanes < self.most and lanes <= tried and self._pays(lanes + 1):
            lanes += 1
        return lanes

    def _pays(self, lanes: int) -> bool:
        """Whether the last of ``lanes`` made the whole faster; not yet tried counts as yes.

        So does what nothing can be compared with: several servers begin with several pulls.
        """
        fewer = max((tried for tried in self._rates if tried < lanes), default=None)
        if fewer is None or lanes not in self._rates:
            return True
        share = (lanes - fewer) / fewer
        return self._rates[lanes] >= self._rates[fewer] * (1 + _WORTH * share)
