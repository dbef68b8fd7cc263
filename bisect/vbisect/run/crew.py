"""Trials side by side: begun in threads, taken back one by one, given up when they are needless."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType

_GLANCE_SECONDS = 0.25

Work = Callable[[int, threading.Event], None]
"""Carries out the trial of a candidate; the event is set when it is given up."""


class Crew:
    """Carries out up to ``size`` trials at once while its block runs.

    An error in one, or in the block, gives up all others; the block ends once they have ended.
    """

    def __init__(self, size: int, work: Work) -> None:
        self._size = size
        self._work = work
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="trial")
        self._running: dict[int, tuple[Future[None], threading.Event]] = {}

    @property
    def free(self) -> int:
        """How many more trials may begin."""
        return self._size - len(self._running)

    @property
    def running(self) -> frozenset[int]:
        """The candidates under trial."""
        return frozenset(self._running)

    def begin(self, pick: int) -> None:
        """Begin with the trial of a candidate."""
        given_up = threading.Event()
        self._running[pick] = self._pool.submit(self._work, pick, given_up), given_up

    def give_up(self, picks: Collection[int]) -> None:
        """Have these trials end soon."""
        for pick in picks:
            self._running[pick][1].set()

    def take_back(self) -> None:
        """Wait until a trial has ended; raises what one raised."""
        futures = [future for future, _ in self._running.values()]
        # a signal that another thread took is only seen between two waits
        while not wait(futures, _GLANCE_SECONDS, return_when=FIRST_COMPLETED).done:
            pass
        ended = [pick for pick, (future, _) in self._running.items() if future.done()]
        for future in [self._running.pop(pick)[0] for pick in ended]:
            future.result()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give up what still runs, and wait for its end."""
        self.give_up(self.running)
        self._pool.shutdown(wait=True, cancel_futures=True)
