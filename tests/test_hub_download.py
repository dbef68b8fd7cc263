"""The script that fetches weights, as the Python of a release runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from standin.hub import COMMIT, CONFIG, Model, ModelHub, model_files
from vbisect.launch import hub_download

SCRIPT = Path(hub_download.__file__)
NAME = "org/model"


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    """Has one model."""
    with ModelHub({NAME: Model(model_files(200_000))}) as served:
        yield served


def download(hub: ModelHub, home: Path, model: str = NAME, revision: str = "") -> dict[str, Any]:
    """The last that the script tells."""
    words = [sys.executable, "-I", "-c", SCRIPT.read_text(), model, revision]
    environment = {**os.environ, **hub.environment(home)}
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        environment.pop(name, None)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


@pytest.mark.parametrize("place", ["file", "file/below", "locks", "blobs"])
def test_a_cache_that_cannot_be_written_is_no_fault_of_the_network(
    hub: ModelHub, tmp_path: Path, place: str
) -> None:
    """Whatever the system calls it."""
    home = tmp_path / "home"
    obstacle = {
        "file": tmp_path / "file",
        "file/below": tmp_path / "file",
        "locks": home / "hub" / ".locks",
        "blobs": home / "hub" / "models--org--model" / "blobs",
    }[place]
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    obstacle.touch()
    told = download(hub, tmp_path / place if place.startswith("file") else home)
    assert told["failed"] == "disk"


@pytest.mark.parametrize("fault", ["cannot be written", "gated"])
def test_what_servers_do_without_is_no_fault(hub: ModelHub, tmp_path: Path, fault: str) -> None:
    """They fill caches without what nobody loads, and only read them from then on."""
    assert download(hub, tmp_path)["commit"] == COMMIT
    [readme] = tmp_path.glob("hub/models--org--model/snapshots/*/README.md")
    readme.resolve().unlink()
    readme.unlink()
    if fault == "gated":
        hub.models[NAME].gated = True
    else:
        for lock in sorted(tmp_path.glob("hub/.locks/**/*"), reverse=True):
            lock.rmdir() if lock.is_dir() else lock.unlink()
        (tmp_path / "hub" / ".locks").rmdir()
        (tmp_path / "hub" / ".locks").touch()
    assert "the cache has the weights" in download(hub, tmp_path)["left"]


def test_without_its_weights_it_is_one(hub: ModelHub, tmp_path: Path) -> None:
    assert download(hub, tmp_path)["commit"] == COMMIT
    shard = next(tmp_path.glob("hub/models--org--model/snapshots/*/model-00001*"))
    shard.resolve().unlink()
    shard.unlink()
    hub.models[NAME].gated = True
    assert download(hub, tmp_path)["failed"] == "gated"


def test_what_nobody_understands_is_for_the_servers(hub: ModelHub, tmp_path: Path) -> None:
    """A name that the client refuses by itself says nothing of a network."""
    assert "repo_id" in download(hub, tmp_path, "org/a--model")["left"]


def test_the_weights_beside_the_configuration_are_fetched(hub: ModelHub, tmp_path: Path) -> None:
    """vLLM looks there for the kind there is, and then takes all of that kind."""
    files = {"config.json": CONFIG, "pytorch_model.bin": b"1" * 999, "onnx/a.safetensors": b"2"}
    model = hub.models[NAME] = Model(files)
    assert download(hub, tmp_path)["commit"] == COMMIT
    assert set(model.sent) == {"config.json", "pytorch_model.bin"}


def test_weights_of_no_known_size_are_for_the_servers(hub: ModelHub, tmp_path: Path) -> None:
    """Nobody could say whether such a download goes on; that of a server is seen to live."""
    hub.models[NAME].sizes = False
    assert "how large" in download(hub, tmp_path)["left"]
    hub.models[NAME] = Model({"config.json": CONFIG, "model.gguf": b"1"})
    assert "how large" in download(hub, tmp_path)["left"]
    assert not hub.models[NAME].sent
