"""Each setting that changes what is tested is part of the keys; the others change neither."""

from __future__ import annotations

from typing import Any

import pytest

from made import VERSIONS, releases, settings
from vbisect.engine.product import Product
from vbisect.launch import Limited
from vbisect.launch.engine_version import EngineAsked
from vbisect.probes import CommandSettings, NChoicesSettings, SuiteSettings
from vbisect.probes.n_choices import Endpoint
from vbisect.probes.suite import variations
from vbisect.reasons import SkipReason
from vbisect.releases import Device
from vbisect.report.comment import marker
from vbisect.run.docker_settings import DockerSettings
from vbisect.run.sameness import trial_key
from vbisect.run.settings import RunSettings, Unfit
from vbisect.search import Find

VERSION = "0.30.0"
NEITHER, TRIAL, QUESTION, BOTH = (False, False), (True, False), (False, True), (True, True)
CONTAINERS = DockerSettings(image_repo="vllm/vllm-openai", gpus="all")

# Every setting, another value than a plain run has, and whether a trial or a question with it is
# another one.
SETTINGS: dict[str, tuple[Any, tuple[bool, bool]]] = {
    "schema_version": (1, NEITHER),
    "vbisect": ("9.9", NEITHER),
    "run_id": ("other", NEITHER),
    "start": ("0.1", NEITHER),
    "end": ("0.30.0", NEITHER),
    "skip": (("0.28.0",), NEITHER),
    "pre": (True, NEITHER),
    "find": (Find.BREAK, NEITHER),
    "sweep": (True, NEITHER),
    "find_all": (True, NEITHER),
    "hint": (VERSION, NEITHER),
    "failure": ("returned 1 of", BOTH),
    "max_skips": (3, NEITHER),
    "fresh": (True, NEITHER),
    "engine": (EngineAsked.V1, QUESTION),  # of a trial its record tells which one it is
    "try_all": (True, NEITHER),
    "unfit": ((Unfit(version=VERSION, reason=SkipReason.DRIVER_TOO_OLD, detail="old"),), NEITHER),
    "confidence": (0.99, NEITHER),
    "jobs": (4, NEITHER),
    "jobs_asked": ("auto", NEITHER),
    "tensor_parallel": (8, BOTH),
    "slots_per_gpu": (2, BOTH),
    "host": ("elsewhere", TRIAL),
    "gpu_models": (("NVIDIA H20",), BOTH),
    "runtime": ("docker", BOTH),
    "device": (Device.CUDA, BOTH),
    "latest_deps": (True, BOTH),
    "docker": (CONTAINERS, BOTH),
    "model": ("tiny:qwen2_5_vl", BOTH),
    "model_path": ("/models/other", TRIAL),
    "skeleton": (True, BOTH),
    "model_args": ((Limited(text="--dtype bfloat16"),), TRIAL),
    "model_env": ({"A": "1"}, TRIAL),
    "control_model": ("tiny:qwen2", TRIAL),
    "control_path": ("/models/control", TRIAL),
    "control_args": ((Limited(text="--dtype bfloat16"),), TRIAL),
    "control_env": ({"A": "1"}, TRIAL),
    "control_sees": (True, TRIAL),
    "picture": ("~/picture.png", NEITHER),
    "log_args": ((Limited(text="--enable-log-requests"),), TRIAL),
    "serve_args": ((Limited(text="--enforce-eager"),), BOTH),
    "env": ((Limited(text="A=1"),), BOTH),
    "inherited": ((Limited(text="A=1"),), BOTH),
    "boot_timeout": (60.0, NEITHER),
    "releases_from": ("catalogue", NEITHER),
    "notes": (("a note",), NEITHER),
    "excluded": (("0.28.0",), NEITHER),
    "n_choices": (NChoicesSettings(n=(16,)), BOTH),
    "suite": (
        SuiteSettings(request=NChoicesSettings(), variations=variations(Endpoint.CHAT)),
        BOTH,
    ),
    "command": (CommandSettings(command=("/bin/true",)), BOTH),
    "candidates": (releases(VERSIONS[1:]), NEITHER),
}

# Of containers: the digest says which build it is, so that where it came from is no other trial.
OF_CONTAINERS: dict[str, tuple[Any, tuple[bool, bool]]] = {
    "host": ("ssh://user@gpu01", NEITHER),
    "image_repo": ("mirror/vllm", QUESTION),
    "image_variant": ((Limited(text="cu129"),), QUESTION),
    "images": ({VERSION: "my/vllm:patched"}, QUESTION),
    "gpus": ("0,1", TRIAL),
    "memory": (10**10, BOTH),
    "build": ("auto", NEITHER),
    "base_image": ("debian:12", QUESTION),
    "product": (Product.PODMAN, NEITHER),
    "disk_budget": (10**12, NEITHER),
    "pull_timeout": (60.0, NEITHER),
}


def is_another(plain: RunSettings, changed: RunSettings) -> tuple[bool, bool]:
    """Whether its trial is another one, and its question."""
    trials = [trial_key(each, VERSION) for each in (plain, changed)]
    return trials[0] != trials[1], marker(plain) != marker(changed)


def test_every_setting_is_looked_at() -> None:
    """A new one has to be put here: whoever adds it knows whether a server notices it."""
    assert SETTINGS.keys() == RunSettings.model_fields.keys()
    assert OF_CONTAINERS.keys() == DockerSettings.model_fields.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_what_changes_what_is_tested_is_in_the_keys(name: str) -> None:
    value, another = SETTINGS[name]
    assert is_another(settings(), settings(**{name: value})) == another


@pytest.mark.parametrize("name", OF_CONTAINERS)
def test_so_it_is_of_containers(name: str) -> None:
    value, another = OF_CONTAINERS[name]
    ran = {"runtime": "docker", "docker": CONTAINERS}
    changed = {**ran, "docker": CONTAINERS.model_copy(update={name: value})}
    assert is_another(settings(**ran), settings(**changed)) == another
