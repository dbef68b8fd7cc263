"""Which GPU driver a release's CUDA needs."""

from __future__ import annotations

from enum import StrEnum

_OLDEST_DRIVER = {
    "12.1": "530.30.02",
    "12.4": "550.54.14",
    "12.8": "570.26",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
}
"""The driver each CUDA came with, on Linux
(https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/, table of toolkit driver versions)."""

_OLDEST_OF_MAJOR = {12: (525, 60, 13), 13: (580,)}
"""From this driver on, CUDA of that major version runs by minor version compatibility
(https://docs.nvidia.com/deploy/cuda-compatibility/)."""


class DriverFit(StrEnum):
    """How a driver suits a CUDA version."""

    FITS = "fits"
    MINOR = "fits by CUDA's minor version compatibility"
    TOO_OLD = "too old"
    UNKNOWN = "unknown"


def driver_fit(driver: str, cuda: str) -> DriverFit:
    """Whether ``driver`` (as nvidia-smi names it, ``570.86.15``) can run ``cuda`` (``12.8``)."""
    try:
        have = _numbers(driver)
        major = int(cuda.partition(".")[0])
    except ValueError:
        return DriverFit.UNKNOWN
    if cuda in _OLDEST_DRIVER and have >= _numbers(_OLDEST_DRIVER[cuda]):
        return DriverFit.FITS
    if major not in _OLDEST_OF_MAJOR:
        return DriverFit.UNKNOWN
    return DriverFit.MINOR if have >= _OLDEST_OF_MAJOR[major] else DriverFit.TOO_OLD


def driver_needed(cuda: str) -> str:
    """The driver a CUDA version came with, ``unknown`` where that is not known."""
    return _OLDEST_DRIVER.get(cuda, "unknown")


def _numbers(driver: str) -> tuple[int, ...]:
    return tuple(int(part) for part in driver.split("."))
