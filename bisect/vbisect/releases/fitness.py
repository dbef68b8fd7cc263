"""Whether a host can run a build, as known before anything is fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from vbisect.reasons import SkipReason, Untestable
from vbisect.releases.catalogue import catalogue
from vbisect.releases.cuda import (
    Card,
    DriverFit,
    driver_fit,
    driver_needed,
    has_kernels,
    is_met,
    listed_branches,
    usual_requirement,
)
from vbisect.releases.pythons import pythons_of
from vbisect.releases.release import Device
from vbisect.text import one_line

VARIANT, VARIANT_CUDA, VARIANT_SINCE = "cu129", "12.9", Version("0.20.0")
"""The images with an older CUDA than the usual one, for older drivers (VLLM-FACTS, Images)."""

NO_DYNAMO = "TORCHDYNAMO_DISABLE"
"""With 1 torch compiles nothing (``optimize`` in torch/_dynamo/eval_frame.py)."""

NO_COMPILE = "TORCH_COMPILE_DISABLE"
"""With 1 neither (torch/_dynamo/config.py), and vLLM's own configuration says so."""

COMPATIBILITY = "VLLM_ENABLE_CUDA_COMPATIBILITY"
_COMPATIBILITY_SINCE = Version("0.17.0")
"""From here on the variable decides; older images always put CUDA's compatibility library first
(``ldconfig /usr/local/cuda-…/compat`` in their docker/Dockerfile)."""

_ARM_WHEELS_SINCE = Version("0.10.2")
"""The first release with wheels for aarch64 (VLLM-FACTS, read from all CUDA wheels)."""


class Part(NamedTuple):
    """A part of the system, and Debian's package with it."""

    name: str
    package: str


LIBNUMA = Part("libnuma.so.1", "libnuma1")
"""What vLLM's compiled part for processors is linked with (cmake/cpu_extension.cmake)."""

COMPILER, HEADERS = Part("a C++ compiler", "g++"), Part("Python.h", "python3-dev")
"""What torch compiles with on a processor (torch/_inductor/cpp_builder.py)."""

_COMPILES_SINCE = Version("0.27.0")
"""0.27.0 and 0.32.0 die of the first request that samples where there is none; older releases were
not tried."""


@dataclass(frozen=True)
class Host:
    """Where servers will run; ``None`` and nothing stand for what is not known of it.

    ``driver`` is the GPU driver's version and ``cuda`` the newest CUDA it runs. ``pythons`` are
    those that environments can be made with, where no other can be had. It ``lacks`` these parts.
    """

    driver: str | None = None
    cuda: str | None = None
    cards: tuple[Card, ...] = ()
    machine: str | None = None
    pythons: tuple[str, ...] | None = None
    lacks: frozenset[Part] = frozenset()


@dataclass(frozen=True)
class Needs:
    """What a build asks of its host.

    ``cuda`` is the one it was built with, ``requirement`` what is checked before its container
    starts. With ``forward`` it uses a library that makes a newer CUDA run on data-centre cards.
    ``python`` is a specifier, ``since_on`` the first version there is by machine, ``parts`` are
    those of the system.
    """

    version: str
    cuda: str | None = None
    requirement: str = ""
    forward: bool = False
    python: str | None = None
    since_on: Mapping[str, Version] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


def refusal(needs: Needs, host: Host) -> Untestable | None:
    """Why ``host`` cannot run the build, ``None`` where it can or nobody can tell."""
    since = needs.since_on.get(host.machine or "")
    if since is not None and Version(needs.version) < since:
        return Untestable(
            SkipReason.NOT_PUBLISHED, f"there are no wheels for {host.machine} before {since}"
        )
    if needs.python and host.pythons is not None:
        allowed = SpecifierSet(needs.python)
        if not any(allowed.contains(python) for python in host.pythons):
            there = ", ".join(host.pythons) or "none"
            return Untestable(
                SkipReason.NOT_INSTALLABLE,
                f"it needs Python {needs.python}, and this host has {there}",
            )
    if missing := [part for part in needs.parts if part in host.lacks]:
        return Untestable(
            SkipReason.SYSTEM_PACKAGE,
            f"vLLM on a CPU needs {' and '.join(part.name for part in missing)}, which this host "
            f"lacks (apt-get install {' '.join(part.package for part in missing)})",
        )
    return _gpu_refusal(needs, host)


