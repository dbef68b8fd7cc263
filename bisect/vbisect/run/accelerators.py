"""Accelerators that vLLM has other builds for than vbisect tests: AMD's, Intel's and Google's.

Told by what the kernel shows, for vLLM's own tests need packages that only its environment has
(https://github.com/vllm-project/vllm/blob/main/vllm/platforms/__init__.py). What belongs to a
processor, as the graphics of most laptops, is none.
"""

from __future__ import annotations

import re
from pathlib import Path

AMD = "AMD GPUs (ROCm)"

_AMD, _INTEL, _GOOGLE = "0x1002", "0x8086", "0x1ae0"
"""Vendors as the PCI bus has them (https://pci-ids.ucw.cz)."""

_LEAST_AMD_MEMORY = 8 * 2**30
"""Bytes of a GPU of its own; the memory set aside for the graphics of a processor is less."""

_INTEL_GRAPHICS = re.compile(r"0000:00:02\.\d")
"""Where the graphics of Intel's processors are on the PCI bus; cards are behind a bridge."""

_TPUS = {"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"}
"""TPU v2 to v7 (https://github.com/jax-ml/jax/blob/main/jax/_src/hardware_utils.py); network cards
and disks of Google's virtual machines have the same vendor."""


def other_accelerator(root: Path = Path("/")) -> str | None:
    """What this host has in place of NVIDIA GPUs, in a few words; ``None`` where it has nothing.

    ``root`` is above ``/sys``, ``/dev`` and ``/opt``.
    """
    cards = [card / "device" for card in (root / "sys/class/drm").glob("card*")]
    if any(_is_rocm(card, root) for card in cards):
        return AMD
    devices = (root / "sys/bus/pci/devices").glob("*")
    if any(_read(d / "vendor") == _GOOGLE and _read(d / "device") in _TPUS for d in devices):
        return "TPUs"
    if any(_is_xpu(card) for card in cards):
        return "Intel GPUs (XPU)"
    return None


def _is_rocm(card: Path, root: Path) -> bool:
    """Whether ROCm computes on it: by the driver's device for that, and a size or software."""
    if _read(card / "vendor") != _AMD or not (root / "dev/kfd").exists():
        return False
    memory = _read(card / "mem_info_vram_total")
    large = memory.isdecimal() and int(memory) >= _LEAST_AMD_MEMORY
    return large or (root / "opt/rocm").exists()


def _is_xpu(card: Path) -> bool:
    return _read(card / "vendor") == _INTEL and not _INTEL_GRAPHICS.fullmatch(card.resolve().name)


def _read(path: Path) -> str:
    """The word that a file of the kernel holds, nothing where there is none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
