"""vLLM's own images as a GPU host meets them: each with the CUDA it says it needs.

The configurations are those of NVIDIA's base images; where a driver is given, a server whose CUDA
it does not run ends as the real one does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from packaging.version import Version

from vbisect.releases import catalogue
from vbisect.releases.cuda import DriverFit, driver_fit, usual_requirement

from .behaviour import Behaviour
from .family import behaviour_of
from .images import NIGHTLY_VERSION, ImageFamily
from .registry import LocalRegistry

VARIANT, VARIANT_SINCE, VARIANT_CUDA = "cu129", Version("0.20.0"), "12.9"
TOO_OLD = "RuntimeError: The NVIDIA driver on your system is too old (found version 12070)."


def cuda_images(
    registry: LocalRegistry,
    repository: str,
    driver: str,
    change: Callable[[str, Behaviour], Behaviour],
    *,
    nightly: str,
    variants: bool = True,
) -> ImageFamily:
    """Push every release, and a nightly, for a host with this ``driver``.

    ``change`` gets version and behaviour of each; with ``variants``, those since 0.20 are pushed
    with CUDA 12.9 too.
    """
    family = ImageFamily(registry, repository)
    for version, entry in catalogue().items():
        built = change(version, behaviour_of("vllm", version, 0.0))
        tag = f"v{version}"
        _push(family, version, entry.cuda, built, driver, tag)
        if variants and Version(version) >= VARIANT_SINCE:
            _push(family, version, VARIANT_CUDA, built, driver, f"{tag}-{VARIANT}")
    version = f"{NIGHTLY_VERSION}+g{nightly[:9]}"
    built = change(version, behaviour_of("vllm", version, 0.0))
    tags = [f"nightly-{nightly}", "nightly"]
    _push(family, version, "13.0", built, driver, *tags, revision=nightly)
    if variants:
        tags = [f"{VARIANT}-{tag}" for tag in tags]
        _push(family, version, VARIANT_CUDA, built, driver, *tags, revision=nightly)
    return family


def _push(
    family: ImageFamily,
    version: str,
    cuda: str,
    behaviour: Behaviour,
    driver: str,
    *tags: str,
    revision: str | None = None,
) -> None:
    if driver_fit(driver, cuda) is DriverFit.TOO_OLD:
        behaviour = replace(behaviour, fault="exit_before_ready", fault_log=TOO_OLD)
    variables = [f"CUDA_VERSION={cuda}.1", f"NVIDIA_REQUIRE_CUDA={usual_requirement(cuda)}"]
    # no image has the layer of another one: what is pulled can be counted
    seeded = replace(behaviour, seed=hash((tags, cuda)) % 2**31)
    family.push(version, seeded, tags, revision=revision, variables=variables)
