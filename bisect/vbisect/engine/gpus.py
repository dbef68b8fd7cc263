"""How a Docker engine gives NVIDIA GPUs to containers, if it can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from vbisect.engine.product import Product

CDI_KIND = "nvidia.com/gpu"
"""What NVIDIA's toolkit calls its GPUs in CDI, as in ``nvidia.com/gpu=0``
(https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/cdi-support.html)."""

_HOOK = "nvidia-container-runtime-hook"
"""Where dockerd finds it on its PATH, and nowhere else, ``--gpus`` works by it
(https://github.com/moby/moby/blob/v28.2.2/daemon/nvidia_linux.go)."""

_HOOK_SOUGHT = ("sh", "-c", f"PATH=$PATH:/usr/bin:/usr/local/bin:/usr/sbin; command -v {_HOOK}")

_PODMAN_FOLDERS = ("/etc/cdi", "/var/run/cdi")
"""Where Podman looks for descriptions of CDI, unless its configuration names others
(https://github.com/cncf-tags/container-device-interface)."""

NO_GPUS_FROM_PODMAN = (
    f"Podman has no GPU for its containers: nothing in {' or '.join(_PODMAN_FOLDERS)} describes "
    f"{CDI_KIND}. Install the NVIDIA container toolkit, then run as root: nvidia-ctk cdi generate "
    "--output=/etc/cdi/nvidia.yaml; or pass --gpus none --device cpu."
)
"""Podman passes over what it is asked for in Docker's way, without a word (seen with 4.3)."""

Ask = Callable[..., str | None]
"""What a command prints on the engine's host; ``None`` when it fails or nobody can ask there."""


class GpuAccess(StrEnum):
    """By what containers get GPUs."""

    HOOK = "NVIDIA's hook"
    CDI = "CDI"
    RUNTIME = "the nvidia runtime"


def gpu_access(product: Product, info: Mapping[str, Any], ask: Ask) -> GpuAccess | None:
    """By what the engine that says ``info`` of itself gives GPUs; ``None`` when it cannot.

    Devices of CDI are told from Docker 28.3 on; before, the folders with their descriptions are.
    They are told where there are no devices too. The hook stands in nothing that an engine tells.
    Podman gives GPUs by CDI alone.
    """
    if product is Product.PODMAN:
        return GpuAccess.CDI if _described(_PODMAN_FOLDERS, ask) else None
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
    return bool(folders) and _described(folders, ask)


def _described(folders: Iterable[str], ask: Ask) -> bool:
    return ask("grep", "-rqse", CDI_KIND, "--", *folders) is not None
