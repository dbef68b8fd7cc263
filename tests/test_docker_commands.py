"""``plan``, ``doctor`` and ``clean`` beside a real engine and a real registry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, suppress

import docker
import pytest
from docker.errors import APIError, NotFound

from driving import Vbisect
from standin.engine import Engine, GivenEngine
from standin.images import ImageFamily

GENERATE = ("--endpoint", "generate", "--n", "4")
SHORT = ("--from", "0.27.0", "--to", "0.30.0")


@pytest.fixture
def client(engine: Engine | GivenEngine) -> Iterator[docker.DockerClient]:
    """The engine's own client, to look behind vbisect's back."""
    with closing(engine.client()) as connected:
        yield connected


@pytest.fixture
def options(images: ImageFamily) -> list[str]:
    """What points a command at the family's repository."""
    repository = images.reference("x").rpartition(":")[0]
    return ["--runtime", "docker", "--device", "cpu", "--image-repo", repository]


def test_a_plan_starts_nothing_and_reckons_the_worst(
    docked: Vbisect, options: list[str], client: docker.DockerClient
) -> None:
    before = {image.id for image in client.images.list()}
    done = docked("plan", *options, "--from", "0.7.3", "--to", "0.33.0", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert len(plan["versions"]) == plan["testable"] == 51
    # the ends, those between, and both sides of the change once more; where all passes, the oldest
    # with its other engine, and a search with that one
    assert 2 + 5 + 2 <= plan["boots_worst"] <= 2 + 10 + 2 + 1 + 5
    assert 0 < plan["download_mean"] <= plan["download_worst"]
    assert plan["disk_worst"] > plan["download_worst"]
    assert plan["disk_free"] > 0
    assert client.containers.list(all=True, filters={"label": "vbisect.run"}) == []
    assert {image.id for image in client.images.list()} == before
    assert not list(docked.results.iterdir())


def test_a_plan_knows_what_is_there_and_what_is_missing(
    docked: Vbisect, options: list[str], images: ImageFamily, client: docker.DockerClient
) -> None:
    reference = images.reference("v0.28.0")
    client.images.pull(reference)
    try:
        other = images.reference("v9.9.9")
        plan = json.loads(
            docked("plan", *options, *SHORT, "--image", f"0.29.0={other}", "--json").stdout
        )
    finally:
        client.images.remove(reference)
    assert (plan["there"], plan["missing"]) == (["0.28.0"], ["0.29.0"])
    words = docked("plan", *options, *SHORT).stdout
    assert "\nruntime:    docker, device cpu, from 127.0.0.1:" in words
    # each, both sides of the change once more; one beyond where layers that are there draw it aside
    assert re.search(r"^boots:      [78] at most", words, re.MULTILINE)


def test_a_doctor_tells_what_is_fit(
    docked: Vbisect, images: ImageFamily, engine: Engine | GivenEngine
) -> None:
    repository = images.reference("x").rpartition(":")[0]
    token = "hf_" + "x" * 30
    done = docked("doctor", "--device", "cpu", "--image-repo", repository, HF_TOKEN=token)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok       engine: Docker ") and engine.url in line for line in lines)
    assert f"ok       registry: it has {repository}:v0.33.0" in lines
    assert any("GB free for images" in line for line in lines)
    assert "ok       token: HF_TOKEN is set" in lines
    assert token not in done.stdout + done.stderr


def test_a_doctor_says_what_is_missing(docked: Vbisect, images: ImageFamily) -> None:
    repository = images.reference("x").rpartition(":")[0]
    gpu = docked("doctor", "--device", "cuda", "--image-repo", repository)
    assert gpu.returncode == 4
    assert "missing  GPU runtime: the engine gives containers no GPU: its" in gpu.stdout
    assert "Install the NVIDIA container toolkit" in gpu.stdout
    none = docked("doctor", "--device", "cpu", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert none.returncode == 0, "without Docker, environments work"
    assert "limited  engine: No Docker engine answers at unix:///nowhere/docker.sock" in none.stdout


def test_clean_removes_what_vbisect_pulled_and_nothing_else(
    docked: Vbisect, options: list[str], images: ImageFamily, client: docker.DockerClient
) -> None:
    theirs = images.reference("v0.27.0")
    client.images.pull(theirs)  # somebody else's: vbisect uses it and leaves it
    stranger = client.containers.create(theirs, labels={"mine": "yes"})
    try:
        before = {image.id for image in client.images.list()}
        done = docked.run(*options, "--from", "0.27.0", "--to", "0.29.0", *GENERATE)
        assert done.returncode == 0, done.stderr
        tested = {trial["build"]["digest"] for trial in done.json["trials"] if trial["build"]}
        pulled = {image.id for image in client.images.list()} - before
        assert len(pulled) == len(tested) - 1 >= 2
        one = docked("clean", "0.28.0")
        assert f"{images.reference('v0.28.0')}: removed" in one.stdout
        assert len({image.id for image in client.images.list()} - before) == len(pulled) - 1
        cleaned = docked("clean")
        assert f"{images.reference('v0.29.0')}: removed" in cleaned.stdout
        assert {image.id for image in client.images.list()} == before
        assert not client.volumes.list(filters={"name": "vbisect-vllm-"})
        stranger.reload()
        assert "0 containers, 0 volumes and 0 pulled images" in docked("clean").stdout
    finally:
        stranger.remove(force=True)
        with suppress(NotFound, APIError):
            client.images.remove(theirs)


def test_clean_keeps_what_is_in_use(
    docked: Vbisect, options: list[str], images: ImageFamily, client: docker.DockerClient
) -> None:
    done = docked.run(*options, "--from", "0.32.0", "--to", "0.33.0")
    assert done.returncode == 1, done.stderr
    used = done.trials["0.33.0"]["build"]["digest"]
    name = images.reference("v0.33.0").rpartition(":")[0] + f"@{used}"
    user = client.containers.create(name)
    try:
        kept = docked("clean").stdout
        assert f"{images.reference('v0.33.0')}: in use, kept" in kept
        assert f"{images.reference('v0.32.0')}: removed" in kept
        client.images.get(name)
    finally:
        user.remove(force=True)
    assert f"{images.reference('v0.33.0')}: removed" in docked("clean").stdout


def test_versions_say_which_images_there_are(docked: Vbisect, images: ImageFamily) -> None:
    repository = images.reference("x").rpartition(":")[0]
    listed = json.loads(
        docked("versions", "--from", "0.32.0", "--image-repo", repository, "--json").stdout
    )
    for entry in listed["versions"]:
        assert entry["image"]["digest"] == images.digests[f"v{entry['version']}"]
        assert entry["image"]["size"] > 0
    none = docked("versions", "--from", "0.32.0", "--image-repo", f"{repository}-none", "--json")
    assert (none.returncode, none.stdout) == (2, "")
    assert f"{repository}-none" in none.stderr
