"""What every release would meet ends a run at its first trial, with what to do about it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from disks import fill, small_disk
from docker_fixtures import opened
from docker_worlds import ImageWorld, image_world, seen
from driving import Done, counts
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.engine import PATH, Engine, GivenEngine
from standin.registry import LocalRegistry

RELEASES = {
    "87.0": Behaviour(fail_rate={"chat": 1.0}, request_seconds=0.5),
    "87.1": Behaviour(),
    "87.2": Behaviour(),
}
RUN = ("87.0", "87.2", "--confidence", "0.8")  # one boot of each


def stopped_at_once(done: Done) -> str:
    """What it said when it stopped in its first trial; nothing was skipped."""
    assert (done.returncode, done.json["status"]) == (4, "failed")
    assert counts(done.run_dir, "trial_started") == {"87.0": 1}
    assert counts(done.run_dir, "trial_finished") == {}
    assert "Traceback" not in done.stderr
    message: str = done.json["message"]
    return message


@pytest.fixture
def lone(tmp_path: Path, registry: LocalRegistry, own_engine: Engine) -> Iterator[ImageWorld]:
    """The releases, over an engine that may be damaged."""
    with image_world(tmp_path, registry, own_engine, RELEASES) as made:
        yield made


def test_an_engine_that_can_run_no_release_is_told_of_once(
    lone: ImageWorld, own_engine: Engine
) -> None:
    """And it says what to do; then every release is still to be tested."""
    with contextlib.closing(own_engine.client()) as client:
        gpus = "nvidia" in client.info()["Runtimes"]
    if not gpus:
        words = lone.words(*RUN, "--gpus", "all", "--device", "cuda", "--json")
        done = lone.vbisect("run", *words, "--results", lone.vbisect.results)
        message = stopped_at_once(done)
        assert 'could not select device driver "" with capabilities: [[gpu]]' in message
        assert "install the NVIDIA container toolkit" in message
        assert "--gpus none --device cpu" in message
    message = stopped_at_once(lone.vbisect.run(*lone.words(*RUN), HOME="/proc/nowhere"))
    assert "error while creating mount source path" in message
    assert "see that what it is in is there and that the engine may write to it" in message
    subprocess.run(["ip", "link", "delete", own_engine.bridge], check=True)
    message = stopped_at_once(lone.vbisect.run(*lone.words(*RUN)))
    assert "failed to create endpoint" in message
    assert "restart the engine, then resume the run" in message
    assert lone.containers() == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    if os.environ.get("VBISECT_TEST_DOCKER_HOST"):
        pytest.skip("the given engine has its own disk")
    with small_disk(tmp_path / "disk", "200m") as place:
        yield place


def test_a_full_disk_stops_the_run_resumably(
    tmp_path: Path, registry: LocalRegistry, disk: Path
) -> None:
    with (
        opened(Engine(f"--data-root={disk}")) as engine,
        image_world(tmp_path, registry, engine, RELEASES) as made,
    ):
        filler = fill(disk, leaving=20 << 20)
        words = made.words(*RUN, "--disk-budget", "100GB")
        message = stopped_at_once(made.vbisect.run(*words))  # while it pulls
        assert "no space left on device" in message
        assert "lower --disk-budget" in message
        filler.unlink()

        started = made.vbisect.start(*made.words(*RUN))
        run_dir = started.until(seen("server_ready", "87.0"))
        fill(disk)  # while a server runs
        done = started.end()
        assert (done.returncode, done.json["status"]) == (4, "failed")
        assert "no space left on device" in done.json["message"]
        assert "Free disk space on the engine's host" in done.json["message"]
        assert counts(run_dir, "trial_finished") == {"87.0": 1}
        assert counts(run_dir, "trial_started") == {"87.0": 1, "87.2": 1}
        filler.unlink()
        done = made.vbisect.resume(run_dir)
        assert done.returncode == 0, done.stderr
        assert done.json["answer"]["first_after"] == "87.1"
        assert counts(run_dir, "trial_finished") == dict.fromkeys(RELEASES, 1)


NR_OPEN = Path("/proc/sys/fs/nr_open")
CANNOT_START = {
    "a runtime that is missing": (
        ("--add-runtime=broken=/nonexistent/runc", "--default-runtime=broken"),
        "fork/exec /nonexistent/runc: no such file or directory",
    ),
    "a limit that nobody may have": (
        ("--default-ulimit=nofile={0}:{0}",),
        "error setting rlimit type 7: operation not permitted",
    ),
}


@pytest.mark.parametrize("fault", CANNOT_START)
def test_an_engine_that_can_start_nothing_is_told_of_after_two_releases(
    tmp_path: Path, registry: LocalRegistry, fault: str
) -> None:
    """In the engine's own words; once it is mended the run goes on."""
    if os.environ.get("VBISECT_TEST_DOCKER_HOST"):
        pytest.skip("the given engine has its own settings")
    arguments, words = CANNOT_START[fault]
    too_many = int(NR_OPEN.read_text()) + 1
    with (
        opened(Engine(*(word.format(too_many) for word in arguments))) as engine,
        image_world(tmp_path, registry, engine, RELEASES) as made,
    ):
        done = made.vbisect.run(*made.words(*RUN))
        assert (done.returncode, done.json["status"]) == (4, "failed"), done.stderr
        assert counts(done.run_dir, "trial_finished") == {"87.0": 1, "87.2": 1}
        assert "87.0 and 87.2 were skipped for the same reason" in done.json["message"]
        assert words in done.json["message"]
        assert "Mend what the engine's words name on its host" in done.json["message"]
        assert {t["reason"] for t in done.json["trials"]} == {"not started by the engine"}
        assert "the end of its log" not in (done.run_dir / "report.md").read_text()
        assert made.containers() == []
        engine.stop()
        engine.arguments = ()
        engine.start()
        done = made.vbisect.resume(done.run_dir)
        assert done.returncode == 0, done.stderr
        assert done.json["answer"]["first_after"] == "87.1"


