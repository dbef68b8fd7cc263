"""One image on its way to the engine, as the scheduler of pulls knows it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from enum import Enum, auto

from pydantic import BaseModel, ConfigDict

from vbisect.builds.image_store import LocalImage
from vbisect.builds.pull import Pull
from vbisect.registry import RemoteImage


class ImageRequest(BaseModel):
    """The image of one candidate, by tag or digest."""

    model_config = ConfigDict(frozen=True)

    version: str
    reference: str


class PullState(Enum):
    """How far an image is on its way."""

    RESOLVING = auto()
    WAITING = auto()
    PULLING = auto()
    OVER = auto()


@dataclass
class PullJob:
    """One image that is wanted: ``begun`` by the monotonic clock, ``name`` by digest,
    ``repository@sha256:…``, once that is known, ``usual`` compressed bytes of an image that is
    pulled, ``needed`` bytes on disk as reckoned.

    ``remote`` is what it is made of, as far as somebody ``asks_more`` than the engine's own
    question to the registry tells: each counts there.
    """

    request: ImageRequest
    begun: float = field(default_factory=time.monotonic)
    given_up: threading.Event = field(default_factory=threading.Event)
    state: PullState = PullState.RESOLVING
    name: str | None = None
    asks_more: bool = False
    remote: RemoteImage | None = None
    pull: Pull | None = None
    come: int = 0
    missing: int | None = None
    usual: int = 0
    needed: int = 0
    image: LocalImage | None = None
    error: Exception | None = None

    @property
    def layers(self) -> dict[str, int]:
        """Compressed bytes by diff id, as far as they are known."""
        return self.remote.layer_sizes if self.remote else {}

    @property
    def size(self) -> int:
        """Compressed bytes that it takes to have it, as far as can be told; 0: not at all."""
        if self.missing is not None:
            return self.missing
        known = self.pull.known_bytes if self.pull else 0
        return max(known, self.come if self.image else self.usual)

    @property
    def to_come(self) -> bool:
        """Whether it is neither there nor being unpacked."""
        return self.state is not PullState.OVER and (self.pull is None or not self.pull.fetched)

    @property
    def arrived(self) -> float:
        """The share, in [0, 1], of its missing bytes that has come."""
        if self.image is not None:
            return 1.0
        if self.pull is None or not self.size:
            return 0.0
        return min(self.pull.done_bytes / self.size, 1.0)

    def cancel(self) -> None:
        """Give it up, wherever it is."""
        self.given_up.set()
        if self.pull is not None:
            self.pull.cancel()
