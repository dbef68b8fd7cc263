"""Runs what the stand-in needs run: servers, each in its own process group, and uv."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from .index import PackageIndex

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    "completions": ("/v1/completions", {"prompt": "hi"}),
    "generate": ("/inference/v1/generate", {"token_ids": [1, 2, 3]}),
}


@dataclass
class Running:
    """A started server: its process, its address, its log."""

    process: subprocess.Popen[bytes]
    base: str
    log_path: Path

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        return self.log_path.read_text()

    def get(self, path: str) -> httpx.Response:
        """GET one of its paths."""
        return httpx.get(self.base + path, timeout=15)

    def ask(self, endpoint: str = "chat", n: int = 4, **extra: Any) -> httpx.Response:
        """Ask for n choices; `extra` goes into the body (into it, not the sampling_params)."""
        path, body = BODIES[endpoint]
        params: dict[str, Any] = {"n": n, "temperature": 0.7, "max_tokens": 4}
        if endpoint == "generate":
            params = {"sampling_params": params}
        body = {"model": "tiny"} | body | params | extra
        return httpx.post(self.base + path, json=body, timeout=15)

    def indices(self, endpoint: str = "chat", n: int = 4) -> list[int]:
        """The indices of the choices that come back when n are asked for."""
        return [choice["index"] for choice in self.ask(endpoint, n).json()["choices"]]

    def ready(self) -> Running:
        """Wait until it is healthy."""
        assert wait(lambda: self.open() and self.get("/health").status_code == 200), self.log
        return self

    def open(self) -> bool:
        """Whether it answers HTTP at all."""
        try:
            self.get("/version")
        except httpx.TransportError:
            return False
        return True

    def engines(self) -> list[int]:
        """The engine processes that it started and that still run."""
        named = {int(pid) for pid in re.findall(r"\(EngineCore pid=(\d+)\)", self.log)}
        return [pid for pid in named if alive(pid) and _is_engine(pid)]


def wait(condition: Callable[[], object], seconds: float = 15.0) -> bool:
    """Whether `condition` came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _is_engine(pid: int) -> bool:
    # The number may have been given to a stranger since the log was written.
    with contextlib.suppress(OSError):
        return b"VLLM::EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class Servers:
    """Starts servers inside its `with` block and kills what is left of them at the end."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[Running] = []

    def __enter__(self) -> Servers:
        """Nothing runs yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill every server's process group, and engines that left it."""
        for running in self._started:
            for pid in running.engines():
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()

    def start(self, *command: str | Path, env: dict[str, str] | None = None) -> Running:
        """Start `command` (it ends in `serve MODEL …`) on a free port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        line = [*map(str, command), "--port", str(port)]
        line += ["--host", "127.0.0.1", "--served-model-name", "tiny"]
        log_path = self._logs / f"server-{len(self._started)}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                line, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, process_group=0
            )
        self._started.append(Running(process, f"http://127.0.0.1:{port}", log_path))
        return self._started[-1]


@dataclass
class Environment:
    """A virtual environment that uv made."""

    root: Path
    env: dict[str, str]

    def uv(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run uv with this environment's settings and caches."""
        return subprocess.run(
            [str(UV), *arguments], env=self.env, capture_output=True, text=True, timeout=60
        )

    def install(self, index: PackageIndex, *arguments: str) -> str:
        """Install from an index; what uv said."""
        done = self.uv(
            "pip", "install", "--python", str(self.root), "--index-url", index.url, *arguments
        )
        assert done.returncode == 0, done.stderr
        return done.stderr
