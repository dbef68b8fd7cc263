"""A small GitHub on loopback: issues, comments and gists that remember, and declared faults."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

MOST_CHARACTERS = 65_536
_CUT, _DRIP, _DRIP_HEAD = 0, 1, 2  # no statuses of HTTP


@dataclass
class Asked:
    """One request as it arrived; ``headers`` have lower-case names."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any] | None


@dataclass
class Fault:
    """What some requests get in place of an answer.

    ``cut`` closes the connection instead, ``drip`` answers a byte at a time and never ends;
    ``drip_head`` does so in the head of the answer.
    """

    method: str
    pattern: str
    status: int
    body: Mapping[str, Any] | bytes
    headers: Mapping[str, str]
    times: int
    cut: bool
    drip: bool
    drip_head: bool


@dataclass
class Thread:
    """One issue."""

    title: str = "n=8 returns one choice"
    body: str | None = "With Qwen2.5-VL-7B-Instruct."
    locked: bool = False
    comments: list[dict[str, Any]] = field(default_factory=list)


class Reply(Exception):
    """An answer, from wherever it is known."""

    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None):
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


class GitHubServer:
    """``tokens`` maps tokens to logins; ``page_size`` is the most entries on a page."""

    def __init__(self, page_size: int = 100) -> None:
        self.tokens: dict[str, str] = {}
        self.threads: dict[tuple[str, int], Thread] = {}
        self.gists: dict[str, dict[str, Any]] = {}
        self.commits: list[dict[str, Any]] = []
        self.files: list[dict[str, Any]] = []
        self.renamed: dict[str, str] = {}
        self.asked: list[Asked] = []
        self.page_size = page_size
        self._faults: list[Fault] = []
        self._lost: list[tuple[str, str]] = []
        self._number = 0
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(self)

    def __enter__(self) -> GitHubServer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What GITHUB_API_URL has to be."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def fault(
        self,
        method: str,
        pattern: str,
        status: int,
        message: str | bytes = "",
        headers: Mapping[str, str] | None = None,
        times: int = 1,
        cut: bool = False,
        drip: bool = False,
        drip_head: bool = False,
        **more: Any,
    ) -> None:
        """Answer the next ``times`` requests of this kind with ``status``."""
        body = message if isinstance(message, bytes) else {"message": message, **more}
        self._faults.append(
            Fault(method, pattern, status, body, headers or {}, times, cut, drip, drip_head)
        )

    def lose_answers(self, method: str, pattern: str) -> None:
        """Do what the next such request asks for, and close the connection without an answer."""
        self._lost.append((method, pattern))

    def comment(self, repository: str, number: int, login: str, body: str) -> dict[str, Any]:
        """Somebody comments."""
        thread = self.threads[repository, number]
        self._number += 1
        made = {
            "id": self._number,
            "body": body,
            "user": {"login": login},
            "html_url": f"{self.url}/{repository}/issues/{number}#issuecomment-{self._number}",
            "created_at": "2026-11-20T10:00:00Z",
        }
        thread.comments.append(made)
        return made

    def count(self, method: str, pattern: str = "") -> int:
        """How many such requests arrived."""
        return sum(a.method == method and bool(re.search(pattern, a.path)) for a in self.asked)

    @property
    def written(self) -> list[Asked]:
        """The requests that were to change something."""
        return [asked for asked in self.asked if asked.method != "GET"]

    def answer(self, asked: Asked) -> Reply:
        """The answer to one request; the state is changed by one at a time."""
        with self._lock:
            self.asked.append(asked)
            for fault in self._faults:
                if fault.times and fault.method == asked.method:
                    if not re.search(fault.pattern, asked.path):
                        continue
                    fault.times -= 1
                    if fault.cut or fault.drip or fault.drip_head:
                        dripping = _DRIP if fault.drip else _DRIP_HEAD
                        return Reply(_CUT if fault.cut else dripping)
                    return Reply(fault.status, fault.body, dict(fault.headers))
            try:
                self._route(asked)
            except Reply as reply:
                return Reply(_CUT) if self._is_lost(asked) else reply
            return _missing()

    def _is_lost(self, asked: Asked) -> bool:
        for method, pattern in self._lost:
            if method == asked.method and re.search(pattern, asked.path):
                self._lost.remove((method, pattern))
                return True
        return False

    def _route(self, asked: Asked) -> None:
        url = urlsplit(asked.path)
        path = unquote(url.path)
        login = self._login(asked)
        for old, new in self.renamed.items():
            if path.startswith(f"/repos/{old}/"):
                raise Reply(301, {}, {"Location": self.url + asked.path.replace(old, new)})
        if path == "/user":
            raise Reply(200, {"login": login}) if login else _unauthorized()
        if found := re.fullmatch(r"/repos/([^/]+/[^/]+)/issues/(\d+)(/comments)?", path):
            self._thread_route(asked, found[1], int(found[2]), bool(found[3]), login)
        if found := re.fullmatch(r"/repos/([^/]+/[^/]+)/issues/comments/(\d+)", path):
            self._comment_route(asked, found[1], int(found[2]), login)
        if found := re.fullmatch(r"/repos/([^/]+/[^/]+)/compare/(.+)\.\.\.(.+)", path):
            page, headers = self._page(asked.path, self.commits)
            body = {"total_commits": len(self.commits), "commits": page, "files": self.files}
            raise Reply(200, body, headers)
        if found := re.fullmatch(r"/gists(?:/(\w+))?", path):
            self._gist_route(asked, found[1], login)

    def _login(self, asked: Asked) -> str | None:
        header = asked.headers.get("authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.tokens:
            raise _unauthorized()
        return self.tokens[token]

    def _thread_route(
        self, asked: Asked, repository: str, number: int, comments: bool, login: str | None
    ) -> None:
        thread = self.threads.get((repository, number))
        if thread is None:
            raise _missing()
        if asked.method == "GET" and not comments:
            raise Reply(
                200,
                {
                    "number": number,
                    "title": thread.title,
                    "body": thread.body,
                    "locked": thread.locked,
                    "state": "open",
                    "user": {"login": "reporter"},
                    "html_url": f"{self.url}/{repository}/issues/{number}",
                },
            )
        if asked.method == "GET":
            page, headers = self._page(asked.path, thread.comments)
            raise Reply(200, page, headers)
        if asked.method == "POST" and comments:
            if login is None:
                raise _unauthorized()
            if thread.locked:
                raise Reply(403, {"message": "Unable to create comment because issue is locked."})
            body = _sound(asked)
            raise Reply(201, self.comment(repository, number, login, body))

    def _comment_route(self, asked: Asked, repository: str, number: int, login: str | None) -> None:
        for (name, _), thread in self.threads.items():
            for comment in thread.comments if name == repository else ():
                if comment["id"] != number:
                    continue
                if comment["user"]["login"] != login:
                    raise Reply(403, {"message": "Must have admin rights to Repository."})
                if asked.method == "PATCH":
                    comment["body"] = _sound(asked)
                    raise Reply(200, comment)

    def _gist_route(self, asked: Asked, gist: str | None, login: str | None) -> None:
        if login is None and asked.method != "GET":
            raise _unauthorized()
        body = asked.body or {}
        if gist is None and asked.method == "POST":
            self._number += 1
            name = f"{self._number:020x}"
            files = {name: {"content": f["content"]} for name, f in body["files"].items()}
            made = {
                "id": name,
                "html_url": f"{self.url}/gist/{name}",
                "public": body["public"],
                "files": files,
                "owner": {"login": login},
            }
            self.gists[name] = made
            raise Reply(201, made)
        known = self.gists.get(gist or "")
        if known is None:
            raise _missing()
        if asked.method == "DELETE":
            del self.gists[known["id"]]
            raise Reply(204)
        if asked.method == "PATCH":
            for name, content in body["files"].items():
                known["files"].pop(name, None)
                if content is not None:
                    known["files"][name] = {"content": content["content"]}
        raise Reply(200, known)

    def _page(self, path: str, entries: list[Any]) -> tuple[list[Any], dict[str, str]]:
        url = urlsplit(path)
        query = parse_qs(url.query)
        size = min(int(query.get("per_page", ["30"])[0]), self.page_size)
        page = int(query.get("page", ["1"])[0])
        headers = {}
        if page * size < len(entries):
            following = f"{self.url}{url.path}?per_page={size}&page={page + 1}"
            headers["Link"] = f'<{following}>; rel="next"'
        return entries[(page - 1) * size : page * size], headers


def _sound(asked: Asked) -> str:
    body = (asked.body or {}).get("body")
    if not isinstance(body, str) or not body.strip():
        raise Reply(422, {"message": "Validation Failed", "errors": ["body can't be blank"]})
    if len(body) > MOST_CHARACTERS:
        long = {"message": f"body is too long (maximum is {MOST_CHARACTERS} characters)"}
        raise Reply(422, {"message": "Validation Failed", "errors": [long]})
    return body


def _missing() -> Reply:
    return Reply(404, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest"})


def _unauthorized() -> Reply:
    return Reply(401, {"message": "Bad credentials"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, github: GitHubServer) -> None:
        self.github = github
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would look the host's name up
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave in one packet
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _any(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.loads(raw) if raw else None
        reply = self.server.github.answer(Asked(self.command, self.path, headers, body))
        if reply.status in (_CUT, _DRIP, _DRIP_HEAD):
            self.close_connection = True
            if reply.status != _CUT:
                self._drip(in_head=reply.status == _DRIP_HEAD)
            return
        content = reply.body
        if reply.body is not None and not isinstance(reply.body, bytes):
            content = json.dumps(reply.body).encode()
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")
        self.wfile.flush()

    def _drip(self, *, in_head: bool) -> None:
        self.send_response_only(200)
        if in_head:
            self.flush_headers()
            self.wfile.write(b"x-drips: ")
        else:
            self.end_headers()
        with suppress(OSError):
            while not self.server.github.closed.wait(0.05):
                self.wfile.write(b" ")
                self.wfile.flush()

    do_GET = do_POST = do_PATCH = do_DELETE = _any
