"""Fetch builds in the background while a server boots, each at most once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from vbisect.builds.environment import Environment, EnvironmentRequest
from vbisect.errors import Cancelled, HostError

_GLANCE_SECONDS = 0.25


class Prefetcher:
    """Runs ``fetch`` for the requests it is told are likely, and hands out the results.

    ``fetch`` takes a request and an event that is set when the run is over. Used by several
    threads.
    """

    def __init__(self, fetch: Callable[[EnvironmentRequest, threading.Event], Environment]) -> None:
        self._fetch = fetch
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="fetch")
        self._futures: dict[EnvironmentRequest, Future[Environment]] = {}
        self._awaited: Counter[EnvironmentRequest] = Counter()
        self._lock = threading.Lock()

    def expect(self, requests: list[EnvironmentRequest]) -> None:
        """Fetch ``requests`` in this order once nothing else is being fetched.

        What was expected before, has not begun and is not in ``requests`` is forgotten.
        """
        with self._lock:
            self._forget_unless(requests)
            for request in requests:
                self._submit(request)

    def get(self, request: EnvironmentRequest, given_up: threading.Event) -> Environment:
        """The build for ``request``, waiting for it; raises what fetching it raised.

        What failed for the host's sake is fetched anew when it is asked for again.
        Raises ``Cancelled`` once it is ``given_up``.
        """
        with self._lock:
            if request not in self._futures:
                self._forget_unless([])  # what is needed now goes first
            future = self._submit(request)
            self._awaited[request] += 1
        try:
            while not future.done():
                if given_up.is_set():
                    raise Cancelled
                _wait(future)
            return future.result()
        except HostError:
            self._forget(request, future)
            raise
        finally:
            with self._lock:
                self._awaited[request] -= 1

    def forget(self) -> None:
        """Fetch anew what is asked for from now on, though it may have been fetched before."""
        with self._lock:
            self._futures = {r: future for r, future in self._futures.items() if not future.done()}

    def close(self) -> None:
        """Give up whatever is still being fetched."""
        self._over.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _forget(self, request: EnvironmentRequest, future: Future[Environment]) -> None:
        with self._lock:
            if self._futures.get(request) is future:
                del self._futures[request]

    def _forget_unless(self, requests: list[EnvironmentRequest]) -> None:
        for request, future in list(self._futures.items()):
            if request not in requests and not self._awaited[request] and future.cancel():
                del self._futures[request]

    def _submit(self, request: EnvironmentRequest) -> Future[Environment]:
        if request not in self._futures:
            self._futures[request] = self._pool.submit(self._fetch, request, self._over)
        return self._futures[request]


def _wait(future: Future[Environment]) -> None:
    """Wait a moment for ``future``, whatever comes of it."""
    with suppress(TimeoutError):
        future.exception(_GLANCE_SECONDS)
