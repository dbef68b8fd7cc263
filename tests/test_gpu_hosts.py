"""Whether a host has GPUs for its servers: by what its engine can do, and by what its kernel shows.

The files are those of the kernel and of NVIDIA's toolkit, laid out below a root of the test's own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vbisect.engine.gpus import GpuAccess, gpu_access, has_amd_gpus
from vbisect.engine.product import Product
from vbisect.errors import HostError
from vbisect.launch import LaunchSpec
from vbisect.launch.container_settings import (
    ContainerImage,
    ContainerOptions,
    container_arguments,
)
from vbisect.releases import Device
from vbisect.run.accelerators import other_accelerator
from vbisect.run.prepare import choose_device

PLAIN = {"Runtimes": {"runc": {}, "io.containerd.runc.v2": {}}}
NVIDIA = {"Runtimes": {"runc": {}, "nvidia": {"path": "nvidia-container-runtime"}}}
GIB = 2**30


def asking(hook: bool = False) -> Callable[..., str | None]:
    """A host's shell, with NVIDIA's hook on its path or without."""

    def ask(*command: str) -> str | None:
        if "nvidia-container-runtime-hook" in command[-1]:
            return "/usr/bin/nvidia-container-runtime-hook\n" if hook else None
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return None if done.returncode else done.stdout

    return ask


def nobody(*command: str) -> None:
    """A host that cannot be asked."""


def test_an_engine_with_a_runtime_a_hook_or_cdi_has_gpus(tmp_path: Path) -> None:
    """Each of them is enough, and none of them is nothing."""
    assert gpu_access(Product.DOCKER, PLAIN, nobody) is None
    assert gpu_access(Product.DOCKER, PLAIN, asking()) is None
    assert gpu_access(Product.DOCKER, NVIDIA, nobody) is GpuAccess.RUNTIME
    assert gpu_access(Product.DOCKER, PLAIN, asking(hook=True)) is GpuAccess.HOOK
    found = [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}, {"Source": "cdi", "ID": "x.org/nic=a"}]
    assert gpu_access(Product.DOCKER, PLAIN | {"DiscoveredDevices": found}, nobody) is GpuAccess.CDI


def test_an_engine_that_could_do_cdi_has_no_gpus_by_that(tmp_path: Path) -> None:
    """Folders for descriptions are told of everywhere; a description of GPUs has to be there."""
    able: dict[str, Any] = PLAIN | {"CDISpecDirs": [str(tmp_path / "etc"), str(tmp_path / "run")]}
    assert gpu_access(Product.DOCKER, able, asking()) is None
    assert gpu_access(Product.DOCKER, able | {"DiscoveredDevices": None}, nobody) is None
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "nic.yaml").write_text("kind: x.org/nic\n")
    assert gpu_access(Product.DOCKER, able, asking()) is None
    (tmp_path / "run" / "nvidia.yaml").write_text("cdiVersion: 0.6.0\nkind: nvidia.com/gpu\n")
    assert gpu_access(Product.DOCKER, able, asking()) is GpuAccess.CDI


def test_an_engine_with_gpus_of_amd() -> None:
    """By its runtime or by CDI."""
    assert has_amd_gpus({"Runtimes": {"runc": {}, "amd": {}}})
    assert has_amd_gpus(PLAIN | {"DiscoveredDevices": [{"Source": "cdi", "ID": "amd.com/gpu=0"}]})
    assert not has_amd_gpus(NVIDIA)


def requests(
    tmp_path: Path, gpus: str, slot: tuple[str, ...] = (), *, cdi: bool = False
) -> list[dict[str, Any]]:
    """What an engine is asked for a container."""
    spec = LaunchSpec(
        version="0.32.0",
        model="org/model",
        arguments=(),
        environment={},
        boot_timeout=60,
        log=tmp_path / "server.log",
        owner=tmp_path,
        gpus=slot,
    )
    options = ContainerOptions(
        gpus=gpus, cdi=cdi, memory=None, shared_memory=1, mounts={}, secrets={}, labels={}
    )
    found = container_arguments(spec, ContainerImage("sha256:a", ("vllm", "serve")), options)
    return [dict(each) for each in found["device_requests"]]


def test_a_container_is_given_the_gpus_of_its_slot(tmp_path: Path) -> None:
    """By their ids; by their names where the engine has CDI only."""
    [by_id] = requests(tmp_path, "all", ("6", "7"))
    assert (by_id["Driver"], by_id["Count"], by_id["DeviceIDs"]) == ("", 0, ["6", "7"])
    assert by_id["Capabilities"] == [["gpu"]]
    [by_name] = requests(tmp_path, "all", ("6", "MIG-a"), cdi=True)
    assert (by_name["Driver"], by_name["Count"]) == ("cdi", 0)
    assert by_name["DeviceIDs"] == ["nvidia.com/gpu=6", "nvidia.com/gpu=MIG-a"]
    assert by_name["Capabilities"] == []
    assert requests(tmp_path, "none", cdi=True) == []


def test_gpus_that_cannot_be_listed_are_given_as_they_were_asked_for(tmp_path: Path) -> None:
    """All of them, or those that were named."""
    [everything] = requests(tmp_path, "all")
    assert (everything["Count"], everything["DeviceIDs"]) == (-1, [])
    [by_name] = requests(tmp_path, "all", cdi=True)
    assert (by_name["Driver"], by_name["DeviceIDs"]) == ("cdi", ["nvidia.com/gpu=all"])
    [named] = requests(tmp_path, "x.org/h20=a,nvidia.com/gpu=1", cdi=True)
    assert named["DeviceIDs"] == ["x.org/h20=a", "nvidia.com/gpu=1"]


def pci(root: Path, address: str, vendor: str, device: str, **more: str) -> Path:
    """A device on the PCI bus."""
    folder = root / "sys/devices/pci0000:00" / address
    folder.mkdir(parents=True)
    for name, content in {"vendor": vendor, "device": device, **more}.items():
        (folder / name).write_text(f"{content}\n")
    bus = root / "sys/bus/pci/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / address).symlink_to(folder)
    return folder


def card(root: Path, number: int, address: str, vendor: str, **more: str) -> None:
    """A graphics device, which the kernel shows with its connectors."""
    folder = pci(root, address, vendor, "0x1234", **more)
    shown = folder / "drm" / f"card{number}"
    (shown / f"card{number}-DP-1").mkdir(parents=True)
    (shown / "device").symlink_to(folder)
    (shown / f"card{number}-DP-1" / "device").symlink_to(shown)
    drm = root / "sys/class/drm"
    drm.mkdir(parents=True, exist_ok=True)
    (drm / f"card{number}").symlink_to(shown)
    (drm / f"card{number}-DP-1").symlink_to(shown / f"card{number}-DP-1")


def compute(root: Path) -> None:
    """The device of AMD's driver by which ROCm computes."""
    (root / "dev").mkdir()
    (root / "dev/kfd").touch()


