"""Fetch builds in the background while a server boots, each at most once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from vbisect.builds.environment import Environment, EnvironmentRequest


class Prefetcher:
    """Runs ``fetch`` for the requests it is told are likely, and hands out the results.

    ``fetch`` takes a request and an event that is set when the run is over.
    """

    def __init__(self, fetch: Callable[[EnvironmentRequest, threading.Event], Environment]) -> None:
        self._fetch = fetch
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="fetch")
        self._futures: dict[EnvironmentRequest, Future[Environment]] = {}

    def expect(self, requests: list[EnvironmentRequest]) -> None:
        """Fetch ``requests`` in this order once nothing else is being fetched.

        What was expected before, has not begun and is not in ``requests`` is forgotten.
        """
        for request, future in list(self._futures.items()):
            if request not in requests and future.cancel():
                del self._futures[request]
        for request in requests:
            self._submit(request)

    def get(self, request: EnvironmentRequest) -> Environment:
        """The build for ``request``, waiting for it; raises what fetching it raised."""
        future = self._futures.get(request)
        if future is None or future.cancelled():
            self.expect([])
            future = self._submit(request)
        return future.result()

    def close(self) -> None:
        """Give up whatever is still being fetched."""
        self._over.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, request: EnvironmentRequest) -> Future[Environment]:
        if request not in self._futures:
            self._futures[request] = self._pool.submit(self._fetch, request, self._over)
        return self._futures[request]
