"""Runs over a real Podman, as over Docker: right answers, and nothing left that is vbisect's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest

from docker_fixtures import opened
from docker_worlds import ImageWorld, image_world
from driving import OnEngine
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.images import ImageFamily, _layer
from standin.nvml import device
from standin.podman import Podman, more_files_than_anybody_has
from standin.registry import LocalRegistry
from test_gpus import libraries
from vbisect.builds.image_store import ImageStore
from vbisect.engine import connect
from vbisect.errors import EngineLost

__all__ = ["libraries"]

CDI = Path("/var/run/cdi")
RELEASES = {
    "88.0": Behaviour(fail_rate={"chat": 1.0}),
    "88.1": Behaviour(fail_rate={"chat": 1.0}),
    "88.2": Behaviour(),
    "88.3": Behaviour(),
}


@pytest.fixture
def client(podman: Podman) -> Iterator[docker.DockerClient]:
    """Podman's own client, to look behind vbisect's back."""
    with closing(podman.client()) as connected:
        yield connected


@pytest.fixture
def podman_world(
    tmp_path_factory: pytest.TempPathFactory, registry: LocalRegistry, podman: Podman
) -> Iterator[ImageWorld]:
    """Four releases as images, and the command over Podman."""
    with image_world(tmp_path_factory.mktemp("podman"), registry, podman, RELEASES) as made:
        yield made


def test_a_run_ends_right_and_clean_leaves_what_is_others(
    podman_world: ImageWorld, client: docker.DockerClient, registry: LocalRegistry
) -> None:
    """The ID in Podman's /info is another at every call: what was pulled is known all the same."""
    family = ImageFamily(registry, "others/image")
    family.push("88.1", Behaviour())
    theirs = client.images.pull(family.reference("v88.1"))
    stranger = client.containers.create(theirs.id, labels={"mine": "yes"})
    volume = client.volumes.create("somebodys")
    done = podman_world.vbisect.run(*podman_world.words("88.0", "88.3", "--confidence", "0.6"))
    assert done.returncode == 0, done.stderr
    assert done.json["answer"]["last_before"] == "88.1"
    assert done.json["answer"]["first_after"] == "88.2"
    assert podman_world.containers() == []
    assert 'product = "Podman"' in (done.run_dir / "run.toml").read_text()
    here = OnEngine(client, registry.host, podman_world.vbisect.results)
    assert len(here.digests()) >= 4
    cleaned = podman_world.vbisect("clean")
    assert cleaned.returncode == 0, cleaned.stderr
    for trial in done.json["trials"]:
        assert f"{trial['build']['ref']}: removed" in cleaned.stdout
    assert [image.id for image in client.images.list()] == [theirs.id]
    assert [left.id for left in client.containers.list(all=True)] == [stranger.id]
    assert [left.name for left in client.volumes.list()] == [volume.name]


def test_an_image_whose_history_cannot_be_read_counts_with_its_size(
    podman: Podman, registry: LocalRegistry, client: docker.DockerClient
) -> None:
    """A step without a date makes Podman 4.3 answer with an error of its own."""
    undated = [{"created_by": "somebody"}] * 2
    layer = _layer("88.9", Behaviour(), 0)
    registry.push_image("others/undated", ["latest"], [base_layer(), layer], {}, history=undated)
    image = client.images.pull(f"{registry.host}/others/undated:latest")
    with pytest.raises(docker.errors.APIError):
        image.history()
    with connect(podman.url) as engine:
        store = ImageStore(engine)
        found = store.find(f"{registry.host}/others/undated:latest")
        assert found is not None
        assert found.size == image.attrs["Size"] > len(layer.data)
        assert store.present_layers() >= {base_layer().diff_id, layer.diff_id}


def test_what_is_there_can_be_asked_while_images_go(
    podman: Podman, registry: LocalRegistry, client: docker.DockerClient
) -> None:
    """Podman fails at times to list images, or to look at one, while it removes one."""
    family = ImageFamily(registry, "others/going")
    family.push("88.9", Behaviour(), padding_bytes=1_000_000)
    name = family.reference("v88.9")

    def come_and_go() -> None:
        for _ in range(6):
            client.images.pull(name)
            client.images.remove(name)

    with connect(podman.url) as engine, ThreadPoolExecutor(1) as pool:
        store, going = ImageStore(engine), pool.submit(come_and_go)
        while not going.done():
            store.names()
            store.find(name)
        going.result()
        assert store.find(name) is None


def test_podman_is_called_by_its_name(podman_world: ImageWorld, podman: Podman) -> None:
    """By doctor, and in the evidence of trials; other engines' names are theirs."""
    doctor = podman_world.vbisect("doctor", "--device", "cuda")
    assert "ok       engine: Podman 4." in doctor.stdout
    assert f" at {podman.url}, overlay" in doctor.stdout
    assert "missing  GPU runtime: Podman has no GPU for its containers" in doctor.stdout
    assert "nvidia-ctk cdi generate" in doctor.stdout
    assert "restart Docker" not in doctor.stdout
    with connect(podman.url) as engine:
        assert engine.facts()["product"] == "Podman"
        podman.stop()
        try:
            with pytest.raises(EngineLost, match=f"^Podman at {podman.url} stopped answering"):
                engine.facts()
        finally:
            podman.start()


