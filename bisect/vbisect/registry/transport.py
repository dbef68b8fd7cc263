"""Requests to registries, by https, or by http where that is allowed."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from vbisect.connections import (
    TooLarge,
    TooLate,
    closed_after,
    following,
    new_client,
    read_whole,
)
from vbisect.errors import HostError
from vbisect.registry.answer import Answer, nonsense
from vbisect.registry.certificates import context_for
from vbisect.registry.retry import OnWait, Patience, ask_patiently

_LARGEST_ANSWER = 16 * 1024 * 1024  # bytes; registries take no manifest above 4 MiB


def is_loopback(host: str) -> bool:
    """Whether HOST or HOST:PORT is this machine itself."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Request:
    """One request; ``registry`` is who is asked, by the name that messages use."""

    method: str
    address: str
    registry: str
    headers: Mapping[str, str] = field(repr=False)
    content: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Trust:
    """What a connection depends on: as with Docker, a registry's token service is trusted by the
    certificates of the registry."""

    registry: str
    insecure: bool
    direct: bool


class Transport:
    """Sends requests with retries; safe to share between threads, to be closed in the end.

    A host for which ``plain_http`` holds is treated as dockerd treats an insecure registry: its
    certificate is not checked, and http is tried where https cannot be had
    (https://docs.docker.com/reference/cli/dockerd/#insecure-registries).
    """

    def __init__(
        self, plain_http: Callable[[str], bool], on_wait: OnWait | None, patience: Patience
    ) -> None:
        self._plain_http = plain_http
        self._on_wait = on_wait or (lambda message, seconds: None)
        self._patience = patience
        self._clients: list[httpx.Client] = []
        self._idle: dict[_Trust, list[httpx.Client]] = {}
        self._contexts: dict[_Trust, ssl.SSLContext] = {}
        self._without_tls: set[str] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            client.close()

    def send(self, request: Request) -> Answer:
        """The answer to ``request``, redirects followed unless it has content.

        An ``Authorization`` header stays with the host it is for. Raises ``HostError`` when no
        proper answer comes.
        """
        return ask_patiently(
            lambda: self._by_scheme(request), request.registry, self._patience, self._on_wait
        )

    def _by_scheme(self, request: Request) -> Answer:
        scheme, _, rest = request.address.partition("://")
        host = rest.partition("/")[0]
        if scheme != "https" or not self._plain_http(host):
            return self._exchange(request)
        if host not in self._without_tls:
            try:
                return self._exchange(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                pass
        answer = self._exchange(replace(request, address=f"http://{rest}"))
        self._without_tls.add(host)
        return answer

    def _exchange(self, request: Request) -> Answer:
        host = request.address.partition("://")[2].partition("/")[0]
        trust = _Trust(request.registry, self._plain_http(host), is_loopback(host))
        whole = self._patience.whole
        try:
            with self._lent(trust) as client, closed_after(client, whole):
                return _exchange(client, request)
        except TooLate:
            raise HostError(
                f"Cannot talk to {request.registry}: its answer was not whole within {whole:g} s."
            ) from None

    @contextmanager
    def _lent(self, trust: _Trust) -> Iterator[httpx.Client]:
        """A client for one request: one that has to be closed under it takes no other along."""
        with self._lock:
            idle = self._idle.setdefault(trust, [])
            client = idle.pop() if idle else self._new(trust)
        try:
            yield client
        finally:
            if not client.is_closed:
                with self._lock:
                    idle.append(client)

    def _new(self, trust: _Trust) -> httpx.Client:
        """A loopback address is never asked through a proxy."""
        verify: ssl.SSLContext | bool = False
        if not trust.insecure:
            if trust not in self._contexts:
                self._contexts[trust] = context_for(trust.registry, direct=trust.direct)
            verify = self._contexts[trust]
        client = new_client(
            direct=trust.direct,
            connect=self._patience.connect,
            read=self._patience.read,
            verify=verify,
        )
        self._clients.append(client)
        return client


def _exchange(client: httpx.Client, request: Request) -> Answer:
    asked = client.build_request(
        request.method, request.address, headers=request.headers, content=request.content
    )
    with following(client, asked) as response:  # no body, with a secret in it, goes elsewhere
        try:
            body = read_whole(response, _LARGEST_ANSWER)
        except TooLarge:
            raise nonsense(request.registry, "something of a sensible size") from None
        foreign = (asked.url.host, asked.url.port) != (response.url.host, response.url.port)
        return Answer(response.status_code, response.headers, body, foreign)
