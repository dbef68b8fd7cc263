"""An HTTP server on the loopback interface that answers what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request; header names are in lower case, the first value of each query name counts."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """One answer after `delay` seconds; `raw` is sent as it is, in place of all else.

    `drips` is how many letters of a header come before it, one after the other.
    """

    status: int = 200
    body: bytes | str | dict[str, Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    raw: bytes | None = None
    drips: int = 0

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        if isinstance(self.body, bytes):
            return self.body
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return text.encode()


class ScriptedServer:
    """Serves while its `with` block runs; a path without a script is not found."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        """Every request so far, in the order of arrival."""
        self._scripts: dict[str, list[Reply | Callable[[Asked], Reply]]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server: _Server | None = None

    def __enter__(self) -> ScriptedServer:
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
        """Stop serving; answers that are still delayed come at once."""
        assert self._server is not None
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def host(self) -> str:
        """HOST:PORT."""
        assert self._server is not None, "it serves only inside its with block"
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The address, without a trailing slash."""
        return f"http://{self.host}"

    def on(self, path: str, *replies: Reply | Callable[[Asked], Reply]) -> None:
        """Answer requests for `path` with `replies` in turn, the last one again and again."""
        with self._lock:
            self._scripts[path] = list(replies)

    def asked(self, path: str) -> list[Asked]:
        """The requests for `path` so far."""
        with self._lock:
            return [request for request in self.requests if request.path == path]

    def _answer(self, request: Asked) -> Reply:
        with self._lock:
            self.requests.append(request)
            script = self._scripts.get(request.path, [Reply(404)])
            reply = script.pop(0) if len(script) > 1 else script[0]
        if not isinstance(reply, Reply):
            reply = reply(request)
        self._closing.wait(reply.delay)
        return reply


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, scripted: ScriptedServer) -> None:
        self.scripted = scripted
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would look the host's name up

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """`ScriptedServer.requests` is the log."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.scripted._answer(Asked(self.command, parts.path, query, headers, body))
        if reply.raw is not None:
            self.close_connection = True
            self.wfile.write(reply.raw)
            self.wfile.flush()
            return
        self.send_response(reply.status)
        if reply.drips:
            self._drip(reply.drips)
        if "content-length" not in {name.lower() for name in reply.headers}:
            self.send_header("content-length", str(len(reply.content)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content)
        self.wfile.flush()

    def _drip(self, letters: int) -> None:
        self.flush_headers()
        self.wfile.write(b"x-drips: ")
        for _ in range(letters):
            if self.server.scripted._closing.wait(0.02):
                break
            self.wfile.write(b"x")
            self.wfile.flush()
        self.wfile.write(b"\r\n")
