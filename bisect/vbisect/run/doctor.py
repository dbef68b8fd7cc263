"""Whether a host is fit for runs: each finding with what to do about it."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from packaging.version import Version

from vbisect.engine import Engine, connect
from vbisect.engine.gpus import NO_GPUS_FROM_PODMAN
from vbisect.engine.images import plain_http_registries
from vbisect.engine.product import Product
from vbisect.errors import HostError
from vbisect.paths import cache_root, host_identity, with_tilde
from vbisect.reasons import ADVICE, SkipReason
from vbisect.registry import ImageReference, Registry
from vbisect.registry.reference import login_command
from vbisect.releases import Device, IndexUnavailable, catalogue
from vbisect.releases.cuda import listed_branches, usual_requirement
from vbisect.releases.fitness import (
    COMPILER,
    HEADERS,
    LIBNUMA,
    NO_DYNAMO,
    VARIANT,
    VARIANT_SINCE,
    Host,
    Part,
    official_needs,
    refusal,
    stretch,
    wheel_needs,
)
from vbisect.releases.index import TO_CHECK, list_versions
from vbisect.run.accelerators import other_accelerator
from vbisect.run.docker_settings import default_image_repo
from vbisect.run.fit import pythons_here
from vbisect.run.gpus import list_gpus
from vbisect.run.host import gpu_host, gpu_line, missing_parts

_UNPACKED_BYTES = 28e9
"""A recent image of vLLM for CUDA, unpacked (25–29 GB)."""

_FEW_PULLS = 15


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
            yield from _registry(engine, repository)
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
    if device is Device.CPU or list_gpus().problem is None:
        yield from _wheels(device)
    if device is Device.CPU:
        yield from _for_processors()
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
        f"{engine.product} {facts['engine']} at {engine.where}, {facts['storage_driver']}, "
        f"{facts['os']}",
    )


def _gpu(device: Device, engine: Engine | None) -> Iterator[Finding]:
    if device is Device.CPU:
        yield Finding("GPU", Verdict.OK, "not needed for --device cpu")
        return
    if engine is not None:
        access = engine.gpu_access
        if access is not None:
            yield Finding("GPU runtime", Verdict.OK, f"the engine has {access}")
        elif engine.product is Product.PODMAN:
            found, _, advice = NO_GPUS_FROM_PODMAN.partition(": ")
            yield Finding("GPU runtime", Verdict.MISSING, found, advice)
        else:
            runtimes = engine.facts()["runtimes"]
            yield Finding(
                "GPU runtime",
                Verdict.MISSING,
                f"the engine gives containers no GPU: its runtimes are {', '.join(runtimes)}",
                "Install the NVIDIA container toolkit: nvidia-ctk runtime configure "
                "--runtime=docker, then restart Docker.",
            )
        if engine.remote:
            yield Finding("driver", Verdict.LIMITED, "not looked at on another machine")
            return
    listing = list_gpus()
    if listing.problem is not None:
        other = other_accelerator()
        if other is not None:
            advice = "They are not supported; --device cpu would test another build."
            yield Finding("GPU", Verdict.MISSING, f"none of NVIDIA, but {other}", advice)
            return
        told = f"{listing.problem}"
        yield Finding("GPU", Verdict.MISSING, told, "Use --device cpu on this host.")
        return
    lines = Counter(gpu_line(gpu, listing.driver) for gpu in listing.gpus if not gpu.instance)
    gpus = (f"{number} × {line}" if number > 1 else line for line, number in lines.items())
    yield Finding("GPU", Verdict.OK, "; ".join(gpus))
    yield from _images(gpu_host(listing))


def _images(host: Host) -> Iterator[Finding]:
    """Which official images of the whole range the host runs, those alike together."""
    whys: dict[tuple[str, str, str], list[str]] = {}
    for version, entry in catalogue().items():
        why, instead = _judged(version, "", host), ""
        if why and Version(version) >= VARIANT_SINCE and not _judged(version, VARIANT, host):
            instead = VARIANT
        whys.setdefault((entry.cuda, why, instead), []).append(version)
    for (cuda, why, instead), versions in whys.items():
        branches = "branches " + ", ".join(listed_branches(usual_requirement(cuda)))
        have = "has" if len(versions) == 1 else "have"
        asked = f"{stretch(versions)} {have} CUDA {cuda} and take older drivers of {branches}"
        if not why:
            found = f"{asked}; driver {host.driver} runs them"
            yield Finding("images", Verdict.OK, found)
        elif instead:
            found = f"{asked}; {why}"
            advice = f"Their {instead} variant runs here, and is taken where you name none."
            yield Finding("images", Verdict.LIMITED, found, advice)
        else:
            advice = ADVICE[SkipReason(why.partition(":")[0])]
            yield Finding("images", Verdict.LIMITED, f"{asked}; {why}", advice)


def _judged(version: str, variant: str, host: Host) -> str:
    """Why the host does not run an official image; empty where it does."""
    needs = official_needs(version, variant, {})
    refused = refusal(needs, host) if needs else None
    return str(refused) if refused else ""


def _wheels(device: Device) -> Iterator[Finding]:
    """Which wheels of the whole range the host cannot run, those alike together."""
    needs = [
        wheel_needs(version, device, {NO_DYNAMO: "1"})  # as for the tiny models
        for version, entry in catalogue().items()
        if device is Device.CUDA or entry.cpu_wheels
    ]
    host = gpu_host(list_gpus()) if device is Device.CUDA else Host(machine=platform.machine())
    pythons = pythons_here(need.python for need in needs)
    lacks = missing_parts() if device is Device.CPU else frozenset[Part]()
    host = replace(host, pythons=pythons, lacks=lacks)
    whys: dict[tuple[str, str], list[str]] = {}
    for need in needs:
        if refused := refusal(need, host):
            whys.setdefault((str(refused), ADVICE[refused.reason]), []).append(need.version)
    for (why, advice), versions in whys.items():
        yield Finding("wheels", Verdict.LIMITED, f"{stretch(versions)}: {why}", advice)
    fit = len(needs) - sum(map(len, whys.values()))
    yield Finding("wheels", Verdict.OK, f"{fit} of {len(needs)} releases can run from wheels")


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


def _registry(engine: Engine, repository: ImageReference) -> Iterator[Finding]:
    newest = repository.with_tag(f"v{max(catalogue(), key=Version)}")
    try:
        with Registry(plain_http=plain_http_registries(engine)) as registry:
            digest = registry.digest(newest)
            there = digest is not None or registry.has(repository)
            allowance = registry.allowance(newest.registry)
    except HostError as error:
        yield Finding("registry", Verdict.LIMITED, str(error), "Local images still work.")
        return
    if not there:
        told = f"it answers, and has no repository {repository}"
        yield Finding("registry", Verdict.LIMITED, told, "See --image-repo.")
        return
    if digest is None:
        yield Finding(
            "registry", Verdict.LIMITED, f"it answers, and has no {newest}", "See --image-repo."
        )
    else:
        yield Finding("registry", Verdict.OK, f"it has {newest}")
    if allowance is not None:
        few = allowance.left < _FEW_PULLS
        yield Finding(
            "allowance",
            Verdict.LIMITED if few else Verdict.OK,
            f"{allowance} at {newest.registry}",
            f"A run pulls about ten images; `{login_command(newest.registry)}` raises the limit.",
        )


def _package_index(device: Device) -> Finding:
    try:
        versions = list_versions(device.distribution, anew=True)
    except IndexUnavailable as error:
        return Finding(
            "package index",
            Verdict.LIMITED,
            str(error),
            f"{TO_CHECK}: --runtime venv needs one. Until then the releases shipped with vbisect "
            "are known.",
        )
    newest = f"{len(versions)} versions of {device.distribution}, the newest {versions[-1]}"
    return Finding("package index", Verdict.OK, newest)


def _for_processors() -> Iterator[Finding]:
    """What servers on processors need of the system with ``--runtime venv``."""
    lacks = missing_parts()
    for name, part in (
        ("libnuma", LIBNUMA),
        ("compiler", COMPILER),
        ("Python headers", HEADERS),
    ):
        spared = "" if part is LIBNUMA else "; the tiny models need none"
        if part not in lacks:
            yield Finding(name, Verdict.OK, f"there, for --runtime venv{spared}")
        else:
            advice = f"vLLM on a CPU needs it with --runtime venv: apt-get install {part.package}."
            yield Finding(name, Verdict.LIMITED, f"not there{spared}", advice)


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
