"""A host with eight GPUs and a real engine, over images of every release with their real needs."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

import standin.engine
from docker_fixtures import NIGHTLY, opened, skipping
from driving import Done, Vbisect, events
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.cuda_images import cuda_images
from standin.engine import Engine
from standin.images import ImageFamily
from standin.index import PackageIndex
from standin.nvml import build_library, device, driver, gpu_environment
from standin.registry import LocalRegistry
from vbisect.releases import catalogue

FIXED = Version("0.12.0")
LATE = [version for version in catalogue() if Version(version) >= Version("0.20.0")]
RANGE = ("--from", "0.7.3", "--to", "nightly", "--n", "4", "--confidence", "0.6")


def fixed(version: str, behaviour: Behaviour) -> Behaviour:
    """Chats return one choice up to 0.11."""
    broken = Version(version) < FIXED
    return replace(behaviour, fail_rate={"chat": 1.0}) if broken else behaviour


@pytest.fixture(scope="module")
def gpu_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that gives GPUs to containers: it finds NVIDIA's hook on its path."""
    tools = tmp_path_factory.mktemp("tools")
    hook = tools / "nvidia-container-runtime-hook"
    hook.write_text("#!/bin/sh\nexec cat > /dev/null\n")
    hook.chmod(hook.stat().st_mode | stat.S_IEXEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standin.engine, "PATH", f"{tools}:{standin.engine.PATH}")
        with opened(Engine()) as engine:
            yield engine


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stand-in for the driver's library."""
    return build_library(tmp_path_factory.mktemp("driver") / "nvml")


@pytest.fixture
def gpu_vbisect(
    command: Callable[..., Vbisect], family_index: PackageIndex, gpu_engine: Engine
) -> Vbisect:
    """The command, beside that engine."""
    return command(family_index).on_engine(gpu_engine.url)


Ask = Callable[..., Done]


@pytest.fixture
def ask(gpu_vbisect: Vbisect, nvml: Path, tmp_path: Path) -> Ask:
    """Asks for the whole range of a family, on a host with eight GPUs and a driver."""

    def asking(
        what: str, family: ImageFamily, version: str, cuda: int, *more: str, **env: str
    ) -> Done:
        gpus = [driver(version, cuda), *(device(f"GPU-{n}") for n in range(8))]
        host = gpu_environment(nvml, tmp_path / "gpus", gpus)
        own = ["--runtime", "docker", "--device", "cuda", "--model", "tiny:qwen2", "--json"]
        repository = family.reference("x").rpartition(":")[0]
        own += ["--image-repo", repository, "--results", str(gpu_vbisect.results)]
        return gpu_vbisect(what, *own, *RANGE, *more, **(host | env))

    return asking


def family_of(registry: LocalRegistry, version: str, *, variants: bool) -> ImageFamily:
    """The images of all releases for a host with this driver."""
    with skipping():
        base_layer()
    name = f"test/gpu-{version}-{'all' if variants else 'one'}"
    return cuda_images(registry, name, version, fixed, nightly=NIGHTLY, variants=variants)


def began(done: Done) -> set[str]:
    """The versions of which a build was fetched."""
    return {e["version"] for e in events(done.run_dir) if e["event"] == "build_ready"}


def test_nothing_that_cannot_run_is_pulled(ask: Ask, registry: LocalRegistry) -> None:
    """Driver 565.57.01 and images of CUDA 13 alone from 0.20 on: the end moves, loudly."""
    family = family_of(registry, "565.57.01", variants=False)
    plan = json.loads(ask("plan", family, "565.57.01", 12070).stdout)
    assert len(plan["unfit"]) == len(LATE) + 1
    assert plan["unfit"]["0.33.0"].startswith("driver too old: CUDA 13.0 needs driver 580")
    done = ask("run", family, "565.57.01", 12070)
    assert done.returncode == 0, done.stderr
    assert done.json["answer"]["first_after"] == str(FIXED)
    assert done.json["range"]["to"]["tested"] == "0.19.1"
    reasons = {v: t["reason"] for v, t in done.trials.items() if t["outcome"] == "skip"}
    assert set(reasons.values()) == {"driver too old"}
    assert reasons.keys() >= set(LATE)
    assert not began(done) & reasons.keys()
    assert len(began(done)) <= plan["boots_worst"]


def test_the_variant_that_runs_is_taken(ask: Ask, registry: LocalRegistry) -> None:
    """It is the only way from 0.20 on; that is said, recorded, and part of the replay line."""
    family = family_of(registry, "565.57.01", variants=True)
    plan: dict[str, Any] = json.loads(ask("plan", family, "565.57.01", 12070).stdout)
    assert (plan["unfit"], plan["testable"]) == ({}, len(catalogue()) + 1)
    done = ask("run", family, "565.57.01", 12070)
    assert done.returncode == 0, done.stderr
    assert "taking their cu129 variant, which has CUDA 12.9" in done.stderr
    assert done.json["range"]["to"]["tested"].startswith("0.33.1.dev")
    variants = {digest for tag, digest in family.digests.items() if "cu129" in tag}
    for version, trial in done.trials.items():
        newer = Version(version) >= Version("0.20.0")
        assert (trial["build"]["digest"] in variants) is newer, version
    markdown = (done.run_dir / "report.md").read_text()
    assert "--image-variant 'cu129; >=0.20.0'" in markdown
    given = ask("plan", family, "565.57.01", 12070, "--image-variant", "x86_64; <0.8")
    assert json.loads(given.stdout)["unfit"] == {}, "what was asked for stands beside it"


def test_on_a_newer_driver_everything_is_tried(ask: Ask, registry: LocalRegistry) -> None:
    """As before: nothing is left out, and no variant taken."""
    family = family_of(registry, "580.65.06", variants=True)
    plan = json.loads(ask("plan", family, "580.65.06", 13000).stdout)
    assert (plan["unfit"], plan["testable"]) == ({}, len(catalogue()) + 1)
    done = ask("run", family, "580.65.06", 13000)
    assert done.json["answer"]["first_after"] == str(FIXED)
    assert not [t for t in done.json["trials"] if t["outcome"] == "skip"]
    assert "cu129" not in done.stderr


def test_all_are_tried_where_that_is_asked_for(ask: Ask, registry: LocalRegistry) -> None:
    """What cannot run is pulled and booted, and says itself why."""
    family = family_of(registry, "565.57.01", variants=False)
    done = ask("run", family, "565.57.01", 12070, "--try-all")
    assert done.json["answer"]["first_after"] == str(FIXED)
    booted = [t for t in done.json["trials"] if t["reason"] == "driver too old"]
    assert booted
    assert all(t["build"] for t in booted)
    assert "too old (found version 12070)" in booted[0]["detail"]
