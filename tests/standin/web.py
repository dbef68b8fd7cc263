"""The HTTP side of the stand-in server."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from . import replies
from .asks import Problem, check
from .behaviour import Behaviour
from .log import Log
from .quirks import harmless, kinds

PATHS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/inference/v1/generate": "generate",
}
MOST_MEMORY = 1536 << 20
"""Bytes; few enough to do a machine no harm where nothing limits the memory."""
NO_LIMIT = "MemoryError: nothing limits the memory of this process"


NO_COMPILER = (
    "torch._inductor.exc.InductorError: InvalidCxxCompiler: No working C++ compiler found in "
    "torch._inductor.config.cpp.cxx: (None, %r)"
)


def exhaust_memory() -> None:
    """Take memory until the kernel kills the process; returns when nothing does."""
    # Filled with a value: pages of zeros are not taken before they are written to.
    taken = []
    while sum(map(len, taken)) < MOST_MEMORY:
        taken.append(b"x" * (16 << 20))


def _without_compiler() -> str:
    """What torch says as it cannot compile; empty where it can, or need not."""
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        return ""
    compiler = os.environ.get("CXX", "g++")
    try:
        subprocess.run([compiler, "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return NO_COMPILER % compiler
    return ""


class Server(ThreadingHTTPServer):
    """The HTTP side; bound before the engine starts, listening only once it is ready."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, args: Any, version: str, behaviour: Behaviour, log: Log) -> None:
        # Nothing outside this machine may reach a stand-in; a container is a machine of its own.
        host = (args.host or "0.0.0.0") if behaviour.honours_host else "127.0.0.1"
        super().__init__((host, args.port), Handler, bind_and_activate=False)
        self.args, self.version, self.behaviour, self.log = args, version, behaviour, log
        self.names: list[str] = args.served_model_name or [args.model]
        self.sampler = replies.Sampler(version, behaviour)
        self.lock = threading.Lock()
        self.seen_ready = threading.Event()
        self.one_choice = self.compiled = False

    def server_bind(self) -> None:
        """Bind without the name lookup of HTTPServer, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave in one packet
    server: Server

    def version_string(self) -> str:
        """The `server:` header."""
        return "uvicorn"

    def log_message(self, format: str, *args: Any) -> None:
        """Access lines are written by `log_request` alone."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """One uvicorn access line."""
        phrase = self.responses[int(code)][0]
        peer = f"{self.client_address[0]}:{self.client_address[1]}"
        self.server.log.uvicorn(f'{peer} - "{self.requestline}" {int(code)} {phrase}')

    def do_GET(self) -> None:
        """The endpoints that are polled until the server is ready."""
        server, path = self.server, self.path.partition("?")[0]
        if path in ("/health", "/ping"):
            healthy = server.behaviour.fault != "unhealthy"
            self._send(200 if healthy else 503, b"")
            if healthy:
                server.seen_ready.set()
        elif path == "/version":
            other = "9.9.9" if server.behaviour.fault == "wrong_version" else server.version
            self._json(200, {"version": server.behaviour.reported_version or other})
        elif path == "/v1/models":
            args = server.args
            self._json(200, replies.models(server.names, args.model, args.max_model_len))
        elif path in PATHS:
            self._json(405, {"detail": "Method Not Allowed"})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        """The three generation endpoints."""
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        endpoint, behaviour = PATHS.get(self.path.partition("?")[0]), self.server.behaviour
        if endpoint is None or endpoint not in behaviour.served:
            self._json(404, {"detail": "Not Found"})
            return
        gated = endpoint == "generate" and behaviour.scale_out is not None
        if gated and not self.server.args.enable_scale_out:
            self._disabled(behaviour)
            return
        try:
            self._generate(endpoint, raw)
        except Problem as problem:
            self._json(problem.status, problem.body(behaviour.flat_errors))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _disabled(self, behaviour: Behaviour) -> None:
        if behaviour.scale_out == "404":
            self._json(404, {"detail": "Not Found"})
            return
        problem = Problem(
            "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out "
            "to enable them.",
            403,
        )
        self._json(403, problem.body(behaviour.flat_errors))

    def _generate(self, endpoint: str, raw: bytes) -> None:
        server, behaviour = self.server, self.server.behaviour
        if behaviour.fault == "crash_on_request":
            server.log.error(behaviour.fault_log or "vllm.v1.engine.exceptions.EngineDeadError")
            if behaviour.fault_exit < 0:
                os.kill(os.getpid(), -behaviour.fault_exit)
                time.sleep(60)  # the signal comes when it comes
            os._exit(behaviour.fault_exit)
        if behaviour.fault == "oom_on_request":
            exhaust_memory()
            server.log.error(behaviour.fault_log or NO_LIMIT)
            os._exit(behaviour.fault_exit)
        if behaviour.compiles and not server.compiled and (broken := _without_compiler()):
            server.log.error(broken)
            threading.Timer(0.2, os._exit, [1]).start()
            raise Problem("EngineCore encountered an issue. See stack trace (above).", 500)
        server.compiled = True
        quirks = {behaviour.quirks[kind] for kind in kinds(raw) if kind in behaviour.quirks}
        if "crash" in quirks:
            server.log.error("vllm.v1.engine.exceptions.EngineDeadError")
            os._exit(1)
        for status in quirks & {"400", "500"}:
            raise Problem("this kind of request has a quirk", int(status))
        if "answered" in quirks:
            raw = harmless(raw)
        header = self.headers.get("x-request-id")
        ask = check(endpoint, raw, server.names, behaviour, server.args, header)
        if server.args.enable_log_requests:
            if behaviour.logged_n != 0:
                server.log.info("request_logger.py:63", ask.logged(behaviour))
            server.log.info("async_llm.py:439", f"Added request {ask.id}.")
        slow = 5.0 if behaviour.fault == "slow_request" else 0.0
        time.sleep(behaviour.request_seconds or slow)
        if behaviour.fault == "http_500":
            server.log.error(behaviour.fault_log or "EngineCore encountered an issue.")
            raise Problem("EngineCore encountered an issue. See stack trace (above).", 500)
        with server.lock:
            choices = server.sampler.choices(ask)
        if "fewer" in quirks or server.one_choice:
            choices = choices[:1]
        if "bare" in quirks:
            ask = replace(ask, logprobs=None)
        if ask.stream:
            breaks = endpoint in behaviour.stream_error and ask.n > 1
            self._stream(json.dumps(chunk) for chunk in replies.chunks(ask, choices, breaks))
        elif behaviour.fault == "not_json":
            self._send(200, b"<html><body>Bad gateway</body></html>", "text/html")
        else:
            self._json(200, replies.full(ask, choices))

    def _json(self, status: int, body: dict[str, Any]) -> None:
        if leaks := self.server.behaviour.leaks:
            body = {**body, "leaks": leaks}
        self._send(status, json.dumps(body, separators=(",", ":")).encode())

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        if body:
            self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.server.behaviour.fault == "cut_stream" and self.command == "POST":
            body, self.close_connection = body[: len(body) // 2], True
        self.wfile.write(body)
        self.wfile.flush()

    def _stream(self, events: Iterable[str]) -> None:
        fault = self.server.behaviour.fault
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        lines = [*events, "[DONE]"]
        if fault == "not_json":
            lines[0] = lines[0][: len(lines[0]) // 2]
        for line in lines[: len(lines) // 2] if fault == "cut_stream" else lines:
            data = f"data: {line}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        if fault == "cut_stream":
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
