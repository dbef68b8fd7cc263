"""A reverse proxy in front of a registry, slow or faulty as scripted while it runs."""

from __future__ import annotations

import http.client
import io
import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any

KINDS = {"ping": "^/v2/$", "manifest": "/manifests/", "blob": "/blobs/", "tags": "/tags/list"}
CODES: dict[object, str] = {
    401: "UNAUTHORIZED",
    404: "MANIFEST_UNKNOWN",
    (404, "tags"): "NAME_UNKNOWN",
    429: "TOOMANYREQUESTS",
    503: "UNAVAILABLE",
}
"""By status, or by status and kind of the request."""
NOT_PASSED_ON = {"connection", "transfer-encoding", "date", "server"}
CHUNK = 1 << 18
STEP_SECONDS = 0.05
"""How long one chunk of a throttled download takes: the grain of its pace."""


class _ClientGone(Exception):
    """The client closed the connection before it had its answer."""


@dataclass
class Exchange:
    """One request and how far its answer got; times are `time.monotonic()`."""

    method: str
    path: str
    kind: str
    """ping, manifest, blob, tags or other."""
    headers: Mapping[str, str]
    """Names in lower case."""
    began: float
    status: int = 0
    size: int = 0
    """Bytes that the body of the answer should have."""
    sent: int = 0
    """Bytes of it that were handed to the client's connection."""
    ended: float | None = None
    closed_early: bool = False
    """The client went away first."""


@dataclass
class _Fault:
    pattern: re.Pattern[str]
    times: int
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    flip_at: int | None = None
    released: threading.Event | None = None


@dataclass
class _Pace:
    """Lets bytes through at a rate, first come, first served."""

    due: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, count: int, rate: float | None) -> float:
        """The time until which the caller has to wait after `count` bytes."""
        with self.lock:
            self.due = max(self.due, time.monotonic()) + (count / rate if rate else 0.0)
            return self.due


