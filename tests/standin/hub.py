"""A model hub on the loopback interface, as far as huggingface_hub asks one: real files, slowly.

What it answers is what huggingface.co does: headers, redirects, ranges, errors with their codes
(https://huggingface.co/docs/hub/api, and the client's own ``utils/_http.py``).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
CHUNK = 64 * 1024
LARGE = (".safetensors", ".bin", ".pth", ".pt")
"""Kept apart, as LFS files are: a redirect leads to them."""

PATHS = {
    "model": r"/api/models/(?P<model>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?",
    "tree": r"/api/models/(?P<model>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)",
    "file": r"/(?P<model>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)",
}

CONFIG = json.dumps({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}).encode()


def model_files(size: int, shards: int = 2, seed: int = 7) -> dict[str, bytes]:
    """A model's repository with ``size`` bytes of weights, and what vLLM does not load of it."""
    dice = random.Random(seed)
    names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    index = json.dumps({"weight_map": {f"layer.{i}": name for i, name in enumerate(names)}})
    return {
        "config.json": CONFIG,
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": index.encode(),
        "README.md": b"# A model\n",
        **{name: dice.randbytes(size // shards) for name in names},
        "pytorch_model.bin": dice.randbytes(1000),
        "original/consolidated.00.pth": dice.randbytes(1000),
    }


@dataclass
class Model:
    """One repository, and what is the matter with it."""

    files: Mapping[str, bytes]
    gated: bool = False
    """Its files want the token, as those behind terms do; its description does not."""
    broken: int = 0
    """With this status the hub answers all that is asked about it."""
    claimed: Mapping[str, int] = field(default_factory=dict)
    """Bytes that the hub says a file has."""
    sizes: bool = True
    """The hub says how large its files are; some mirrors do not."""
    silent_after: int | None = None
    """Bytes of large files that the hub sends before it sends nothing more."""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes sent, by file."""


class ModelHub:
    """Serves ``models`` while its ``with`` block runs, at ``rate`` bytes a second together.

    ``host`` is where it listens; containers see only the address of their bridge.
    """

    token = "hf_" + "t" * 34

    def __init__(
        self, models: Mapping[str, Model], rate: float | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.models = dict(models)
        self.host = host
        self.rate = rate
        self.requests: Counter[str] = Counter()
        """How often each path was asked for, with its method."""
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._free = 0.0
        self._servers: list[_Server] = []

    def __enter__(self) -> ModelHub:
        """Start serving: the hub itself, and the host that its large files are on."""
        self._servers = [_Server(self), _Server(self)]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving."""
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return self._servers[0].url

    @property
    def files_url(self) -> str:
        """Where redirects lead."""
        return self._servers[1].url

    def environment(self, home: Any) -> dict[str, str]:
        """The variables of who uses it, with a cache of their own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def wait_for(self, size: int) -> None:
        """Hold a chunk back until the line is free for it."""
        if self.rate is None:
            return
        with self.lock:
            begin = max(self._free, time.monotonic())
            self._free = begin + size / self.rate
        self.closing.wait(max(0.0, self._free - time.monotonic()))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: ModelHub) -> None:
        self.hub = hub
        super().__init__((hub.host, 0), _Handler)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.hub.host}:{self.server_address[1]}"

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would look the host's name up

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the hub."""


def _git_name(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _is_large(name: str) -> bool:
    return name.endswith(LARGE)


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"size": len(data), "blobId": _git_name(data)}
    if _is_large(name):
        lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        entry |= {"blobId": _git_name(json.dumps(lfs).encode()), "lfs": lfs}
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """`ModelHub.requests` is the log."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        with hub.lock:
            hub.requests[f"{self.command} {path}"] += 1
        if found := re.fullmatch(r"/lfs/([^/]+/[^/]+)/([0-9a-f]{64})/(.+)", path):
            self._large(hub.models[found[1]], found[3])
            return
        matches = ((kind, re.fullmatch(pattern, path)) for kind, pattern in PATHS.items())
        kind, match = next(((k, m) for k, m in matches if m), ("", None))
        if match is None:
            self._problem(404, "", "Not Found")
            return
        asked = match.groupdict()
        name, model = asked["model"], hub.models.get(asked["model"])
        if model is None:  # whether there is none or it is private is not told
            self._problem(401, "RepoNotFound", "Invalid username or password.")
        elif model.broken:
            self._problem(model.broken, "", "out of order")
        elif asked["revision"] not in (None, "main", COMMIT):
            self._problem(404, "RevisionNotFound", "Invalid rev id")
        elif kind == "model":
            self._describe(name, model)
        elif kind == "tree":
            self._list(model)
        else:
            self._file(name, model, asked["file"])

    def _describe(self, name: str, model: Model) -> None:
        siblings: list[dict[str, Any]] = [{"rfilename": file} for file in model.files]
        if "blobs" in parse_qs(urlsplit(self.path).query):
            for sibling in siblings:
                file = sibling["rfilename"]
                sibling |= _entry(file, model.files[file])
                sibling["size"] = model.claimed.get(file, sibling["size"])
                if not model.sizes:
                    del sibling["size"]
        told = {"id": name, "modelId": name, "sha": COMMIT, "private": False, "siblings": siblings}
        self._json({**told, "gated": "manual" if model.gated else False, "tags": []})

    def _list(self, model: Model) -> None:
        listed = []
        for name, data in model.files.items():
            entry = _entry(name, data)
            lfs = entry.get("lfs")
            row = {"type": "file", "path": name, "size": entry["size"], "oid": entry["blobId"]}
            listed.append({**row, **({"lfs": {**lfs, "oid": lfs["sha256"]}} if lfs else {})})
        self._json(listed)

    def _file(self, name: str, model: Model, file: str) -> None:
        if file not in model.files:
            self._problem(404, "EntryNotFound", "Entry not found")
            return
        if model.gated and self.headers.get("Authorization") != f"Bearer {self.server.hub.token}":
            self._problem(403 if "Authorization" in self.headers else 401, "GatedRepo", "Access")
            return
        data = model.files[file]
        entry = _entry(file, data)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{entry["blobId"]}"'}
        if not _is_large(file):
            self._body(model, file, data, headers)
            return
        digest = entry["lfs"]["sha256"]
        headers |= {
            "X-Linked-ETag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{self.server.hub.files_url}/lfs/{name}/{digest}/{file}",
        }
        self._start(302, headers, 0)

    def _large(self, model: Model, file: str) -> None:
        data = model.files[file]
        self._body(model, file, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    def _body(self, model: Model, file: str, data: bytes, headers: dict[str, str]) -> None:
        begin, status = 0, 200
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            begin, end = int(found[1]), int(found[2] or len(data) - 1)
            if begin >= len(data) and data:
                self._start(416, {"Content-Range": f"bytes */{len(data)}"}, 0)
                return
            status, headers = 206, {**headers, "Content-Range": f"bytes {begin}-{end}/{len(data)}"}
            data = data[: end + 1]
        self._start(status, {**headers, "Accept-Ranges": "bytes"}, len(data) - begin)
        if self.command == "HEAD":
            return
        hub = self.server.hub
        for start in range(begin, len(data), CHUNK):
            chunk = data[start : start + CHUNK]
            limit = model.silent_after if _is_large(file) else None
            while limit is not None and sum(model.sent.values()) >= limit:
                if hub.closing.wait(0.05):
                    return
                limit = model.silent_after
            hub.wait_for(len(chunk))
            self.wfile.write(chunk)
            with hub.lock:
                model.sent[file] += len(chunk)

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self._start(200, {"Content-Type": "application/json"}, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _problem(self, status: int, code: str, text: str) -> None:
        body = json.dumps({"error": text}).encode()
        named = {"X-Error-Code": code} if code else {}
        self._start(status, {**named, "X-Error-Message": text}, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, status: int, headers: Mapping[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
