"""Which GPUs a container gets: a real dockerd, with stand-ins for the driver and NVIDIA's hook."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from docker_fixtures import opened
from docker_worlds import ImageWorld, image_world
from driving import Done
from standin.behaviour import Behaviour
from standin.engine import Engine
from standin.registry import LocalRegistry
from test_gpus import device, libraries

__all__ = ["libraries"]

HOOK = """#!/bin/sh
# what NVIDIA's reads before it mounts devices: https://github.com/NVIDIA/nvidia-container-toolkit
exec python3 -c '
import json, pathlib, sys
bundle = pathlib.Path(json.load(sys.stdin)["bundle"])
variables = json.loads((bundle / "config.json").read_text())["process"]["env"]
given = [v for v in variables if v.startswith("NVIDIA_VISIBLE_DEVICES=")]
with open(sys.argv[1], "a") as seen:
    print(given[-1].partition("=")[2], file=seen)
' "$(dirname "$0")/seen"
"""
EIGHT = [device(f"GPU-{index}", processes=1 if index < 6 else 0) for index in range(8)]
KNOWN = {
    "60.0": Behaviour(fail_rate={"chat": 1.0}),
    "60.1": Behaviour(),
}


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the hook; it notes beside itself what each container is given."""
    folder = tmp_path_factory.mktemp("tools")
    hook = folder / "nvidia-container-runtime-hook"
    hook.write_text(HOOK)
    hook.chmod(hook.stat().st_mode | stat.S_IEXEC)
    return folder


@pytest.fixture(scope="module")
def gpu_world(
    tmp_path_factory: pytest.TempPathFactory,
    registry: LocalRegistry,
    tools: Path,
    libraries: dict[str, Path],
) -> Iterator[ImageWorld]:
    """A host with eight GPUs, of which the first six are somebody's."""
    folder = tmp_path_factory.mktemp("gpus")
    (folder / "state").write_text("".join(line + "\n" for line in EIGHT))
    with (
        opened(Engine(tools=tools)) as engine,
        image_world(folder / "world", registry, engine, KNOWN) as made,
    ):
        made.vbisect.env |= {
            "LD_LIBRARY_PATH": str(libraries["today"]),
            "STANDIN_NVML": str(folder / "state"),
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        }
        yield made


def run(world: ImageWorld, *options: str, **env: str) -> Done:
    """A run on GPUs, each release booted once."""
    words = world.words("60.0", "60.1", "--model", "tiny:qwen2", "--confidence", "0.6", *options)
    own = ["--device", "cuda", "--json", "--fresh", "--results", str(world.vbisect.results)]
    return world.vbisect("run", *words, *own, **env)


@pytest.mark.parametrize(
    ("visible", "options", "given"),
    [
        ("6,7", (), "6,7"),
        ("GPU-7", (), "7"),
        ("6,7", ("--tp", "2"), "6,7"),
        ("6,7", ("--gpus", "7"), "7"),
    ],
)
def test_a_container_gets_the_gpus_that_are_the_users(
    gpu_world: ImageWorld, tools: Path, visible: str, options: tuple[str, ...], given: str
) -> None:
    """Not all that the engine has: the first of them is somebody else's."""
    (tools / "seen").unlink(missing_ok=True)
    done = run(gpu_world, *options, CUDA_VISIBLE_DEVICES=visible)
    assert done.returncode == 0, done.stderr
    assert set((tools / "seen").read_text().splitlines()) == {given}
    assert done.json["answer"]["first_after"] == "60.1"


def test_an_engine_that_cannot_give_gpus_says_nothing_of_a_release(
    gpu_world: ImageWorld, tools: Path
) -> None:
    """It is the host that cannot do it, and the run can be resumed."""
    done = run(gpu_world, "--gpus", "nvidia.com/gpu=7", CUDA_VISIBLE_DEVICES="6,7")
    assert done.returncode == 4, done.stderr
    assert done.json["message"].startswith('could not select device driver "cdi"')
    assert done.json["trials"] == []
