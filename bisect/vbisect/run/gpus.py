"""Which NVIDIA GPUs this machine has, as NVML knows them, and which of them are busy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from vbisect.text import one_line

_BUSY_SHARE = 0.05
"""A GPU with more of its memory taken than this is busy, whoever took it. vLLM refuses to start
where less than its share is free, by default 0.9 and later 0.92 of all memory, and the process
itself takes some; an idle GPU's driver takes less
(https://docs.vllm.ai/en/stable/api/vllm/config/cache/)."""

OUTSIDE = "outside CUDA_VISIBLE_DEVICES"
"""Why a GPU is busy that was given to others; no server sees it in any case."""

_LIBRARY_NOT_FOUND, _DRIVER_NOT_LOADED, _NO_PERMISSION, _VERSION_MISMATCH = 12, 9, 4, 18
"""Return values of NVML (https://docs.nvidia.com/deploy/nvml-api/, nvmlReturn_t)."""


class NoGpus(StrEnum):
    """Why no GPU could be listed."""

    NO_LIBRARY = "the NVIDIA driver is not installed"
    NO_DRIVER = "the NVIDIA driver is not loaded"
    VERSION_MISMATCH = "the NVIDIA driver was updated and waits for a restart of this machine"
    NO_PERMISSION = "the NVIDIA driver refuses this user"
    NO_DEVICE = "the NVIDIA driver sees no GPU"
    OTHER = "the NVIDIA driver does not answer as it should"


_BRANDS = {
    "UNKNOWN": "unknown",
    "QUADRO": "quadro",
    "TESLA": "tesla",
    "NVS": "nvs",
    "GRID": "grid",
    "GEFORCE": "geforce",
    "TITAN": "titan",
    "NVIDIA_VAPPS": "vapps",
    "NVIDIA_VPC": "vpc",
    "NVIDIA_VCS": "vcs",
    "NVIDIA_VWS": "vws",
    "NVIDIA_CLOUD_GAMING": "cloudgaming",
    "QUADRO_RTX": "quadrortx",
    "NVIDIA_RTX": "nvidiartx",
    "NVIDIA": "nvidia",
    "GEFORCE_RTX": "geforcertx",
    "TITAN_RTX": "titanrtx",
}
"""NVML's brands, and what images call them
(https://github.com/NVIDIA/libnvidia-container, src/nvc_info.c)."""

_REASONS = {
    _LIBRARY_NOT_FOUND: NoGpus.NO_LIBRARY,
    _DRIVER_NOT_LOADED: NoGpus.NO_DRIVER,
    _VERSION_MISMATCH: NoGpus.VERSION_MISMATCH,
    _NO_PERMISSION: NoGpus.NO_PERMISSION,
}


@dataclass(frozen=True)
class Gpu:
    """A GPU, or an ``instance``: a part that MIG made of one.

    ``index`` is NVML's, which is the order of the PCI bus; an instance has that of its GPU. Memory
    is in bytes. ``brand`` is as images name it (``nvidia``, ``geforce``), ``capability`` that of
    CUDA. All of these are ``None`` where the driver does not tell. ``busy`` says in a few words why
    no server may be put there, ``None`` where one may.
    """

    index: int
    uuid: str
    name: str
    memory_total: int | None
    memory_used: int | None
    busy: str | None = None
    instance: bool = False
    brand: str | None = None
    capability: tuple[int, int] | None = None

    @property
    def id(self) -> str:
        """What CUDA_VISIBLE_DEVICES, Docker and vLLM all know it by.

        CUDA and Docker take UUIDs too, vLLM reads whole numbers only
        (https://github.com/vllm-project/vllm/issues/41848). Instances have no number of their own.
        """
        return self.uuid if self.instance else str(self.index)


@dataclass(frozen=True)
class GpuListing:
    """The GPUs of this machine; ``problem`` is why there are none.

    ``driver`` is the driver's version and ``cuda`` the newest CUDA it runs, where it tells.
    """

    gpus: tuple[Gpu, ...]
    problem: NoGpus | None = None
    driver: str | None = None
    cuda: str | None = None


def list_gpus(environment: Mapping[str, str] = os.environ) -> GpuListing:
    """All GPUs of this machine in NVML's order, each followed by its MIG instances.

    Those outside a ``CUDA_VISIBLE_DEVICES`` of ``environment`` are busy: whoever set it, a batch
    scheduler for one, gave them to others. Faults of the driver become ``problem``, or the reason
    why the one GPU they are about is busy; nothing is raised.
    """
    import pynvml as nvml  # type: ignore[import-untyped]  # takes as long as all of the start-up

    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return GpuListing((), _REASONS.get(error.value, NoGpus.OTHER))
    try:
        found = [
            gpu
            for index in range(nvml.nvmlDeviceGetCount())
            for gpu in _at_index(nvml, index, environment.get("CUDA_VISIBLE_DEVICES"))
        ]
        driver = _told(nvml, nvml.nvmlSystemGetDriverVersion)
        cuda = _told(nvml, nvml.nvmlSystemGetCudaDriverVersion)
    except nvml.NVMLError as error:
        return GpuListing((), _REASONS.get(error.value, NoGpus.OTHER))
    finally:
        _told(nvml, nvml.nvmlShutdown)
    return GpuListing(
        gpus=tuple(found),
        problem=None if found else NoGpus.NO_DEVICE,
        driver=one_line(driver, 40) if driver else None,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
    )


def _at_index(nvml: Any, index: int, visible: str | None) -> Iterator[Gpu]:
    """The GPU at ``index``, then its instances."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        gpu = _described(nvml, handle, index)
    except nvml.NVMLError as error:  # one lost GPU must not hide the others
        yield Gpu(index, "", "", None, None, f"the driver says: {one_line(str(error))}")
        return
    outside = None if _is_visible(gpu, visible) else OUTSIDE
    mode = _told(nvml, nvml.nvmlDeviceGetMigMode, handle)  # not supported by most GPUs
    if mode is None or not mode[0]:
        yield replace(gpu, busy=outside or _busy(nvml, handle, gpu))
        return
    # CUDA computes on the instances only
    # (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/)
    yield replace(gpu, busy=outside or "split by MIG, name its instances as in --gpus MIG-…")
    for number in range(_told(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _told(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if part is not None:  # there may be fewer than the most there can be
            instance = _described(nvml, part, index, instance=True)
            hidden = outside and not _is_visible(instance, visible)
            yield replace(instance, busy=outside if hidden else _busy(nvml, part, instance))


def _described(nvml: Any, handle: Any, index: int, *, instance: bool = False) -> Gpu:
    """What a handle stands for. Raises ``NVMLError`` when not even its UUID is known."""
    # version 2 leaves out what the driver keeps for itself, drivers before R510 lack it
    # (https://docs.nvidia.com/deploy/nvml-api/structnvmlMemory__v2__t.html)
    memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2) or _told(
        nvml, nvml.nvmlDeviceGetMemoryInfo, handle
    )
    brand = _told(nvml, nvml.nvmlDeviceGetBrand, handle)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=one_line(_told(nvml, nvml.nvmlDeviceGetName, handle) or "unknown GPU"),
        memory_total=memory.total if memory else None,
        memory_used=memory.used if memory else None,
        instance=instance,
        brand=_brand_names(nvml).get(brand),
        capability=_told(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle),
    )


def _brand_names(nvml: Any) -> dict[int, str]:
    return {getattr(nvml, f"NVML_BRAND_{name}"): called for name, called in _BRANDS.items()}


def _busy(nvml: Any, handle: Any, gpu: Gpu) -> str | None:
    """Why the GPU is busy, if it is.

    Processes are not told to everyone, and never those outside vbisect's own container; then
    the memory they take gives them away.
    """
    # drivers before R510 lack version 3, and pynvml's name without one is of the newest only
    processes = _told(nvml, nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if processes is None:
        processes = _told(nvml, nvml.nvmlDeviceGetComputeRunningProcesses_v2, handle)
    if processes:
        return "1 compute process" if len(processes) == 1 else f"{len(processes)} compute processes"
    if gpu.memory_total and (gpu.memory_used or 0) > _BUSY_SHARE * gpu.memory_total:
        used, total = (gpu.memory_used or 0) / 2**30, gpu.memory_total / 2**30
        return f"{used:.1f} of {total:.1f} GiB taken"
    return None


def _is_visible(gpu: Gpu, visible: str | None) -> bool:
    """Whether ``CUDA_VISIBLE_DEVICES`` names it: by number, or by how its UUID begins.

    An empty value hides all GPUs, and nothing after a wrong number counts
    (https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html).
    """
    if visible is None:
        return True
    for word in visible.split(","):
        name = word.strip()
        if name.isdecimal():
            if not gpu.instance and int(name) == gpu.index:
                return True
        elif not name.startswith(("GPU-", "MIG-")):
            return False
        elif gpu.uuid.startswith(name):
            return True
    return False


def _told(nvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, ``None`` where the driver has none for this user, GPU or version."""
    try:
        return question(*arguments)
    except nvml.NVMLError:
        return None
