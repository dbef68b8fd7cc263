"""Whatever is wrong with a server in a container: the right typed reason, and it is removed."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from docker_worlds import ImageWorld, image_world
from driving import Done, Started, counts
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.engine import Engine, GivenEngine
from standin.images import LIFE_SECONDS, PATH, SERVE, _layer
from standin.registry import Layer, LocalRegistry

QUICK = ("--confidence", "0.6", "--sweep")
BAD = Behaviour(fail_rate={"chat": 1.0}, spawn_engine=True)
GOOD = Behaviour(spawn_engine=True, engine_own_session=True)
TOKEN = "hf_" + "aB3" * 10

LAST_LINE = "KeyError: 'model.layers.0.weight'"
CRASHING = ("crash_on_request", "ready_then_exit")
"""A crash may have any cause: its release is booted again before it is a skip."""

UNKNOWN = "unknown_argument"
FAULTS = {
    "exit_before_ready": ("exited before ready", f"exit status 3: {LAST_LINE}"),
    UNKNOWN: ("argument not known", "unrecognized arguments: --no-such"),
    "crash_on_request": ("different failure", "the server died on the request (exit status 3)"),
    "ready_then_exit": ("different failure", "the server died on the request (exit status 3)"),
    "wrong_version": ("wrong version", "the server reports version 9.9.9, not 51.5"),
}
SILENT = {
    "hang": ("never ready", "silent for 5 s; the last words were: the log is empty"),
    "port_never_opened": ("never ready", "silent for 5 s; the last words were: "),
}
STARVED = {
    "oom_before_ready": ("not enough memory", "the kernel ran out of memory for it (signal 9)"),
    "oom_on_request": ("not enough memory", "by the kernel, which ran out of memory"),
}
# Each group is one run, major version and extra options first; all of them run side by side.
GROUPS: dict[int, tuple[tuple[str, ...], dict[str, tuple[str, str]]]] = {
    51: (("--serve-arg", "--no-such; ==51.2"), FAULTS),
    52: (("--boot-timeout", "5"), SILENT),
    53: (("--memory", "128MB"), STARVED),
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
                fault="none" if fault == UNKNOWN else fault,
                fault_log=LAST_LINE,
                fault_exit=3,
                spawn_engine=True,
                # late enough for the request to be on its way when the server exits
                exit_after_seconds=1.5,
                request_seconds=4.0 if fault == "ready_then_exit" else 0.0,
            )
    return found


@pytest.fixture(scope="module")
def faulty(
    tmp_path_factory: pytest.TempPathFactory, registry: LocalRegistry, engine: Engine | GivenEngine
) -> Iterator[ImageWorld]:
    """All of them."""
    with image_world(tmp_path_factory.mktemp("faults"), registry, engine, releases()) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def sweeping(faulty: ImageWorld) -> dict[int, Started]:
    """A sweep over each group by major version: they mostly wait, so all run beside the tests."""
    return {
        major: faulty.vbisect.start(*faulty.words(f"{major}.0", f"{major}.99", *QUICK, *options))
        for major, (options, _) in GROUPS.items()
    }


@pytest.fixture(scope="module")
def swept(sweeping: dict[int, Started]) -> dict[int, Done]:
    """The sweeps once they have ended."""
    return {major: started.end(120) for major, started in sweeping.items()}


def test_a_crash_in_a_container_can_be_the_bug(
    tmp_path: Path, registry: LocalRegistry, engine: Engine | GivenEngine
) -> None:
    crash = Behaviour(fault="crash_on_request", fault_log="AssertionError: the bug", fault_exit=3)
    known = {"50.0": crash, "50.1": Behaviour()}
    with image_world(tmp_path, registry, engine, known) as made:
        done = made.vbisect.run(*made.words("50.0", "50.1", "--confidence", "0.6"))
        assert done.returncode == 0, done.stderr
        assert done.json["answer"]["first_after"] == "50.1"
        trial = done.trials["50.0"]
        assert (trial["outcome"], trial["failure_kind"]) == ("fail", "crashed")
        assert trial["signature"] == "the server died on the request (exit status 3)"
        assert any("died while it was being probed" in note for note in trial["notes"])


FLOOD_LINES, FLOOD_BYTES = 3, 10_000_000
FLOODING = f"""#!/usr/bin/python3
import itertools, os, threading, time
from vllm.standin_server import main

def put(data):
    while data:
        data = data[os.write(2, data):]