def test_no_gpu_is_told_before_anything_is_pulled(
    podman_world: ImageWorld, client: docker.DockerClient
) -> None:
    """Podman passes over what Docker's clients say of GPUs: no release would find any."""
    before = {image.id for image in client.images.list()}
    words = podman_world.words("88.0", "88.3", "--model", "tiny:qwen2", "--device", "cuda")
    own = ("--json", "--results", str(podman_world.vbisect.results))
    done = podman_world.vbisect("run", *words, *own)
    assert (done.returncode, done.json["status"]) == (4, "failed")
    assert "nothing in /etc/cdi or /var/run/cdi describes nvidia.com/gpu" in done.json["message"]
    assert "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml" in done.json["message"]
    assert done.json["trials"] == []
    assert {image.id for image in client.images.list()} == before


@pytest.mark.podman
def test_a_podman_that_can_start_nothing_is_told_of_after_two_releases(
    tmp_path: Path, registry: LocalRegistry
) -> None:
    """As in many sandboxes, whose limits are below those that it asks for by default."""
    with (
        opened(Podman(files=more_files_than_anybody_has())) as podman,
        image_world(tmp_path, registry, podman, RELEASES) as made,
    ):
        done = made.vbisect.run(*made.words("88.0", "88.3", "--confidence", "0.6"))
        assert done.returncode == 4, done.stderr
        assert (done.returncode, done.json["status"]) == (4, "failed"), done.stderr
        assert "88.0 and 88.3 were skipped for the same reason" in done.json["message"]
        assert "error setting rlimit type 7" in done.json["message"]
        assert made.containers() == []


@pytest.fixture
def described(tmp_path: Path) -> Iterator[Path]:
    """Eight GPUs in CDI's words, as nvidia-ctk writes them; which were given is noted in a file."""
    seen, hook = tmp_path / "seen", tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\ncat > /dev/null\necho "$1" >> {seen}\n')
    hook.chmod(0o755)

    def edits(name: str) -> dict[str, Any]:
        noting = {"hookName": "createRuntime", "path": str(hook), "args": ["hook", name]}
        return {"name": name, "containerEdits": {"hooks": [noting]}}

    devices = [edits(name) for name in (*map(str, range(8)), "all")]
    description = {"cdiVersion": "0.3.0", "kind": "nvidia.com/gpu", "devices": devices}
    CDI.mkdir(exist_ok=True)
    place = CDI / "vbisect-test.json"
    place.write_text(json.dumps(description))
    try:
        yield seen
    finally:
        place.unlink()


@pytest.mark.parametrize(
    ("options", "given"),
    [(("--tp", "2"), {"6", "7"}), (("--gpus", "nvidia.com/gpu=7"), {"7"})],
)
def test_gpus_are_given_by_cdi(
    podman_world: ImageWorld,
    described: Path,
    libraries: dict[str, Path],
    tmp_path: Path,
    options: tuple[str, ...],
    given: set[str],
) -> None:
    """Those that are the user's, by Podman's own API: its Docker one would give none."""
    (tmp_path / "state").write_text("".join(device(f"GPU-{n}") + "\n" for n in range(8)))
    words = podman_world.words("88.1", "88.2", "--model", "tiny:qwen2", "--device", "cuda")
    own = ("--confidence", "0.6", "--memory", "4GB", "--json", "--fresh", *options)
    driver = {
        "LD_LIBRARY_PATH": str(libraries["today"]),
        "STANDIN_NVML": str(tmp_path / "state"),
        "CUDA_VISIBLE_DEVICES": "6,7",
    }
    done = podman_world.vbisect(
        "run", *words, *own, "--results", str(podman_world.vbisect.results), **driver
    )
    assert done.returncode == 0, done.stderr
    assert set(described.read_text().split()) == given
    assert done.json["answer"]["first_after"] == "88.2"


def test_a_gpu_that_cdi_does_not_describe_is_the_hosts_fault(
    podman_world: ImageWorld, described: Path
) -> None:
    words = podman_world.words("88.1", "88.2", "--model", "tiny:qwen2", "--device", "cuda")
    own = ("--gpus", "nvidia.com/gpu=9", "--json", "--results", str(podman_world.vbisect.results))
    done = podman_world.vbisect("run", *words, *own)
    assert (done.returncode, done.json["trials"]) == (4, [])
    assert "unresolvable CDI devices nvidia.com/gpu=9" in done.json["message"]
    assert "nvidia-ctk cdi list" in done.json["message"]
