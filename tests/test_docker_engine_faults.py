"""An engine that dies is waited for, or the run stops resumably; nothing recorded is lost."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from docker_worlds import ImageWorld, image_world, noted, pulling, seen
from driving import Done, counts, events
from standin.behaviour import Behaviour
from standin.engine import Engine
from standin.proxy import RegistryProxy
from standin.registry import LocalRegistry
from standin.running import wait
from vbisect.search.requests import STEADY_FAILURES, end_passes_needed, passes_needed

BAD = Behaviour(fail_rate={"chat": 1.0}, request_seconds=0.5)
GOOD = Behaviour(request_seconds=0.5)
SLOW = Behaviour(boot_seconds=3.0, request_seconds=0.5)
# The ends come first, 85.2 is the second to be tested, 85.1 the last.
RELEASES = {"85.0": BAD, "85.1": SLOW, "85.2": GOOD}
TESTED = {"85.0": 1, "85.1": 1, "85.2": 1}
RUN = ("--confidence", "0.8")  # one boot of each
PASSES, END_PASSES, FAILS = passes_needed(0.8), end_passes_needed(0.8), STEADY_FAILURES


@pytest.fixture
def lone(tmp_path: Path, registry: LocalRegistry, own_engine: Engine) -> Iterator[ImageWorld]:
    """The releases, over an engine that may be killed."""
    with image_world(tmp_path, registry, own_engine, RELEASES) as made:
        yield made


def boots(engine: Engine) -> bool:
    """Whether a container of a run runs."""
    with contextlib.closing(engine.client()) as client:
        return bool(client.containers.list(filters={"label": "vbisect.run"}, ignore_removed=True))


def right(done: Done) -> None:
    """The answer of an undisturbed run, from observations that were made once each."""
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("85.0", "85.1")
    assert answer["exact"]
    assert {v: t["outcome"] for v, t in done.trials.items()} == {
        "85.0": "fail",
        "85.1": "pass",
        "85.2": "pass",
    }
    assert counts(done.run_dir, "trial_finished") == TESTED
    for version, times in counts(done.run_dir, "observation").items():
        assert sum(done.trials[version]["observations"].values()) == times
    # what an interruption cut short is a boot of its own
    last = {v: t["boots"][-1] for v, t in done.trials.items()}
    assert last["85.0"] == {"pass": 0, "fail": FAILS, "other": 0}
    assert last["85.1"] == {"pass": PASSES, "fail": 0, "other": 0}
    # an end that passes is asked more often, unless the other is known to fail
    assert last["85.2"]["pass"] in (PASSES, END_PASSES)
    assert last["85.2"]["fail"] == last["85.2"]["other"] == 0


def test_a_killed_engine_is_waited_for(
    lone: ImageWorld, own_engine: Engine, proxy: RegistryProxy
) -> None:
    proxy.rate_total = 500_000
    started = lone.vbisect.start(*lone.words("85.0", "85.2", *RUN, host=proxy.host))
    run_dir = started.run_dir
    assert wait(lambda: pulling(proxy), 30)
    own_engine.kill()
    started.until(noted("The trial of 85.0 begins again once it is back."))
    proxy.heal()
    time.sleep(1)
    own_engine.start()
    started.until(seen("observation", "85.2"))  # while it is probed
    own_engine.kill()
    started.until(noted("The trial of 85.2 begins again once it is back."))
    own_engine.start()
    started.until(seen("build_ready", "85.1"))
    assert wait(lambda: boots(own_engine), 30)  # while it boots
    own_engine.kill()
    started.until(noted("The trial of 85.1 begins again once it is back."))
    own_engine.start()
    done = started.end()
    right(done)
    assert counts(run_dir, "trial_started") == dict.fromkeys(TESTED, 2)
    assert counts(run_dir, "server_ready") == {"85.0": 1, "85.1": 1, "85.2": 2}
    assert "are from before an interruption" in done.trials["85.2"]["notes"][0]
    assert done.stderr.count("stopped answering") == 3
    assert "vbisect: the engine is back" in done.stderr
    assert lone.containers() == []


def test_an_engine_that_is_restarted_in_order_is_no_crash(
    lone: ImageWorld, own_engine: Engine
) -> None:
    """It ends the containers: a server that dies of that has not failed."""
    started = lone.vbisect.start(*lone.words("85.0", "85.2", *RUN))
    run_dir = started.until(seen("observation", "85.0"))
    own_engine.stop()
    own_engine.start()
    started.until(seen("build_ready", "85.1"))
    log = run_dir / "trials" / "85.1" / "server.log"
    assert wait(lambda: log.exists() and log.stat().st_size, 30)  # while it boots
    own_engine.stop()
    own_engine.start()
    done = started.end()
    right(done)
    assert counts(run_dir, "trial_started") == {"85.0": 2, "85.1": 2, "85.2": 1}
    assert lone.containers() == []


def test_an_engine_that_stays_away_stops_the_run_resumably(
    lone: ImageWorld, own_engine: Engine
) -> None:
    started = lone.vbisect.start(*lone.words("85.0", "85.2", *RUN), VBISECT_ENGINE_WAIT="2")
    run_dir = started.until(seen("observation", "85.2"))
    own_engine.kill()
    done = started.end()
    assert (done.returncode, done.json["status"]) == (4, "failed")
    assert "did not come back within 2 s: start it, then resume the run" in done.json["message"]
    before = events(run_dir)
    again = lone.vbisect.resume(run_dir)
    assert again.returncode == 4
    assert "No Docker engine answers at" in again.json["message"]
    own_engine.start()
    assert len(lone.containers()) == 1  # nobody could remove it
    done = lone.vbisect.resume(run_dir)
    right(done)
    assert events(run_dir)[: len(before)] == before
    assert counts(run_dir, "trial_started") == {"85.0": 1, "85.1": 1, "85.2": 2}
    assert any("leftovers of a killed run" in note for note in done.json["notes"])
    assert lone.containers() == []


def test_what_somebody_takes_away_is_had_again(lone: ImageWorld, own_engine: Engine) -> None:
    started = lone.vbisect.start(*lone.words("85.0", "85.2", *RUN))
    started.until(seen("server_ready", "85.0"))
    repository = f"{lone.images.registry.host}/{lone.images.repository}"
    ahead = {f"{repository}@{lone.images.digests[tag]}" for tag in ("v85.1", "v85.2")}
    with contextlib.closing(own_engine.client()) as client:

        def removed() -> bool:
            for name in list(ahead):  # fetched ahead by now, and not yet started
                with contextlib.suppress(docker.errors.APIError):
                    client.images.remove(name)
                    ahead.remove(name)
            return not ahead

        assert wait(removed, 30)
        started.until(seen("observation", "85.2"))
        [container] = client.containers.list(filters={"label": "vbisect.version=85.2"})
        container.stop()
        started.until(seen("server_ready", "85.1"))
        [container] = client.containers.list(filters={"label": "vbisect.version=85.1"})
        container.remove(force=True)
    right(started.end())
    # of 85.2 the image was gone, then the container; of 85.1 the container
    assert counts(started.run_dir, "trial_started") == {"85.0": 1, "85.1": 2, "85.2": 3}


def test_servers_lost_together_are_begun_again_together(
    lone: ImageWorld, own_engine: Engine
) -> None:
    started = lone.vbisect.start(*lone.words("85.0", "85.2", *RUN, "--jobs", "2"))
    run_dir = started.until(seen("observation", "85.2"))
    own_engine.kill()
    started.until(noted("The trial of 85.2 begins again once it is back."))
    own_engine.start()
    done = started.end()
    right(done)
    assert set(counts(run_dir, "trial_started").values()) <= {1, 2}
    assert "are from before an interruption" in done.trials["85.2"]["notes"][0]
    assert lone.containers() == []


def test_an_interrupt_ends_all_servers(lone: ImageWorld) -> None:
    started = lone.vbisect.start(*lone.words("85.0", "85.2", *RUN, "--jobs", "3"))
    started.until(seen("build_ready", "85.1"))  # it boots; the ends are being probed
    started.process.send_signal(signal.SIGINT)
    done = started.end(30)
    assert done.returncode == 130, done.stderr
    assert lone.containers() == []
    right(lone.vbisect.resume(done.run_dir))
