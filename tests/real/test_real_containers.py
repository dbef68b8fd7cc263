"""The same truth from containers: images that vbisect builds of vLLM's CPU wheels.

One engine and one empty registry for all of it. The first run builds what the registry has not;
the second is the one that users type, and takes what the first has built.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from docker_fixtures import skipping
from real.runs import GENERATE, ONCE, SCALE_OUT, assert_fixed_in_0_29, run
from standin.build_base import build_base
from standin.engine import Engine, GivenEngine
from standin.registry import LocalRegistry

pytestmark = pytest.mark.real

CONTAINERS = ("--runtime", "docker", "--device", "cpu")
RANGE = ("--from", "0.28.0", "--to", "0.30.0")


@pytest.fixture(scope="module")
def client(engine: Engine | GivenEngine) -> Iterator[docker.DockerClient]:
    """The engine's client; vbisect finds the engine by DOCKER_HOST."""
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = engine.url
    try:
        with closing(engine.client()) as connected:
            yield connected
    finally:
        del os.environ["DOCKER_HOST"]
        if before is not None:
            os.environ["DOCKER_HOST"] = before


@pytest.fixture(scope="module")
def base(client: docker.DockerClient) -> str:
    """The image to build on, of this system's own packages."""
    with skipping():
        return build_base(client)


def test_images_are_built_where_none_is_published(
    client: docker.DockerClient, base: str, registry: LocalRegistry, tmp_path: Path
) -> None:
    repository = f"{registry.host}/nobody/vllm-openai-cpu"
    build = ("--image-repo", repository, "--build", "auto", "--base-image", base)
    code, answer = run(tmp_path, *CONTAINERS, *RANGE, *GENERATE, *SCALE_OUT, *build, *ONCE)
    assert (code, answer["status"]) == (0, "found")
    assert_fixed_in_0_29(answer, confidence=0.8)
    assert client.containers.list(all=True, filters={"label": "vbisect.run"}) == []
    for trial in answer["trials"]:
        assert trial["build"]["kind"] == "image"
        image = client.images.get(trial["build"]["ref"])
        assert image.labels["vbisect.version"] == trial["version"]
        folder = Path(answer["run_dir"]) / "trials" / trial["version"]
        assert "Successfully built" in (folder / "build.log").read_text()
        facts = json.loads((folder / "environment.json").read_text())
        assert facts["command"][:3] == ["vllm", "serve", "/vbisect/model"]
        assert "Application startup complete" in (folder / "server.log").read_text()
    layers = [
        client.images.get(t["build"]["ref"]).attrs["RootFS"]["Layers"] for t in answer["trials"]
    ]
    shared = set.intersection(*map(set, layers))
    assert len(shared) >= 5, "releases of one torch share its layer and all below it"


def test_the_release_that_fixed_a_real_bug_from_built_images(
    client: docker.DockerClient, tmp_path: Path
) -> None:
    """The images of the test before, where no registry answers with the official ones."""
    code, answer = run(tmp_path, *CONTAINERS, *RANGE, *GENERATE, *SCALE_OUT, *ONCE)
    assert (code, answer["status"]) == (0, "found")
    assert_fixed_in_0_29(answer, confidence=0.8)
    assert len(answer["trials"]) == 3
    assert client.containers.list(all=True, filters={"label": "vbisect.run"}) == []
