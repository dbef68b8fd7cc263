"""What a CUDA version asks of a GPU and its driver, and what images of it ask of their host."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

_OLDEST_DRIVER = {
    "12.1": "530.30.02",
    "12.4": "550.54.14",
    "12.8": "570.26",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
}
"""The driver each CUDA came with, on Linux, oldest first
(https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/, table of toolkit driver versions)."""

_OLDEST_OF_MAJOR = {12: "525.60.13", 13: "580"}
"""From this driver on, CUDA of that major version runs by minor version compatibility
(https://docs.nvidia.com/deploy/cuda-compatibility/)."""

_OLDEST_CAPABILITY = {12: (7, 0), 13: (7, 5)}
"""vLLM needs 7.0 (https://docs.vllm.ai/en/stable/getting_started/installation/gpu/), and CUDA 13
can no longer compile for it (https://docs.nvidia.com/cuda/archive/13.0.0/cuda-toolkit-release-notes/,
"Maxwell, Pascal, and Volta")."""

_BLACKWELL, _BLACKWELL_SINCE = (10, 0), "12.8"
"""PyTorch's builds of an older CUDA hold nothing that runs on it
(https://pytorch.org/blog/pytorch-2-7/, "NVIDIA Blackwell")."""

_CONSUMER = frozenset({"geforce", "geforcertx", "nvs", "titan", "titanrtx"})
"""Brands that a newer CUDA's compatibility library refuses: it is for data-centre cards
(https://docs.nvidia.com/deploy/cuda-compatibility/, forward compatibility)."""

_BRANDS = "unknown grid tesla nvidia quadro quadrortx nvidiartx vapps vpc vcs vws cloudgaming"
_OLDER_BRANDS = "tesla unknown nvidia nvidiartx geforce geforcertx quadro quadrortx titan titanrtx"
_BRANCHES = {
    "12.1": (_OLDER_BRANDS, (470, 510, 515, 525)),
    "12.4": (_OLDER_BRANDS, (470, 525, 535)),
    "12.8": (_BRANDS, (470, 535, 550, 560, 565)),
    "12.9": (_BRANDS, (535, 550, 560, 565, 570)),
    "13.0": (_BRANDS, (535, 550, 565, 570, 575)),
}
"""Brands and branches of older drivers that NVIDIA's images of a CUDA let pass
(https://gitlab.com/nvidia/container-images/cuda, dist/12.1.0 … 13.0.2, NVIDIA_REQUIRE_CUDA), as
``collect_env`` shows them in vLLM's images; of 12.1 there are two lists, and this is the longer."""


@dataclass(frozen=True)
class Card:
    """A GPU as rules see it: its brand (``nvidia``, ``geforce``) and its compute capability."""

    name: str = "GPU"
    brand: str | None = None
    capability: tuple[int, int] | None = None

    @property
    def takes_newer_cuda(self) -> bool:
        """Whether a newer CUDA's compatibility library may work with it."""
        return self.brand not in _CONSUMER


class DriverFit(StrEnum):
    """How a driver suits a CUDA version."""

    FITS = "fits"
    MINOR = "fits by CUDA's minor version compatibility"
    TOO_OLD = "too old"
    UNKNOWN = "unknown"


def driver_fit(driver: str, cuda: str) -> DriverFit:
    """Whether ``driver`` (as the driver names itself, ``570.86.15``) runs ``cuda`` (``12.8``)."""
    try:
        oldest = _OLDEST_OF_MAJOR.get(int(cuda.partition(".")[0]))
        if cuda in _OLDEST_DRIVER and _compared(driver, _OLDEST_DRIVER[cuda]) >= 0:
            return DriverFit.FITS
        if oldest is None:
            return DriverFit.UNKNOWN
        return DriverFit.MINOR if _compared(driver, oldest) >= 0 else DriverFit.TOO_OLD
    except ValueError:
        return DriverFit.UNKNOWN


def driver_of(cuda: str) -> str:
    """The driver a CUDA version came with, ``unknown`` where that is not known."""
    return _OLDEST_DRIVER.get(cuda, "unknown")


def driver_needed(cuda: str) -> str:
    """The oldest driver that runs a CUDA version; ``unknown`` where that is not known."""
    return _OLDEST_OF_MAJOR.get(int(cuda.partition(".")[0]), "unknown")


def has_kernels(cuda: str, capability: tuple[int, int]) -> bool:
    """Whether vLLM built with ``cuda`` may have code for a GPU; true where that is not known."""
    try:
        if capability >= _BLACKWELL and _compared(cuda, _BLACKWELL_SINCE) < 0:
            return False
        return capability >= _OLDEST_CAPABILITY.get(int(cuda.partition(".")[0]), (0, 0))
    except ValueError:
        return True


def usual_requirement(cuda: str) -> str:
    """``NVIDIA_REQUIRE_CUDA`` of NVIDIA's images of ``cuda``; empty where that is not known."""
    if cuda not in _BRANCHES:
        return ""
    brands, branches = _BRANCHES[cuda]
    older = (
        f"brand={brand},driver>={branch},driver<{branch + 1}"
        for branch in branches
        for brand in brands.split()
    )
    return " ".join([f"cuda>={cuda}", *older])


def listed_branches(requirement: str) -> tuple[str, ...]:
    """The driver branches that a requirement lets pass beside the newest."""
    terms = (term for words in requirement.split() for term in words.split(","))
    named = (term.removeprefix("driver>=") for term in terms if term.startswith("driver>="))
    return tuple(dict.fromkeys(branch for branch in named if branch.isdecimal()))


def is_met(requirement: str, driver: str, newest_cuda: str | None, card: Card) -> bool:
    """Whether a host meets what an image requires of it, in NVIDIA's language for that.

    A space is an "or", a comma an "and"; without it being met no container is started
    (https://github.com/NVIDIA/libnvidia-container, src/cli/dsl.c). What cannot be told, and what
    is no such requirement, counts as met. ``newest_cuda`` is the newest that ``driver`` runs.
    """
    facts = {
        "cuda": newest_cuda or _newest_cuda(driver),
        "driver": driver,
        "arch": ".".join(map(str, card.capability)) if card.capability else None,
        "brand": card.brand,
    }
    alternatives = [words.split(",") for words in requirement.split()]
    return not alternatives or any(all(_holds(t, facts) for t in terms) for terms in alternatives)


def _holds(term: str, facts: dict[str, str | None]) -> bool:
    for sign in ("!=", "<=", ">=", "<", ">", "="):
        name, found, value = term.partition(sign)
        if not found:
            continue
        fact = facts.get(name.lower())
        if fact is None:
            return True
        if name.lower() == "brand":
            return (fact == value.lower()) == (sign == "=")
        try:
            order = _compared(fact, value)
        except ValueError:
            return True
        return {
            "!=": order != 0,
            "<=": order <= 0,
            ">=": order >= 0,
            "<": order < 0,
            ">": order > 0,
            "=": order == 0,
        }[sign]
    return True


def _newest_cuda(driver: str) -> str | None:
    """The newest CUDA that came with a driver no newer; ``None`` for one older than all known."""
    try:
        came_with = [c for c, oldest in _OLDEST_DRIVER.items() if _compared(driver, oldest) >= 0]
    except ValueError:
        return None
    return came_with[-1] if came_with else None


def _compared(left: str, right: str) -> int:
    """Below, at or above zero as ``left`` is older than, the same as or newer than ``right``."""
    pairs = zip_longest(left.split("."), right.split("."), fillvalue="0")
    return next((int(a) - int(b) for a, b in pairs if int(a) != int(b)), 0)
