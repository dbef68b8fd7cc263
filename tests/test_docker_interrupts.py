"""Stop or kill vbisect while containers run: nothing is lost, and nobody else is disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from docker_worlds import ImageWorld, image_world, noted, pulling, seen
from driving import Done, Started, counts, events
from standin.behaviour import Behaviour
from standin.engine import Engine, GivenEngine
from standin.proxy import RegistryProxy
from standin.registry import LocalRegistry
from standin.running import wait
from vbisect.engine.leftovers import owner_labels
from vbisect.locks import file_lock

BAD = Behaviour(fail_rate={"chat": 1.0}, request_seconds=0.5)
GOOD = Behaviour(request_seconds=0.5)
SLOW = Behaviour(boot_seconds=2.0, request_seconds=0.5)
# The ends come first, 86.2 is the second to be tested, 86.1 the last.
RELEASES = {"86.0": BAD, "86.1": GOOD, "86.2": SLOW}
TESTED = {"86.0": 1, "86.1": 1, "86.2": 1}
RUN = ("--confidence", "0.8")  # one boot of each
PASSES, FAILS = 3, 5
PULL_SECONDS = 10.0


@pytest.fixture
def made(
    tmp_path: Path, registry: LocalRegistry, engine: Engine | GivenEngine
) -> Iterator[ImageWorld]:
    """The releases; each image has something that no other has."""
    with image_world(tmp_path, registry, engine, RELEASES, padding_bytes=4_000_000) as world:
        yield world


def right(done: Done) -> None:
    """The answer of an undisturbed run, from observations that were made once each."""
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("86.0", "86.1")
    assert answer["exact"]
    assert counts(done.run_dir, "trial_finished") == TESTED
    made = counts(done.run_dir, "observation")
    for version, trial in done.trials.items():
        assert sum(trial["observations"].values()) == made[version]
    # what an interruption cut short is a boot of its own
    last = {v: t["boots"][-1] for v, t in done.trials.items()}
    passed = {"pass": PASSES, "fail": 0, "other": 0}
    assert last == {
        "86.0": {"pass": 0, "fail": FAILS, "other": 0},
        "86.1": passed,
        "86.2": passed,
    }


def resumed(made: ImageWorld, run_dir: Path) -> Started:
    """The run, gone on with in the background."""
    return made.vbisect.launch("run", "--resume", run_dir, "--json")


def boots(run_dir: Path, version: str) -> bool:
    """Whether the server of a version has begun to log."""
    log = run_dir / "trials" / version / "server.log"
    return log.exists() and log.stat().st_size > 0


def interrupt(started: Started, number: int, times: int = 1) -> Done:
    """Send a signal, as a terminal or a service manager does it."""
    for _ in range(times):
        if number == signal.SIGINT:
            os.killpg(started.process.pid, number)
        else:
            started.process.send_signal(number)
        time.sleep(0.1)
    return started.end(20)


def gone(made: ImageWorld, proxy: RegistryProxy) -> None:
    """No container is left, nothing is pulled any more."""
    assert made.containers() == []
    assert wait(lambda: all(e.ended is not None for e in proxy.seen(kind="blob")), 10)


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)]
)
def test_a_signal_interrupts_resumably(
    made: ImageWorld, proxy: RegistryProxy, first: int, second: int
) -> None:
    proxy.rate_total = 4_000_000 / PULL_SECONDS
    started = made.vbisect.start(*made.words("86.0", "86.2", *RUN, host=proxy.host))
    run_dir = started.run_dir
    assert wait(lambda: pulling(proxy), 30)
    done = interrupt(started, first)
    assert (done.returncode, done.json["status"]) == (130, "interrupted")
    gone(made, proxy)
    assert any(e.closed_early for e in proxy.seen(kind="blob"))
    proxy.heal()

    started = resumed(made, run_dir)
    assert wait(lambda: boots(run_dir, "86.2"), 30)
    done = interrupt(started, second)
    assert (done.returncode, done.json["status"]) == (130, "interrupted")
    assert set(done.trials) == {"86.0"}
    gone(made, proxy)

    started = resumed(made, run_dir)
    assert wait(lambda: seen("observation", "86.2")(events(run_dir)), 30)
    done = interrupt(started, first, times=2)  # impatiently
    assert (done.returncode, done.json["status"]) == (130, "interrupted")
    assert "Traceback" not in done.stderr
    gone(made, proxy)

    done = made.vbisect.resume(run_dir)
    right(done)
    assert counts(run_dir, "trial_started") == Counter({"86.0": 2, "86.1": 1, "86.2": 3})
    assert made.containers() == []


def test_killed_at_every_step(made: ImageWorld, proxy: RegistryProxy) -> None:
    proxy.rate_total = 4_000_000 / PULL_SECONDS
    started = made.vbisect.start(*made.words("86.0", "86.2", *RUN, host=proxy.host))
    run_dir = started.run_dir
    assert wait(lambda: pulling(proxy), 30)
    started.kill()
    gone(made, proxy)  # the engine has given the pull up
    assert any(e.closed_early for e in proxy.seen(kind="blob"))
    proxy.heal()

    started = resumed(made, run_dir)
    assert wait(lambda: boots(run_dir, "86.2"), 30)
    started.kill()
    [left] = made.containers()
    assert left.labels["vbisect.version"] == "86.2"
    assert left.status == "running"
    other = made.vbisect.start(*made.words("86.0", "86.1", *RUN))
    other.until(noted("1 leftovers of a killed run were ended."))
    assert left.id not in [container.id for container in made.containers()]
    done = other.end()
    assert done.returncode == 0, done.stderr

    started = resumed(made, run_dir)
    assert wait(lambda: seen("observation", "86.2")(events(run_dir)), 30)
    started.kill()
    assert len(made.containers()) == 1
    done = made.vbisect.resume(run_dir)
    right(done)
    assert "1 leftovers of a killed run were ended." in done.json["notes"]
    assert counts(run_dir, "trial_started") == Counter({"86.0": 2, "86.1": 1, "86.2": 3})
    assert made.containers() == []


def test_two_runs_at_once_do_not_disturb_each_other(made: ImageWorld) -> None:
    """They pull the same images, and each finds what a third run left behind."""
    third = made.vbisect.start(*made.words("86.0", "86.2", *RUN))
    third.until(seen("server_ready", "86.0"))
    third.kill()
    assert len(made.containers()) == 1
    both = [made.vbisect.start(*made.words("86.0", "86.2", *RUN)) for _ in range(2)]
    for done in (started.end() for started in both):
        right(done)
        assert counts(done.run_dir, "trial_started") == TESTED
    assert made.containers() == []


def remove(container: Any) -> None:
    """Remove a container that may be gone already."""
    with contextlib.suppress(docker.errors.NotFound):
        container.remove(force=True)


def test_containers_of_others_are_left_alone(made: ImageWorld, tmp_path: Path) -> None:
    alive, dead = tmp_path / "alive", tmp_path / "dead"
    unreadable = Path("/" + "x" * 5000)  # it cannot be told what is there
    for folder in (alive, dead):
        folder.mkdir()
        (folder / "lock").touch()
    labels: dict[str, dict[str, str]] = {
        "nobody": {},
        "stranger": {"com.example": "1"},
        "elsewhere": owner_labels(tmp_path / "gone") | {"vbisect.machine": "0123456789abcdef"},
        "unnamed": {"vbisect.run": "r"},
        "alive": owner_labels(alive),
        "unreadable": owner_labels(unreadable),
        "dead": owner_labels(dead),
        "gone": owner_labels(tmp_path / "gone"),
    }
    with contextlib.closing(made.engine.client()) as client, contextlib.ExitStack() as stack:
        image = client.images.pull(made.images.reference("v86.0"))
        left: dict[str, Any] = {}
        for name, given in labels.items():
            left[name] = client.containers.create(image.id, labels=given)
            stack.callback(remove, left[name])
        stack.enter_context(file_lock(alive / "lock"))
        done = made.vbisect.run(*made.words("86.0", "86.1", *RUN))
        assert done.returncode == 0, done.stderr
        assert "2 leftovers of a killed run were ended." in done.json["notes"]
        there = {container.id for container in client.containers.list(all=True)}
        kept = {name for name, container in left.items() if container.id in there}
        assert kept == set(labels) - {"dead", "gone"}
