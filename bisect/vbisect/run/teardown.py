"""Stop servers, where that is safe while the next one already boots."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType


class Teardown:
    """Closes what a trial opened; ``overlapped`` on a CPU, where servers share nothing.

    On a GPU the next server needs the memory of the last one, so it waits for it to be gone.
    """

    def __init__(self, *, overlapped: bool) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="stop") if overlapped else None
        self._stopping: list[Future[None]] = []

    def __call__(self, opened: ExitStack) -> None:
        """Close ``opened``, or see to it that it is closed."""
        if self._pool is None:
            opened.close()
        else:
            self._stopping.append(self._pool.submit(opened.close))

    def settle(self) -> None:
        """Wait until all that is to be closed is closed; raises what closing raised."""
        for stopping in self._stopping:
            stopping.result()

    def __enter__(self) -> Teardown:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As ``settle``."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self.settle()
