"""What fits into a disk budget, and what has to go before it does; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

USUAL_UNPACKED = 2.8
"""Unpacked bytes for each compressed one: vLLM's images of 9–12 GB unpack to 25–29 GB."""


@dataclass
class DiskBudget:
    """``limit`` is what vbisect's images may take, in bytes; ``None`` for no limit."""

    limit: int | None
    _unpacked: float = field(default=USUAL_UNPACKED)
    _seen: bool = False

    def unpacked(self, compressed: int, bytes_on_disk: int) -> None:
        """Learn from an image that has been pulled; the largest ratio seen is reckoned with."""
        if compressed > 0:
            ratio = bytes_on_disk / compressed
            self._unpacked = max(self._unpacked, ratio) if self._seen else ratio
            self._seen = True

    def needed(self, layers: Mapping[str, int], present: Collection[str]) -> int:
        """Bytes that pulling ``layers`` (diff id → compressed bytes) takes where ``present`` are
        there: the engine keeps what it downloads until it is unpacked."""
        missing = sum(size for layer, size in layers.items() if layer not in present)
        return int(missing * (1 + self._unpacked))

    def fits(self, taken: int, needed: int) -> bool:
        """Whether ``needed`` bytes more stay within the limit."""
        return self.limit is None or taken + needed <= self.limit

    def evictions(
        self, own: Mapping[str, Mapping[str, int]], needed: int, reserved: int, order: Sequence[str]
    ) -> list[str] | None:
        """The images of ``own`` to remove so that ``needed`` fits beside ``reserved``.

        Images are removed in ``order``, and only those in it. ``None`` when even all of it is not
        enough. Layers that images share are counted once, and go with the last of them.
        """
        left = dict(own)
        removed: list[str] = []
        queue = [name for name in order if name in left]
        while not self.fits(taken(left) + reserved, needed):
            if not queue:
                return None
            removed.append(queue.pop(0))
            del left[removed[-1]]
        return removed


def taken(own: Mapping[str, Mapping[str, int]]) -> int:
    """Bytes of all layers of some images, each layer counted once."""
    layers = {layer: size for image in own.values() for layer, size in image.items()}
    return sum(layers.values())
