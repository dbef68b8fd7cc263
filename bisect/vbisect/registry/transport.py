"""Requests to registries, by https, or by http where that is allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from vbisect.connections import TooLarge, following, new_client, read_whole
from vbisect.registry.answer import Answer, nonsense
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
        self._clients: dict[tuple[bool, bool], httpx.Client] = {}
        self._without_tls: set[str] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
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
        client = self._client(host)
        if scheme != "https" or not self._plain_http(host):
            return _exchange(client, request)
        if host not in self._without_tls:
            try:
                return _exchange(client, request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                pass
        answer = _exchange(client, replace(request, address=f"http://{rest}"))
        self._without_tls.add(host)
        return answer

    def _client(self, host: str) -> httpx.Client:
        """The client for ``host``; a loopback address is never asked through a proxy."""
        insecure, direct = self._plain_http(host), is_loopback(host)
        with self._lock:
            client = self._clients.get((insecure, direct))
            if client is None:
                client = new_client(
                    direct=direct,
                    connect=self._patience.connect,
                    read=self._patience.read,
                    verify=not insecure,
                )
                self._clients[insecure, direct] = client
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
