"""Weights for servers in containers: fetched by the image's own client, into their cache."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from docker_fixtures import skipping
from docker_worlds import ImageWorld, image_world
from driving import counts, events
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.engine import Engine, GivenEngine
from standin.hub import Model, ModelHub, model_files
from standin.images import installed_layer
from standin.registry import LocalRegistry
from standin.wheels import repack

NAME = "org/model"
SIZE = 8_000_000
LOADS = Behaviour(loads_weights=True)
RELEASES = {"82.0": Behaviour(loads_weights=True, fail_rate={"chat": 1.0}), "82.1": LOADS}


@pytest.fixture
def hub(engine: Engine | GivenEngine) -> Iterator[ModelHub]:
    """Where containers can reach it."""
    with contextlib.closing(engine.client()) as client:
        [pool] = client.networks.get("bridge").attrs["IPAM"]["Config"]
    model = Model(model_files(SIZE))
    with ModelHub({NAME: model}, rate=1e6, host=pool["Gateway"]) as served:
        yield served


@pytest.fixture
def world(
    tmp_path: Path, registry: LocalRegistry, engine: Engine | GivenEngine, hub: ModelHub
) -> Iterator[ImageWorld]:
    """Two releases with the hub's client beside them."""
    with skipping():
        base_layer()
    repack(tmp_path / "client", "huggingface_hub")
    beside = [installed_layer(tmp_path / "client")]
    with image_world(tmp_path, registry, engine, RELEASES, beside=beside) as made:
        yield made


def words(world: ImageWorld, hub: ModelHub, *more: str) -> list[str]:
    """The arguments of a run; a boot takes no longer than three seconds of silence."""
    asked = ("--confidence", "0.6", "--model", NAME, "--env", f"HF_ENDPOINT={hub.url}")
    return world.words("82.0", "82.1", *asked, *more)


def test_an_image_fetches_what_its_servers_load(world: ImageWorld, hub: ModelHub) -> None:
    """Once, in a download that takes longer than a boot may be silent."""
    done = world.vbisect.run(*words(world, hub, "--boot-timeout", "4"))
    assert done.returncode == 0, done.stderr
    assert done.json["answer"]["first_after"] == "82.1"
    weights = {name: size for name, size in hub.models[NAME].sent.items() if size > 1000}
    assert sum(weights.values()) == SIZE
    assert [e["event"] for e in events(done.run_dir)].count("weights_ready") == 1
    assert counts(done.run_dir, "build_ready") == counts(done.run_dir, "server_ready")


def test_a_container_that_downloads_is_waited_for(world: ImageWorld, hub: ModelHub) -> None:
    """Its log tells nothing of it; the engine knows what it gets from the network."""
    own_way = ("--serve-arg", "--load-format mistral", "--boot-timeout", "4")
    done = world.vbisect.run(*words(world, hub, *own_way))
    assert done.returncode == 0, done.stderr
    assert counts(done.run_dir, "trial_started") == counts(done.run_dir, "trial_finished")
    assert "weights_ready" not in [e["event"] for e in events(done.run_dir)]


def test_an_interrupt_ends_the_download(world: ImageWorld, hub: ModelHub) -> None:
    started = world.vbisect.start(*words(world, hub))
    started.until(lambda journal: any(e["event"] == "weights_started" for e in journal))
    started.process.send_signal(signal.SIGINT)
    done = started.end()
    assert (done.returncode, done.json["status"]) == (130, "interrupted")
    assert not world.containers()
    hub.rate = None
    resumed = world.vbisect.resume(done.run_dir)
    assert resumed.returncode == 0, resumed.stderr


def test_an_image_without_the_client_leaves_it_to_the_servers(
    tmp_path: Path, registry: LocalRegistry, engine: Engine | GivenEngine, hub: ModelHub
) -> None:
    """As one that was never made for it: nothing is held against its release."""
    with skipping():
        base_layer()
    releases = {"83.0": Behaviour(fail_rate={"chat": 1.0}), "83.1": Behaviour()}
    with image_world(tmp_path, registry, engine, releases) as made:
        asked = ("--confidence", "0.6", "--model", NAME, "--env", f"HF_ENDPOINT={hub.url}")
        done = made.vbisect.run(*made.words("83.0", "83.1", *asked))
    assert done.returncode == 0, done.stderr
    assert "left to the servers: this release has no huggingface_hub of use" in done.stderr
