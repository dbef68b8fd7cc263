"""Listing GPUs: the real pynvml over a stand-in for the driver's library, with its faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from standin.nvml import GIB, build_library, device, driver, gpu_environment
from vbisect.run.gpus import NoGpus

LISTING = """
import dataclasses, json
from vbisect.run.gpus import list_gpus
listing = list_gpus()
gpus = [{**dataclasses.asdict(gpu), "id": gpu.id} for gpu in listing.gpus]
print(json.dumps({**dataclasses.asdict(listing), "gpus": gpus}))
"""

NO_PERMISSION, NOT_SUPPORTED, GPU_IS_LOST = 4, 3, 15

List = Callable[..., Any]


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with the driver's library: of today, of an old driver, and a damaged one."""
    root = tmp_path_factory.mktemp("nvml")
    (root / "damaged").mkdir()
    (root / "damaged" / "libnvidia-ml.so.1").write_text("")
    return {
        "today": build_library(root / "today"),
        "old": build_library(root / "old", "-DOLD_DRIVER"),
        "damaged": root / "damaged",
    }


@pytest.fixture
def listed(libraries: dict[str, Path], tmp_path: Path) -> List:
    """Lists the GPUs of a state of the driver, in a process of its own."""

    def listing(*state: str, library: str = "today", visible: str | None = None) -> Any:
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        environment |= gpu_environment(libraries[library], tmp_path / "state", state)
        if visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        told = subprocess.run(
            [sys.executable, "-c", LISTING], env=environment, capture_output=True, text=True
        )
        assert (told.returncode, told.stderr) == (0, "")
        return json.loads(told.stdout)

    return listing


def nothing(problem: NoGpus) -> dict[str, Any]:
    """The listing of a machine without GPUs."""
    return {"gpus": [], "problem": problem, "driver": None, "cuda": None}


def reasons(listing: Any) -> list[str | None]:
    """Why each GPU is busy."""
    return [gpu["busy"] for gpu in listing["gpus"]]


def test_what_is_told_of_a_gpu(listed: List) -> None:
    """Index, UUID, name and memory in bytes, without what the driver keeps for itself."""
    listing = listed(device("GPU-a"), device("GPU-b", name="NVIDIA L40S"))
    assert listing["problem"] is None
    assert [gpu["id"] for gpu in listing["gpus"]] == ["0", "1"]
    assert listing["gpus"][1] == {
        "index": 1,
        "id": "1",
        "uuid": "GPU-b",
        "name": "NVIDIA L40S",
        "memory_total": 80 * GIB,
        "memory_used": 8 * 2**20,
        "busy": None,
        "instance": False,
        "brand": "nvidia",
        "capability": [9, 0],
    }


def test_what_is_told_of_the_driver(listed: List) -> None:
    """Its version and the newest CUDA it runs; of each GPU its brand and capability, if told."""
    listing = listed(
        driver("565.57.01", 12070),
        device("GPU-a", brand=5, capability=(8, 9)),
        device("GPU-b", brand=-1, capability=(-1, 0)),
    )
    assert (listing["driver"], listing["cuda"]) == ("565.57.01", "12.7")
    told = [(gpu["brand"], gpu["capability"]) for gpu in listing["gpus"]]
    assert told == [("geforce", [8, 9]), (None, None)]
    unknown = listed(device("GPU-a"))
    assert (unknown["driver"], unknown["cuda"]) == (None, None)


def test_processes_and_memory_make_a_gpu_busy(listed: List) -> None:
    """A process that computes makes it busy however little it takes, memory whoever took it."""
    listing = listed(
        device("GPU-a", processes=1),
        device("GPU-b", processes=3),
        device("GPU-c", used=4 * GIB),
        device("GPU-d", used=4 * GIB + 1),
        device("GPU-e", used=78 * GIB),
    )
    assert reasons(listing) == [
        "1 compute process",
        "3 compute processes",
        None,
        "4.0 of 80.0 GiB taken",
        "78.0 of 80.0 GiB taken",
    ]


@pytest.mark.parametrize("refusal", [NO_PERMISSION, NOT_SUPPORTED, 999])
def test_memory_decides_where_processes_are_not_told(listed: List, refusal: int) -> None:
    """Other users' processes may be hidden, their memory is not."""
    listing = listed(
        device("GPU-a", processes=2, processes_error=refusal, used=30 * GIB),
        device("GPU-b", processes_error=refusal),
    )
    assert reasons(listing) == ["30.0 of 80.0 GiB taken", None]


