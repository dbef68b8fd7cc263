"""What a server is started with, and ends that come just as it gets ready: by real processes."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vbisect.errors import EngineLost
from vbisect.launch import LaunchSpec, Server, launch_process
from vbisect.reasons import SkipReason, Untestable

SERVER = f"""#!{sys.executable} -I
import http.server, json, os, signal, subprocess, sys

ends_at, ends = os.environ.get("ENDS_AT"), os.environ.get("ENDS")
ANSWERS = {{
    "/health": {{}},
    "/v1/models": {{"data": [{{"id": "m"}}]}},
    "/version": {{"version": "1.0"}},
}}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == ends_at:
            os.kill(os.getppid() if ends == "guard" else os.getpid(), signal.SIGKILL)
            signal.pause()
        body = json.dumps(ANSWERS[self.path]).encode()
        self.send_response(404 if self.path == os.environ.get("LACKS") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


subprocess.run([{sys.executable!r}, "-c", "import multiprocessing.spawn"], check=True)
print("ENVIRONMENT", json.dumps(dict(os.environ)), flush=True)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
Launch = Callable[..., Server]


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Starts the server once, and ends it."""
    vllm = tmp_path / "environment" / "bin" / "vllm"
    vllm.parent.mkdir(parents=True)
    vllm.write_text(SERVER)
    vllm.chmod(0o755)
    (tmp_path / "run" / "trial").mkdir(parents=True)

    def started(**environment: str) -> Server:
        spec = LaunchSpec(
            version="1.0",
            model="m",
            arguments=(),
            environment=environment,
            boot_timeout=60,
            log=tmp_path / "run" / "trial" / "server.log",
            owner=tmp_path / "run",
        )
        with launch_process(spec, vllm, "1.0", threading.Event()) as server:
            return server

    return started


def test_a_server_takes_no_module_from_the_results(launch: Launch, tmp_path: Path) -> None:
    """They may have been sent by anybody, and what vLLM starts with -c imports from there."""
    planted, executed = tmp_path / "run" / "trial" / "multiprocessing.py", tmp_path / "executed"
    planted.write_text(f"open({str(executed)!r}, 'w')\n")
    assert launch().reported_version == "1.0"
    assert not executed.exists()


@pytest.mark.parametrize("moment", ["/v1/models", "/version"])
def test_a_server_that_is_killed_as_it_gets_ready_was_killed(launch: Launch, moment: str) -> None:
    """It no longer says which version it is, which is not another version."""
    with pytest.raises(Untestable) as failed:
        launch(ENDS_AT=moment)
    assert failed.value.reason is SkipReason.KILLED


def test_a_guard_that_is_lost_as_its_server_gets_ready_is_lost(launch: Launch) -> None:
    """Which says nothing of the release."""
    with pytest.raises(EngineLost, match="guard of vllm was killed"):
        launch(ENDS_AT="/version", ENDS="guard")


def test_a_server_that_lives_and_tells_no_version_is_the_wrong_one(launch: Launch) -> None:
    """Its end is not waited for."""
    with pytest.raises(Untestable, match="/version gave no version") as failed:
        launch(LACKS="/version")
    assert failed.value.reason is SkipReason.WRONG_VERSION


def environment_of(log: Path) -> dict[str, str]:
    """The environment that the last server told of."""
    [*_, line] = [line for line in log.read_text().splitlines() if line.startswith("ENVIRONMENT")]
    found: dict[str, str] = json.loads(line.partition(" ")[2])
    return found


def test_variables_of_vllm_come_with_the_settings_alone(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment has now may be another than when the run began."""
    monkeypatch.setenv("VLLM_USE_V1", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    launch(VLLM_LOGGING_LEVEL="DEBUG")
    told = environment_of(tmp_path / "run" / "trial" / "server.log")
    of_vllm = {name: value for name, value in told.items() if name.startswith("VLLM_")}
    cache = str(tmp_path / "environment" / "cache" / "vllm")
    assert of_vllm == {
        "VLLM_LOGGING_LEVEL": "DEBUG",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": cache,
    }
    assert told["HF_HUB_OFFLINE"] == "1"


def test_what_servers_cache_is_of_their_build_unless_its_user_says_where(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment says now comes with the settings, as that of any variable of vLLM."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/kernels")
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    launch(VLLM_CACHE_ROOT="/elsewhere")
    told = environment_of(tmp_path / "run" / "trial" / "server.log")
    assert told["VLLM_CACHE_ROOT"] == "/elsewhere"
    assert told["TORCHINDUCTOR_CACHE_DIR"] == "/kernels"
    assert "TORCHDYNAMO_DISABLE" not in told
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    launch(TORCHDYNAMO_DISABLE="0")
    told = environment_of(tmp_path / "run" / "trial" / "server.log")
    assert told["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "environment" / "cache" / "inductor")
    assert told["TORCHDYNAMO_DISABLE"] == "0"


def test_a_server_reaches_its_own_processes_without_a_proxy(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever proxies its user has."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "hub.example, localhost")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    launch()
    told = environment_of(tmp_path / "run" / "trial" / "server.log")
    assert told["https_proxy"] == "http://proxy.example:3128"
    assert told["NO_PROXY"] == told["no_proxy"] == "hub.example,localhost,127.0.0.1,::1"
