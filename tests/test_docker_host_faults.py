"""What every release would meet ends a run at its first trial, with what to do about it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from disks import fill, small_disk
from docker_fixtures import opened
from docker_worlds import ImageWorld, image_world, seen
from driving import Done, counts
from standin.behaviour import Behaviour
from standin.engine import Engine
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
