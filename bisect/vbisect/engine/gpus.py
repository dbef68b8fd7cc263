"""How a Docker engine gives NVIDIA GPUs to containers, if it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

CDI_KIND = "nvidia.com/gpu"
"""What NVIDIA's toolkit calls its GPUs in CDI, as in ``nvidia.com/gpu=0``
(https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/cdi-support.html)."""

_HOOK = "nvidia-container-runtime-hook"
"""Where dockerd finds it on its PATH, and nowhere else, ``--gpus`` works by it
(https://github.com/moby/moby/blob/v28.2.2/daemon/nvidia_linux.go)."""

_HOOK_SOUGHT = ("sh", "-c", f"PATH=$PATH:/usr/bin:/usr/local/bin:/usr/sbin; command -v {_HOOK}")

Ask = Callable[..., str | None]
"""What a command prints on the engine's host; ``None`` when it fails or nobody can ask there."""


class GpuAccess(StrEnum):
    """By what containers get GPUs."""

    HOOK = "NVIDIA's hook"
    CDI = "CDI"
    RUNTIME = "the nvidia runtime"


def gpu_access(info: Mapping[str, Any], ask: Ask) -> GpuAccess | None:
    """By what the engine that says ``info`` of itself gives GPUs; ``None`` when it cannot.

    Devices of CDI are told from Docker 28.3 on; before, the folders with their descriptions are.
    They are told where there are no devices too. The hook stands in nothing that an engine tells.
    """
    if ask(*_HOOK_SOUGHT) is not None:
        return GpuAccess.HOOK
    if _has_cdi(info, ask):
        return GpuAccess.CDI
    return GpuAccess.RUNTIME if "nvidia" in (info.get("Runtimes") or ()) else None


def has_amd_gpus(info: Mapping[str, Any]) -> bool:
    """Whether the engine that says ``info`` of itself gives GPUs of AMD to containers
    (https://instinct.docs.amd.com/projects/container-toolkit/en/latest/)."""
    return "amd" in (info.get("Runtimes") or ()) or _discovered(info, "amd.com/gpu")


def _discovered(info: Mapping[str, Any], kind: str) -> bool:
    devices = info.get("DiscoveredDevices") or ()
    return any(str(device.get("ID")).startswith(f"{kind}=") for device in devices)


def _has_cdi(info: Mapping[str, Any], ask: Ask) -> bool:
    if _discovered(info, CDI_KIND):
        return True
    folders = [str(folder) for folder in info.get("CDISpecDirs") or ()]
    return bool(folders) and ask("grep", "-rqse", CDI_KIND, "--", *folders) is not None