unit = b"x" * 1000 + b"\\xff\\xfe {TOKEN} "
for number in range({FLOOD_LINES}):
    line = unit * ({FLOOD_BYTES} // len(unit))
    put(b"flood %d begins " % number + line + b"flood %d ends\\n" % number)

def drip():
    for number in itertools.count():
        put(b"drip %d %s\\n" % (number, b"y" * 8000))
        time.sleep(0.002)

threading.Thread(target=drip, daemon=True).start()
main()
"""


def push_flooding(made: ImageWorld, version: str, behaviour: Behaviour) -> None:
    """Put an image in place of a release's whose server never stops to write."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("usr/local/bin/vllm")
        member.size, member.mode = len(FLOODING), 0o755
        archive.addfile(member, io.BytesIO(FLOODING.encode()))
    inside = replace(behaviour, honours_host=True, max_seconds=LIFE_SECONDS)
    made.images.registry.push_image(
        made.images.repository,
        [f"v{version}"],
        [base_layer(), _layer(version, inside, 0), Layer(gzip.compress(packed.getvalue()))],
        {"Entrypoint": SERVE, "Env": [f"PATH={PATH}"]},
        architecture="amd64",
        created="2026-11-20T00:00:00Z",
    )


def test_a_flooded_log_is_kept_whole_and_without_secrets(
    tmp_path: Path, registry: LocalRegistry, engine: Engine | GivenEngine
) -> None:
    with image_world(tmp_path, registry, engine, {"54.0": BAD, "54.1": GOOD}) as made:
        for version, behaviour in (("54.0", BAD), ("54.1", GOOD)):
            push_flooding(made, version, behaviour)
        done = made.vbisect.run(*made.words("54.0", "54.1", "--confidence", "0.6"))
        assert done.returncode == 0, done.stderr
        assert done.json["answer"]["first_after"] == "54.1"
        for version in ("54.0", "54.1"):
            log = (done.run_dir / "trials" / version / "server.log").read_bytes()
            assert log.startswith(b"flood 0 begins x")
            for number in range(FLOOD_LINES):
                begin, end = log.index(b"flood %d begins" % number), b"flood %d ends\n" % number
                assert log.index(end) - begin > 0.95 * FLOOD_BYTES
            assert b"vLLM API server version" in log
            assert TOKEN[:19].encode() not in log
            assert log.count(b"<secret>") == FLOOD_LINES * (FLOOD_BYTES // (1000 + 4 + len(TOKEN)))
            drips = [int(number) for number in re.findall(rb"drip (\d+) y", log)]
            assert drips == list(range(len(drips)))
            assert len(drips) > 10
        assert TOKEN not in done.stdout + done.stderr


def trial_of(swept: dict[int, Done], version: str) -> dict[str, Any]:
    done = swept[int(version.partition(".")[0])]
    assert done.returncode == 3, done.stderr  # the skips leave suspects
    return done.trials[version]


@pytest.mark.parametrize("fault", [*FAULTS, *SILENT, *STARVED])
def test_a_fault_in_a_container_is_a_typed_skip(swept: dict[int, Done], fault: str) -> None:
    version = version_of(fault)
    reason, detail = GROUPS[int(version.partition(".")[0])][1][fault]
    trial = trial_of(swept, version)
    assert (trial["outcome"], trial["reason"]) == ("skip", reason)
    assert detail in trial["detail"]
    assert trial["advice"]
    assert trial["build"]["kind"] == "image"


@pytest.mark.parametrize("fault", [*FAULTS, *SILENT, *STARVED])
def test_the_log_is_kept_from_its_first_byte(swept: dict[int, Done], fault: str) -> None:
    version = version_of(fault)
    done = swept[int(version.partition(".")[0])]
    log = (done.run_dir / "trials" / version / "server.log").read_text()
    if fault == "hang":
        assert log == ""
    elif fault == UNKNOWN:
        assert log.startswith("usage: vllm")
    else:
        # the engine joins what goes to stdout and to stderr as it likes
        assert f"vLLM API server version {version}" in log
        served = fault not in ("exit_before_ready", "oom_before_ready")
        assert ("Started server process [1]" in log) == served


def test_the_ends_are_right_and_skips_are_no_answer(swept: dict[int, Done]) -> None:
    for major, done in swept.items():
        outcomes = {version: trial["outcome"] for version, trial in done.trials.items()}
        assert (outcomes[f"{major}.0"], outcomes[f"{major}.99"]) == ("fail", "pass")
        assert not done.json["answer"]["exact"]
        assert len(done.json["answer"]["suspects"]) == len(done.json["candidates"]) - 1
        crashing = {version_of(fault) for fault in CRASHING}
        started = counts(done.run_dir, "trial_started")
        low, *inner, high = done.json["candidates"]
        assert {v: started[v] for v in inner} == {v: 1 + (v in crashing) for v in inner}
        # few releases say little of either side: those beside the change are booted again
        assert {started[low], started[high]} <= {1, 2, 3, 4}


def test_no_container_is_left(swept: dict[int, Done], faulty: ImageWorld) -> None:
    assert swept
    assert faulty.containers() == []