def _gpu_refusal(needs: Needs, host: Host) -> Untestable | None:
    if needs.cuda:
        known = [card for card in host.cards if card.capability]
        if known and not any(has_kernels(needs.cuda, c.capability or (0, 0)) for c in known):
            card = known[0]
            major, minor = card.capability or (0, 0)
            return Untestable(
                SkipReason.GPU_NOT_SUPPORTED,
                f"CUDA {needs.cuda} builds have no kernels for compute capability "
                f"{major}.{minor} ({card.name})",
            )
    if host.driver is None:
        return None
    cards = host.cards or (Card(),)
    if not any(is_met(needs.requirement, host.driver, host.cuda, card) for card in cards):
        return Untestable(SkipReason.DRIVER_TOO_OLD, _unmet(needs.requirement, host))
    if needs.cuda and driver_fit(host.driver, needs.cuda) is DriverFit.TOO_OLD:
        if needs.forward and any(card.takes_newer_cuda for card in cards):
            return None
        return Untestable(
            SkipReason.DRIVER_TOO_OLD,
            f"CUDA {needs.cuda} needs driver {driver_needed(needs.cuda)}, this one is "
            f"{host.driver}",
        )
    return None


def _unmet(requirement: str, host: Host) -> str:
    asked = one_line(next(iter(requirement.split()), ""), 60)
    branches = [one_line(branch, 10) for branch in listed_branches(requirement)[:12]]
    runs = f", which runs CUDA {host.cuda}" if host.cuda else ""
    brand = host.cards[0].brand if host.cards else None
    of_brand = f" of a {brand} card" if brand else ""
    listed = f", or of listed cards driver branches {', '.join(branches)}" if branches else ""
    return f"the image requires {asked}{listed}; this is driver {host.driver}{of_brand}{runs}"


def stretch(versions: Sequence[str]) -> str:
    """Neighbouring releases for people, with their number where there are several."""
    if len(versions) == 1:
        return versions[0]
    return f"{versions[0]} to {versions[-1]} ({len(versions)} releases)"


def wheel_needs(version: str, device: Device, variables: Mapping[str, str]) -> Needs:
    """What a release's wheel asks; ``variables`` are those that its server is given."""
    entry = catalogue().get(version)
    python = pythons_of(version, entry.requires_python) if entry else None
    if device is Device.CPU:
        return Needs(version, python=python, parts=_parts(version, variables))
    if entry is None:
        return Needs(version, python=python)
    return Needs(
        version,
        cuda=entry.cuda,
        forward=_compatible(version, variables, otherwise=False),
        python=python,
        since_on={"aarch64": _ARM_WHEELS_SINCE},
    )


def _parts(version: str, variables: Mapping[str, str]) -> tuple[Part, ...]:
    compiles = Version(version) >= _COMPILES_SINCE
    if not compiles or "1" in (variables.get(NO_DYNAMO), variables.get(NO_COMPILE)):
        return (LIBNUMA,)
    return (LIBNUMA, COMPILER, HEADERS)


def official_needs(version: str, variant: str, variables: Mapping[str, str]) -> Needs | None:
    """What the official image of a release asks, by the catalogue alone.

    ``variant`` is the end of its tag. ``None`` where the catalogue does not know.
    """
    entry = catalogue().get(version)
    named = re.fullmatch(r"cu(\d\d)(\d)", variant)
    if entry is None or not (named or variant in ("", "x86_64", "aarch64")):
        return None
    cuda = f"{named[1]}.{named[2]}" if named else entry.cuda
    return _image_needs(version, cuda, usual_requirement(cuda), variables)


def image_needs(version: str, image: Mapping[str, str], variables: Mapping[str, str]) -> Needs:
    """What an image asks that has the variables ``image`` in its own configuration."""
    named = re.match(r"[0-9]{1,3}\.[0-9]{1,3}(?=\.|$)", image.get("CUDA_VERSION", ""))
    cuda = named[0] if named else None
    return _image_needs(version, cuda, image.get("NVIDIA_REQUIRE_CUDA", ""), variables)


def _image_needs(
    version: str, cuda: str | None, requirement: str, variables: Mapping[str, str]
) -> Needs:
    # https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
    unchecked = variables.get("NVIDIA_DISABLE_REQUIRE", "").lower() in ("1", "t", "true")
    return Needs(
        version,
        cuda=cuda,
        requirement="" if unchecked else requirement,
        forward=_compatible(version, variables, otherwise=True),
    )


def _compatible(version: str, variables: Mapping[str, str], *, otherwise: bool) -> bool:
    """Whether a server uses CUDA's compatibility library; ``otherwise`` holds for old releases."""
    if Version(version) < _COMPATIBILITY_SINCE:
        return otherwise
    return variables.get(COMPATIBILITY, "0").lower() in ("1", "true")