def test_processes_decide_where_memory_is_not_told(listed: List) -> None:
    """GPUs that share the machine's memory have no count of their own."""
    listing = listed(
        device("GPU-a", memory_error=NOT_SUPPORTED),
        device("GPU-b", memory_error=NOT_SUPPORTED, processes=1),
    )
    assert reasons(listing) == [None, "1 compute process"]
    assert listing["gpus"][0]["memory_total"] is None


def test_an_old_driver(listed: List) -> None:
    """It has older functions only; its count of memory holds what the driver keeps."""
    listing = listed(
        device("GPU-a"), device("GPU-b", processes=1), device("GPU-c", used=30 * GIB), library="old"
    )
    assert reasons(listing) == [None, "1 compute process", "30.6 of 80.0 GiB taken"]


def test_a_lost_gpu_does_not_hide_the_others(listed: List) -> None:
    """What fell off the bus, or is another user's, is busy."""
    listing = listed(
        device("GPU-a", lost=GPU_IS_LOST), device("GPU-b"), device("GPU-c", lost=NO_PERMISSION)
    )
    assert reasons(listing) == [
        "the driver says: GPU is lost",
        None,
        "the driver says: Insufficient Permissions",
    ]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (9, NoGpus.NO_DRIVER),
        (18, NoGpus.VERSION_MISMATCH),
        (4, NoGpus.NO_PERMISSION),
        (999, NoGpus.OTHER),
        (12345, NoGpus.OTHER),
    ],
)
def test_a_driver_that_does_not_start(listed: List, code: int, reason: NoGpus) -> None:
    """No GPUs, and why."""
    assert listed(f"init {code}", device("GPU-a")) == nothing(reason)


def test_no_driver_and_no_gpu(listed: List) -> None:
    """A library that cannot be loaded is none; a driver may have nothing to drive."""
    assert listed(library="damaged") == nothing(NoGpus.NO_LIBRARY)
    assert listed() == nothing(NoGpus.NO_DEVICE)


def test_instances_of_a_gpu_split_by_mig(listed: List) -> None:
    """The GPU itself is left alone, its instances are busy each for themselves."""
    listing = listed(
        device("GPU-a", mig=1, memory_error=NO_PERMISSION, processes_error=NO_PERMISSION),
        device("MIG-1", kind="mig", total=20 * GIB, name="NVIDIA H100 MIG 2g.20gb"),
        device("MIG-2", kind="mig", total=20 * GIB, processes=1, name="NVIDIA H100 MIG 2g.20gb"),
        device("GPU-b", mig=0),
    )
    assert [(gpu["id"], gpu["instance"]) for gpu in listing["gpus"]] == [
        ("0", False),
        ("MIG-1", True),
        ("MIG-2", True),
        ("1", False),
    ]
    split = "split by MIG, name its instances as in --gpus MIG-…"
    assert reasons(listing) == [split, None, "1 compute process", None]


@pytest.mark.parametrize(
    ("visible", "free"),
    [
        ("2", {"2"}),
        ("1, 0", {"0", "1"}),
        ("", set()),
        ("-1", set()),
        ("1,-1,2", {"1"}),
        ("GPU-c", {"2"}),
        ("MIG-1", {"MIG-1"}),
        ("3", {"MIG-1", "MIG-2"}),
    ],
)
def test_gpus_outside_cuda_visible_devices(listed: List, visible: str, free: set[str]) -> None:
    """What a batch scheduler gave to others is busy, though the driver shows it."""
    listing = listed(
        device("GPU-a"),
        device("GPU-b"),
        device("GPU-c"),
        device("GPU-d", mig=1),
        device("MIG-1", kind="mig"),
        device("MIG-2", kind="mig"),
        visible=visible,
    )
    assert {gpu["id"] for gpu in listing["gpus"] if gpu["busy"] is None} == free


def test_pynvml_is_imported_only_to_list() -> None:
    """It takes as long to import as all of vbisect's command line."""
    code = "import sys, vbisect.run.gpus, vbisect.run.slots; print('pynvml' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
