"""Whether a host is fit for runs: each finding with what to do about it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from packaging.version import Version

from vbisect.engine import Engine, connect
from vbisect.engine.images import plain_http_registries
from vbisect.errors import HostError
from vbisect.paths import cache_root, host_identity, with_tilde
from vbisect.registry import ImageReference, Registry
from vbisect.releases import Device, IndexUnavailable, catalogue
from vbisect.releases.cuda import DriverFit, driver_fit, driver_needed
from vbisect.releases.index import list_versions
from vbisect.run.accelerators import other_accelerator
from vbisect.run.docker_settings import default_image_repo
from vbisect.run.host import gpus

_UNPACKED_BYTES = 28e9
"""A recent image of vLLM for CUDA, unpacked (25–29 GB)."""


class Verdict(StrEnum):
    """How a part of the host does; only ``MISSING`` keeps a run from working."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One part of the host: what was found, and what to do where that is not enough."""

    part: str
    verdict: Verdict
    found: str
    advice: str = ""


def findings(device: Device, docker_host: str | None, image_repo: str | None) -> Iterator[Finding]:
    """Examine the host for runs on ``device``, one finding after the other; starts nothing.

    Raises ``UsageError`` for a malformed address or repository.
    """
    repository = ImageReference.parse(image_repo or default_image_repo(device))
    try:
        with connect(docker_host) as engine:
            yield _engine(engine)
            yield from _gpu(device, engine)
            yield _disk(engine)
            yield _registry(engine, repository)
    except HostError as error:
        yield Finding(
            "engine",
            Verdict.MISSING if docker_host else Verdict.LIMITED,
            str(error),
            "Without Docker, --runtime venv works.",
        )
        yield from _gpu(device, None)
    yield _cache()
    yield _package_index(device)
    if device is Device.CPU:
        yield _compiler()
    yield from _tokens()


def _cache() -> Finding:
    try:
        host_identity()
    except HostError as error:
        advice = "Make it writable, or name another directory in VBISECT_CACHE_DIR."
        return Finding("cache", Verdict.MISSING, str(error), advice)
    return Finding("cache", Verdict.OK, f"{with_tilde(cache_root())} can be written")


def _engine(engine: Engine) -> Finding:
    facts = engine.facts()
    return Finding(
        "engine",
        Verdict.OK,
        f"Docker {facts['engine']} at {engine.where}, {facts['storage_driver']}, {facts['os']}",
    )


def _gpu(device: Device, engine: Engine | None) -> Iterator[Finding]:
    if device is Device.CPU:
        yield Finding("GPU", Verdict.OK, "not needed for --device cpu")
        return
    if engine is not None:
        access = engine.gpu_access
        if access is not None:
            yield Finding("GPU runtime", Verdict.OK, f"the engine has {access}")
        else:
            runtimes = engine.facts()["runtimes"]
            yield Finding(
                "GPU runtime",
                Verdict.MISSING,
                f"the engine has only {', '.join(runtimes)}",
                "Install the NVIDIA container toolkit: nvidia-ctk runtime configure "
                "--runtime=docker, then restart Docker.",
            )
        if engine.remote:
            yield Finding("driver", Verdict.LIMITED, "not looked at on another machine")
            return
    listed = gpus()
    if not listed:
        other = other_accelerator()
        if other is not None:
            advice = "They are not supported; --device cpu would test another build."
            yield Finding("GPU", Verdict.MISSING, f"none of NVIDIA, but {other}", advice)
            return
        yield Finding(
            "GPU", Verdict.MISSING, "nvidia-smi lists none", "Use --device cpu on this host."
        )
        return
    yield Finding("GPU", Verdict.OK, "; ".join(listed))
    yield from _driver(listed[0].rpartition(",")[2].strip())


def _driver(driver: str) -> Iterator[Finding]:
    """The driver against the CUDA of every release, releases of one CUDA together."""
    releases: dict[str, list[str]] = {}
    for entry in catalogue().values():
        releases.setdefault(entry.cuda, []).append(entry.version)
    for cuda, versions in releases.items():
        fit = driver_fit(driver, cuda)
        stretch = f"{versions[0]} to {versions[-1]} need CUDA {cuda}: driver {driver} {fit}"
        if fit is DriverFit.TOO_OLD:
            yield Finding(
                "driver",
                Verdict.LIMITED,
                f"{stretch} (it came with {driver_needed(cuda)})",
                "Update the driver, or, from 0.17.0 on and on a data-centre card, set "
                "--env VLLM_ENABLE_CUDA_COMPATIBILITY=1.",
            )
        else:
            yield Finding("driver", Verdict.OK, stretch)


def _disk(engine: Engine) -> Finding:
    disk = engine.disk()
    if disk is None:
        return Finding(
            "disk", Verdict.LIMITED, "the engine's disk cannot be looked at", "Pass --disk-budget."
        )
    room = disk.free - disk.total // 10
    found = (
        f"{disk.free / 1e9:.0f} of {disk.total / 1e9:.0f} GB free for images; "
        f"about {max(0, int(room // _UNPACKED_BYTES))} of vLLM's CUDA images fit"
    )
    if room < _UNPACKED_BYTES:
        return Finding("disk", Verdict.LIMITED, found, "Free disk: vbisect clean, docker prune.")
    return Finding("disk", Verdict.OK, found)


def _registry(engine: Engine, repository: ImageReference) -> Finding:
    newest = repository.with_tag(f"v{max(catalogue(), key=Version)}")
    try:
        with Registry(plain_http=plain_http_registries(engine)) as registry:
            digest = registry.digest(newest)
    except HostError as error:
        return Finding("registry", Verdict.LIMITED, str(error), "Local images still work.")
    if digest is None:
        return Finding(
            "registry", Verdict.LIMITED, f"it answers, and has no {newest}", "See --image-repo."
        )
    return Finding("registry", Verdict.OK, f"it has {newest}")


def _package_index(device: Device) -> Finding:
    try:
        versions = list_versions(device.distribution)
    except IndexUnavailable as error:
        return Finding(
            "package index",
            Verdict.LIMITED,
            str(error),
            "The releases shipped with vbisect are used; --runtime venv needs an index.",
        )
    newest = f"{len(versions)} versions of {device.distribution}, the newest {versions[-1]}"
    return Finding("package index", Verdict.OK, newest)


def _compiler() -> Finding:
    if shutil.which("g++"):
        return Finding("compiler", Verdict.OK, "g++ is there, for --runtime venv")
    return Finding(
        "compiler",
        Verdict.LIMITED,
        "g++ is not there",
        "vLLM on a CPU needs it with --runtime venv: apt-get install g++ python3-dev libnuma1.",
    )


def _tokens() -> Iterator[Finding]:
    for names, purpose in (
        (("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), "gated models cannot be read without it"),
        (("GITHUB_TOKEN", "GH_TOKEN"), "only for vbisect post"),
    ):
        given = [name for name in names if os.environ.get(name)]
        if given:
            yield Finding("token", Verdict.OK, f"{given[0]} is set")
        else:
            yield Finding("token", Verdict.OK, f"{names[0]} is not set: {purpose}")