RUNC = """#!/bin/sh
# as one whose profile was changed under a running engine
if [ -e "$(dirname "$0")/broken" ]; then
  for word; do
    [ "$word" != create ] || {{ echo "runc: apparmor/exec: permission denied" >&2; exit 1; }}
  done
fi
exec {runc} "$@"
"""


def test_an_engine_that_can_start_nothing_any_more_stops_the_run(
    tmp_path: Path, registry: LocalRegistry
) -> None:
    """What it started before is no reason to skip everything after."""
    if os.environ.get("VBISECT_TEST_DOCKER_HOST"):
        pytest.skip("the given engine has its own runtime")
    runc = tmp_path / "runc"
    runc.write_text(RUNC.format(runc=shutil.which("runc", path=PATH)))
    runc.chmod(0o755)
    own = (f"--add-runtime=changing={runc}", "--default-runtime=changing")
    with (
        opened(Engine(*own)) as engine,
        image_world(tmp_path / "world", registry, engine, RELEASES) as made,
    ):
        started = made.vbisect.start(*made.words(*RUN))
        run_dir = started.until(seen("server_ready", "87.0"))
        (tmp_path / "broken").touch()
        done = started.end()
        assert (done.returncode, done.json["status"]) == (4, "failed"), done.stderr
        assert counts(run_dir, "trial_finished") == {"87.0": 1, "87.2": 1, "87.1": 1}
        assert "Nothing more can be tested: 87.2 and 87.1" in done.json["message"]
        (tmp_path / "broken").unlink()
        done = made.vbisect.resume(run_dir)
        assert done.returncode == 0, done.stderr
        assert done.json["answer"]["first_after"] == "87.1"


def test_images_that_cannot_be_started_are_no_fault_of_the_engine(
    tmp_path: Path, registry: LocalRegistry, engine: Engine | GivenEngine
) -> None:
    """Two of them are two skips."""
    known = {
        "86.0": Behaviour(fail_rate={"chat": 1.0}),
        **dict.fromkeys(("86.1", "86.2"), Behaviour()),
        "86.3": Behaviour(),
    }
    with image_world(tmp_path, registry, engine, known) as made:
        for version in ("86.1", "86.2"):
            config = {"Labels": {"version": version}}
            registry.push_image(made.images.repository, [f"v{version}"], [base_layer()], config)
        done = made.vbisect.run(*made.words("86.0", "86.3", "--confidence", "0.8"))
        assert done.returncode == 3, done.stderr
        for version in ("86.1", "86.2"):
            trial = done.trials[version]
            assert (trial["outcome"], trial["reason"]) == ("skip", "image cannot be started")
            assert 'exec: "vllm": executable file not found' in trial["detail"]
