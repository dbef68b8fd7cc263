"""Serves single files of this machine on the loopback interface, while an image is built."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from urllib.parse import unquote, urlsplit


@contextmanager
def serve_files(local_files: Mapping[str, Path]) -> Iterator[str]:
    """The address below which exactly ``local_files`` are served, for the duration of the block.

    Paths go by what follows the address. The address cannot be guessed: other users of this
    machine reach its loopback interface too.
    """
    prefix = f"/{secrets.token_urlsafe(16)}"
    server = _Server({f"{prefix}/{name}": file for name, file in local_files.items()})
    thread = threading.Thread(target=server.serve_forever, args=[0.05], name="wheels", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, served: Mapping[str, Path]) -> None:
        self.served = served
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would look this machine's name up

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """What is installed from here is in the build's own log."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        file = self.server.served.get(unquote(urlsplit(self.path).path))
        try:
            if file is None:
                raise FileNotFoundError
            with file.open("rb") as content:
                self.send_response(200)
                self.send_header("content-type", "application/octet-stream")
                self.send_header("content-length", str(file.stat().st_size))
                self.end_headers()
                if body:
                    shutil.copyfileobj(content, self.wfile, 1 << 20)
        except OSError:
            self.send_error(404)
