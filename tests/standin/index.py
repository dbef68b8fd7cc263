"""A package index on the loopback interface, for a directory of wheels, with faults on demand."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import Any

from .wheels import dependency

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
SETUPTOOLS = "setuptools-1.0-py3-none-any.whl"


@dataclass
class _Fault:
    contains: str
    times: int
    status: int = 0  # 0: not a status, but half a body
    headers: Mapping[str, str] | None = None


class PackageIndex:
    """Serves `directory` as a simple index (PEP 503, 691, 700, 658) while its `with` block runs.

    `upload_times` and `yanked` go by file name; a file without an upload time is listed
    without one. Source distributions are listed too. Wheels added to the directory later are
    served too. As every index that has vLLM, it has setuptools.
    """

    def __init__(
        self,
        directory: Path,
        upload_times: Mapping[str, datetime] | None = None,
        *,
        yanked: Mapping[str, str] | None = None,
        metadata: bool = True,
    ) -> None:
        self.directory = directory
        if not (directory / SETUPTOOLS).exists():  # another index may serve it already
            dependency(directory, "setuptools", "1.0")
        self.upload_times = {SETUPTOOLS: datetime(2020, 1, 1, tzinfo=UTC), **(upload_times or {})}
        self.yanked = dict(yanked or {})
        self.metadata = metadata
        self.requests: Counter[str] = Counter()
        """How often each path was asked for, faults included."""
        self.delay = 0.0
        """Seconds that every answer waits."""
        self.ranges = True
        """Whether parts of files are given, as the common indexes do."""
        self.sent = 0
        """Bytes of bodies sent so far."""
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._described: dict[tuple[str, int], dict[str, Any]] = {}
        self._server: _Server | None = None

    def __enter__(self) -> PackageIndex:
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
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def base(self) -> str:
        """The address of the server, without a trailing slash."""
        assert self._server is not None, "the index serves only inside its with block"
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The address for --index-url."""
        return f"{self.base}/simple/"

    def environment(self, scratch: Path) -> dict[str, str]:
        """The process environment in which pip sees this index and nothing else.

        The caches of pip and uv are below `scratch`. uv gets no index: it does not read pip's
        settings, and whoever calls it has to pass them on.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "UV_")) and not name.lower().endswith("_proxy")
        }
        kept.pop("VIRTUAL_ENV", None)
        return kept | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": self.url,
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_CACHE_DIR": str(scratch / "pip-cache"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_NO_CONFIG": "1",
            "UV_CACHE_DIR": str(scratch / "uv-cache"),
            "UV_PYTHON_DOWNLOADS": "never",
            "NO_PROXY": "127.0.0.1",
        }

    def fail_next(
        self,
        path_contains: str,
        status: int = 503,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next `times` requests for such a path with `status`."""
        with self._lock:
            self._faults.append(_Fault(path_contains, times, status, headers))

    def truncate(self, path_contains: str, times: int = 1) -> None:
        """Cut the next `times` answers for such a path off half way, under a full length."""
        with self._lock:
            self._faults.append(_Fault(path_contains, times))

    def count(self, path_contains: str) -> int:
        """How many requests were made for paths that contain this."""
        with self._lock:
            return sum(times for path, times in self.requests.items() if path_contains in path)

    def _arrived(self, path: str) -> _Fault | None:
        with self._lock:
            self.requests[path] += 1
            for fault in self._faults:
                if fault.times > 0 and fault.contains in path:
                    fault.times -= 1
                    return fault
        return None

    def _projects(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in sorted((*self.directory.glob("*.whl"), *self.directory.glob("*.tar.gz"))):
            name = re.sub(r"[-_.]+", "-", path.name.split("-")[0]).lower()
            found.setdefault(name, []).append(path)
        return found

    def _describe(self, path: Path) -> dict[str, Any]:
        # Keyed by time of change too: a test may rebuild a wheel while the index runs.
        key = (path.name, path.stat().st_mtime_ns)
        with self._lock:
            if key in self._described:
                entry = dict(self._described[key])
            else:
                entry = self._described[key] = self._read(path)
        if uploaded := self.upload_times.get(path.name):
            stamp = uploaded.astimezone(UTC).isoformat(timespec="microseconds")
            entry["upload-time"] = stamp.replace("+00:00", "Z")
        reason = self.yanked.get(path.name)
        return {**entry, "yanked": False if reason is None else reason or True}

    def _read(self, path: Path) -> dict[str, Any]:
        data = path.read_bytes()
        entry: dict[str, Any] = {
            "filename": path.name,
            "url": f"/files/{path.name}",
            "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
            "size": len(data),
        }
        if path.suffix != ".whl":
            return entry
        text = _metadata(path)
        if found := re.search(rb"^Requires-Python: (.+)$", text, re.MULTILINE):
            entry["requires-python"] = found[1].decode()
        if self.metadata:
            entry["core-metadata"] = {"sha256": hashlib.sha256(text).hexdigest()}
        return entry

    def _headers(self, path: str) -> Mapping[str, str]:
        """What else is said with the answer for a path."""
        return {}

    def _answer(self, path: str, wants_json: bool) -> tuple[int, str, bytes]:
        """Status, content type and body for a path."""
        parts = path.strip("/").split("/")
        projects = self._projects()
        if parts == ["simple"]:
            return 200, *_listing(sorted(projects), wants_json)
        if parts[0] == "simple" and len(parts) == 2 and parts[1] in projects:
            files = [self._describe(file) for file in projects[parts[1]]]
            return 200, *_project(parts[1], files, wants_json)
        if parts[0] == "files" and len(parts) == 2:
            name = parts[1].removesuffix(".metadata")
            file = self.directory / name
            if file.suffix == ".gz" and file.is_file():
                return 200, "application/octet-stream", file.read_bytes()
            if file.suffix == ".whl" and file.is_file():
                wants_metadata = name != parts[1]
                if not wants_metadata:
                    return 200, "application/octet-stream", file.read_bytes()
                if self.metadata:
                    return 200, "application/octet-stream", _metadata(file)
        return 404, "text/plain", b"404 Not Found"


def _metadata(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return archive.read(name)


def _listing(names: list[str], wants_json: bool) -> tuple[str, bytes]:
    if wants_json:
        body = {"meta": {"api-version": "1.1"}, "projects": [{"name": name} for name in names]}
        return JSON_TYPE, json.dumps(body).encode()
    rows = "".join(f'<a href="/simple/{name}/">{name}</a><br/>\n' for name in names)
    return "text/html", f"<!DOCTYPE html><html><body>\n{rows}</body></html>".encode()


def _project(name: str, files: list[dict[str, Any]], wants_json: bool) -> tuple[str, bytes]:
    if wants_json:
        names = (file["filename"].removesuffix(".tar.gz") for file in files)
        versions = list(dict.fromkeys(name.split("-")[1] for name in names))
        body = {"meta": {"api-version": "1.1"}, "name": name, "versions": versions, "files": files}
        return JSON_TYPE, json.dumps(body).encode()
    rows = []
    for file in files:
        extra = ""
        if "requires-python" in file:
            extra += f' data-requires-python="{html.escape(file["requires-python"])}"'
        if "core-metadata" in file:
            extra += f' data-core-metadata="sha256={file["core-metadata"]["sha256"]}"'
        if file["yanked"]:
            extra += f' data-yanked="{html.escape(str(file["yanked"]))}"'
        link = f"{file['url']}#sha256={file['hashes']['sha256']}"
        rows.append(f'<a href="{link}"{extra}>{file["filename"]}</a><br/>\n')
    return "text/html", f"<!DOCTYPE html><html><body>\n{''.join(rows)}</body></html>".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, index: PackageIndex) -> None:
        self.index = index
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would look the host's name up

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the index."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """`PackageIndex.requests` is the log."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        index, path = self.server.index, self.path.partition("?")[0]
        fault = index._arrived(path)
        time.sleep(index.delay)
        wants_json = JSON_TYPE in self.headers.get("accept", "")
        status, kind, body = index._answer(path, wants_json)
        if fault is not None and fault.status:
            status, kind, body = fault.status, "text/plain", b"injected fault"
        part = self._part(len(body)) if status == 200 and index.ranges else None
        if part is not None:
            status, whole, body = 206, len(body), body[part]
        self.send_response(status)
        if part is not None:
            self.send_header("content-range", f"bytes {part.start}-{part.stop - 1}/{whole}")
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        # Stale pages would hide wheels that a test adds while the index runs.
        self.send_header("cache-control", "no-store")
        for name, value in {**index._headers(path), **((fault and fault.headers) or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and not fault.status:
            body, self.close_connection = body[: len(body) // 2], True
        with index._lock:
            index.sent += len(body)
        self.wfile.write(body)
        self.wfile.flush()

    def _part(self, size: int) -> slice | None:
        """The one range of bytes that is asked for, or `None` (RFC 9110, section 14.1.2)."""
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("range", ""))
        if asked is None or asked[0] == "bytes=-":
            return None
        first, last = (int(number) if number else None for number in asked.groups())
        if first is None:
            return slice(max(0, size - (last or 0)), size)
        return slice(first, size if last is None else min(size, last + 1))