def mi300x(root: Path) -> None:
    """An accelerator of AMD; the graphics of the board are somebody else's."""
    card(root, 0, "0000:02:00.0", "0x1a03")
    card(root, 1, "0000:65:00.0", "0x1002", mem_info_vram_total=str(192 * GIB))
    compute(root)


def ryzen_with_rocm(root: Path) -> None:
    """The graphics of a processor, where somebody has installed ROCm."""
    ryzen(root)
    (root / "opt/rocm").mkdir(parents=True)


def arc(root: Path) -> None:
    """A graphics card of Intel beside the graphics of the processor."""
    card(root, 0, "0000:00:02.0", "0x8086")
    card(root, 1, "0000:03:00.0", "0x8086")


def tpu(root: Path) -> None:
    """A virtual machine of Google's with TPUs."""
    google(root)
    pci(root, "0000:00:05.0", "0x1ae0", "0x0063")


def laptop(root: Path) -> None:
    """The graphics of a processor of Intel."""
    card(root, 1, "0000:00:02.0", "0x8086")


def ryzen(root: Path) -> None:
    """The graphics of a processor of AMD, by which ROCm could compute."""
    card(root, 0, "0000:c1:00.0", "0x1002", mem_info_vram_total=str(512 * 2**20))
    compute(root)


def display(root: Path) -> None:
    """A large card of AMD that only shows pictures: the driver does not compute."""
    card(root, 0, "0000:03:00.0", "0x1002", mem_info_vram_total=str(24 * GIB))


def google(root: Path) -> None:
    """A virtual machine of Google's: its network card is of the vendor of TPUs."""
    pci(root, "0000:00:04.0", "0x1ae0", "0x0042")


def damaged(root: Path) -> None:
    """Files that say nothing."""
    card(root, 0, "0000:03:00.0", "\udcff".encode("utf-8", "surrogateescape").hex())
    card(root, 1, "0000:04:00.0", "0x1002", mem_info_vram_total="n/a")
    compute(root)


@pytest.mark.parametrize(
    ("host", "named"),
    [
        (mi300x, "AMD GPUs (ROCm)"),
        (ryzen_with_rocm, "AMD GPUs (ROCm)"),
        (arc, "Intel GPUs (XPU)"),
        (tpu, "TPUs"),
    ],
)
def test_other_accelerators_are_named(
    host: Callable[[Path], None], named: str, tmp_path: Path
) -> None:
    """A build for processors would be another one; whoever wants that says so."""
    host(tmp_path)
    assert other_accelerator(tmp_path) == named
    with pytest.raises(HostError) as refused:
        choose_device("auto", root=tmp_path)
    assert str(refused.value) == (
        f"This host has {named}, which is not supported; --device cpu would test another build."
    )
    assert choose_device("cpu", root=tmp_path) is Device.CPU


@pytest.mark.parametrize("host", [Path.mkdir, laptop, ryzen, display, google, damaged])
def test_hosts_with_processors_only(host: Callable[[Path], None], tmp_path: Path) -> None:
    """What belongs to a processor, or is no accelerator, makes no other host of it."""
    root = tmp_path / "root"
    host(root)
    assert other_accelerator(root) is None
    assert choose_device("auto", root=root) is Device.CPU