class RegistryProxy:
    """Passes GET and HEAD on to a registry while its `with` block runs.

    Faults are for the next requests whose path (with its query) matches a regular expression; each
    request meets at most one.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._server: _Server | None = None
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self._pace = _Pace()
        self.exchanges: list[Exchange] = []
        """Every request so far, in order of arrival; also those still being answered."""
        self.rate_each: float | None = None
        """Bytes per second of each blob download, as nginx's limit_rate; None: no limit."""
        self.rate_total: float | None = None
        """Bytes per second of all blob downloads together."""
        self.login: str | None = None
        """The only `Authorization` that anything is answered to; None: anybody is."""

    def __enter__(self) -> RegistryProxy:
        """Start serving."""
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving, and let go what hangs."""
        assert self._server is not None
        self.heal()
        self._server.shutdown()
        self._server.server_close()

    @property
    def host(self) -> str:
        """Address and port, as an image reference begins."""
        assert self._server is not None, "the proxy serves only inside its with block"
        return f"127.0.0.1:{self._server.server_address[1]}"

    def fail(
        self,
        pattern: str,
        status: int,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with `status`, a registry's error body and these headers (Retry-After, …)."""
        self._add(_Fault(re.compile(pattern), times, status=status, headers=headers or {}))

    def truncate(self, pattern: str, after: int, times: int = 1) -> None:
        """Close the connection after `after` bytes of the body, under its full length."""
        self._add(_Fault(re.compile(pattern), times, cut_after=after))

    def corrupt(self, pattern: str, at: int = 0, times: int = 1) -> None:
        """Flip the bits of the byte `at` of the body."""
        self._add(_Fault(re.compile(pattern), times, flip_at=at))

    def hang(self, pattern: str, times: int = 1) -> Callable[[], None]:
        """Accept and send nothing until what this returns is called; then answer after all."""
        released = threading.Event()
        self._add(_Fault(re.compile(pattern), times, released=released))
        return released.set

    def heal(self) -> None:
        """Forget faults that have not struck, let go what hangs, lift all limits."""
        with self._lock:
            for fault in self._faults:
                fault.times = 0
                if fault.released is not None:
                    fault.released.set()
        self.rate_each = self.rate_total = None

    def seen(self, pattern: str = "", kind: str = "", method: str = "") -> list[Exchange]:
        """The requests so far whose path matches, of one kind, of one method."""
        with self._lock:
            arrived = [e for e in self.exchanges if re.search(pattern, e.path)]
        return [e for e in arrived if kind in ("", e.kind) and method in ("", e.method)]

    def _add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _arrived(self, exchange: Exchange) -> _Fault | None:
        with self._lock:
            self.exchanges.append(exchange)
            for fault in self._faults:
                if fault.times > 0 and fault.pattern.search(exchange.path):
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: RegistryProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would look the host's name up

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the proxy; it is in `exchanges`."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the headers leave in one packet
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """`RegistryProxy.exchanges` is the log."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, path)), "other")
        exchange = Exchange(self.command, path, kind, _joined(self.headers), time.monotonic())
        fault = self.server.proxy._arrived(exchange)
        try:
            self._answer(exchange, fault)
        except (_ClientGone, ConnectionError):
            exchange.closed_early = self.close_connection = True
        finally:
            exchange.ended = time.monotonic()

    def _answer(self, exchange: Exchange, fault: _Fault | None) -> None:
        if fault is not None and fault.released is not None:
            while not fault.released.is_set():
                self._pause(time.monotonic() + STEP_SECONDS)
        if fault is not None and fault.status:
            code = CODES.get((fault.status, exchange.kind), CODES.get(fault.status, "UNKNOWN"))
            error = {"code": code, "message": "injected fault"}
            body = json.dumps({"errors": [error]}).encode()
            kind = {"content-type": "application/json"}
            self._head(exchange, fault.status, len(body), {**kind, **fault.headers})
            if self.command != "HEAD":
                exchange.sent = self.wfile.write(body)
            return
        wanted = self.server.proxy.login
        if wanted is not None and self.headers["authorization"] != wanted:
            self._head(exchange, 401, 0, {"www-authenticate": 'Basic realm="the stand-in"'})
            return
        upstream = http.client.HTTPConnection(self.server.proxy._upstream, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # several may share a name, as Accept does
                upstream.putheader(name, value)
            upstream.endheaders()
            self._pass_on(exchange, upstream.getresponse(), fault)
        finally:
            upstream.close()

    def _pass_on(
        self, exchange: Exchange, response: http.client.HTTPResponse, fault: _Fault | None
    ) -> None:
        kept = {k: v for k, v in response.getheaders() if k.lower() not in NOT_PASSED_ON}
        body: http.client.HTTPResponse | io.BytesIO = response
        length = int(kept.pop("Content-Length", "-1"))
        if length < 0:  # long lists come in chunks
            whole = response.read()
            body, length = io.BytesIO(whole), len(whole)
        self._head(exchange, response.status, length, kept)
        if self.command == "HEAD":
            return
        self.wfile.flush()
        cut = fault.cut_after if fault is not None else None
        own_pace, buffer = _Pace(), memoryview(bytearray(CHUNK))
        while exchange.sent < length:
            room = min(self._step(exchange), length - exchange.sent)
            if cut is not None:
                room = min(room, cut - exchange.sent)
            count = body.readinto(buffer[:room])
            if not count:  # cut off on purpose, or by the registry's own end
                self.close_connection = True
                return
            at = fault.flip_at - exchange.sent if fault and fault.flip_at is not None else -1
            if 0 <= at < count:
                buffer[at] ^= 0xFF
            self.connection.sendall(buffer[:count])
            exchange.sent += count
            if exchange.kind == "blob" and exchange.sent < length:
                proxy = self.server.proxy
                own = own_pace.reserve(count, proxy.rate_each)
                self._pause(max(own, proxy._pace.reserve(count, proxy.rate_total)))

    def _head(
        self, exchange: Exchange, status: int, length: int, headers: Mapping[str, str]
    ) -> None:
        exchange.status, exchange.size = status, length
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(length))
        self.end_headers()

    def _step(self, exchange: Exchange) -> int:
        """How many bytes go at once: little under a limit, so that it binds at once."""
        proxy = self.server.proxy
        limits = [rate for rate in (proxy.rate_each, proxy.rate_total) if rate]
        if exchange.kind != "blob" or not limits:
            return CHUNK
        return max(1, min(CHUNK, int(min(limits) * STEP_SECONDS)))

    def _pause(self, until: float) -> None:
        """Wait; raises `_ClientGone` as soon as the client closes its side."""
        poller = select.poll()  # select() refuses connections beyond the thousandth
        poller.register(self.connection, select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            readable = poller.poll(left * 1000)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise _ClientGone
            if readable:  # a next request, before this one has been answered
                time.sleep(max(0.0, until - time.monotonic()))


def _joined(headers: Message) -> dict[str, str]:
    return {name.lower(): ", ".join(headers.get_all(name, ())) for name in headers}
