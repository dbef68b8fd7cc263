"""What fits into a disk budget, and what has to go before it does; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

USUAL_UNPACKED = 2.8
"""Unpacked bytes for each compressed one: vLLM's images of 9–12 GB unpack to 25–29 GB."""


@dataclass(frozen=True)
class Room:
    """An image has room once ``evict`` are removed, in this order; it takes ``needed`` bytes."""

    evict: tuple[str, ...]
    needed: int


@dataclass(frozen=True)
class Shortfall:
    """An image that needs ``needed`` bytes has no room whatever goes; with ``limit`` it would."""

    limit: int
    needed: int


@dataclass
class DiskBudget:
    """``limit`` is what vbisect's images may take, in bytes; ``None`` for no limit.

    ``usual`` is a large image before any was seen, in compressed bytes.
    """

    limit: int | None
    usual: int = 0
    _unpacked: float = field(default=USUAL_UNPACKED)
    _seen: bool = False
    _largest: int = 0

    def unpacked(self, compressed: int, bytes_on_disk: int) -> None:
        """Learn from an image that has been pulled; the largest ratio seen is reckoned with."""
        if compressed > 0:
            ratio = bytes_on_disk / compressed
            self._unpacked = max(self._unpacked, ratio) if self._seen else ratio
            self._seen = True

    def there(self, bytes_on_disk: int) -> None:
        """Learn from an image that is on the disk how large they are."""
        self._largest = max(self._largest, bytes_on_disk)

    @property
    def ample(self) -> int:
        """Bytes that pulling an image takes in the worst case, as long as no more is known of it.

        Twice what the largest one took, and of none, what a large one does.
        """
        if not self._largest:
            return self.taken_by(self.usual)
        return int(2 * self._largest * (1 + 1 / self._unpacked))

    def needed(self, layers: Mapping[str, int], present: Collection[str]) -> int:
        """Bytes that pulling ``layers`` (diff id → compressed bytes) takes where ``present`` are
        there: the engine keeps what it downloads until it is unpacked."""
        return self.taken_by(missing(layers, present))

    def taken_by(self, compressed: int) -> int:
        """Bytes that pulling so many compressed ones takes."""
        return int(compressed * (1 + self._unpacked))

    def room(
        self,
        layers: Mapping[str, int],
        own: Mapping[str, Mapping[str, int]],
        others: Collection[str],
        reserved: int,
        order: Sequence[str],
    ) -> Room | Shortfall:
        """What to remove of ``own`` (by name: layers with their bytes) so that ``layers`` fit.

        ``reserved`` bytes are promised to other pulls, ``others`` are the layers that are there
        whatever goes. Images go in ``order``, and only those in it. Layers that images share are
        counted once, and go with the last of them.
        """
        left, evicted = dict(own), list[str]()
        queue = [name for name in order if name in own]
        while True:
            needed = self.needed(layers, {*others, *chain.from_iterable(left.values())})
            limit = taken(left) + reserved + needed
            if self.limit is None or limit <= self.limit:
                return Room(tuple(evicted), needed)
            if not queue:
                return Shortfall(limit, needed)
            evicted.append(queue.pop(0))
            del left[evicted[-1]]


def missing(layers: Mapping[str, int], present: Collection[str]) -> int:
    """Bytes of those ``layers`` that are not ``present``."""
    return sum(size for layer, size in layers.items() if layer not in present)


def taken(own: Mapping[str, Mapping[str, int]]) -> int:
    """Bytes of all layers of some images, each layer counted once."""
    layers = {layer: size for image in own.values() for layer, size in image.items()}
    return sum(layers.values())
