"""A model hub on the loopback interface, as far as it says who may have a model.

Codes and messages are huggingface.co's, as ``huggingface_hub/utils/_http.py`` reads them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What the hub says when it is asked for a model's configuration."""

    status: int
    code: str = ""
    message: str = ""


OPEN = Answer(200)
GATED = Answer(401, "GatedRepo", "Access to model org/gated is restricted.")
NO_SUCH = Answer(401, "RepoNotFound", "Repository not found")
NO_CONFIG = Answer(404, "EntryNotFound", "Entry not found")
BAD_TOKEN = Answer(401, "", "Invalid credentials in Authorization header")
DISABLED = Answer(403, "", "Access to this resource is disabled.")
TOO_MANY = Answer(429, "", "We had to rate limit you")
DOWN = Answer(503)
MIRRORED = Answer(404)
"""A mirror's own answer for what it does not have."""


class HubApi:
    """Answers by model while its ``with`` block runs; ``gated`` models want ``token``."""

    token = "hf_" + "t" * 34

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.to_servers: dict[str, Answer] = {}
        """What others than vbisect itself are told, where that is something else."""
        self.asked: list[str] = []
        """Each request: who, method and path."""
        self.closing = threading.Event()
        self.hangs = False
        """It takes requests and never answers one."""
        self.drips = False
        """Its answers begin at once and have no end."""

    def __enter__(self) -> HubApi:
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
        """Stop serving."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: HubApi) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would look the host's name up


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """`HubApi.asked` is the log."""

    def do_HEAD(self) -> None:
        hub = self.server.hub
        who = self.headers.get("User-Agent", "").partition("/")[0]
        hub.asked.append(f"{who} {self.command} {self.path}")
        if hub.drips:
            self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        while hub.drips and not hub.closing.wait(0.1):
            self.wfile.write(b"X: 1\r\n")
        if hub.hangs:
            hub.closing.wait()
            return
        model = self.path.removeprefix("/").partition("/resolve/main/config.json")[0]
        answer = hub.answers.get(model, NO_SUCH)
        if who != "vbisect":
            answer = hub.to_servers.get(model, answer)
        sent = self.headers.get("Authorization")
        if answer == GATED and sent is not None:
            allowed = sent == f"Bearer {hub.token}"
            answer = OPEN if allowed else answer._replace(status=403)
        self.send_response(answer.status)
        if answer.code:
            self.send_header("X-Error-Code", answer.code)
        if answer.message:
            self.send_header("X-Error-Message", answer.message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        """Its content is nobody's business here."""
        self.do_HEAD()
