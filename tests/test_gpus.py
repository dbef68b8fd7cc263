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

from vbisect.run.gpus import NoGpus

# what the functions return and when: https://docs.nvidia.com/deploy/nvml-api/
LIBRARY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS, UNINITIALIZED, INVALID, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 6,
       INSUFFICIENT_SIZE, VERSION_MISMATCH = 25 };

typedef struct {
    int mig_mode, parent, processes, handle_error, memory_error, processes_error;
    unsigned long long total, used;
    char uuid[96], name[96];
} Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } Process;

static Device devices[64];
static int count, begun;
static const unsigned long long reserved = 600ull << 20;

int nvmlInitWithFlags(unsigned flags) {
    char line[512];
    int error = SUCCESS, parent = -1;
    FILE *state = fopen(getenv("STANDIN_NVML"), "r");
    count = 0;
    while (state && fgets(line, sizeof line, state)) {
        Device *d = &devices[count];
        char kind[8] = "";
        if (sscanf(line, "init %d", &error) == 1) continue;
        if (sscanf(line, "%7s %95s %llu %llu %d %d %d %d %d %95[^\n]", kind, d->uuid, &d->total,
                   &d->used, &d->processes, &d->mig_mode, &d->handle_error, &d->memory_error,
                   &d->processes_error, d->name) != 10) abort();
        if (!strcmp(kind, "gpu")) parent = count;
        d->parent = strcmp(kind, "gpu") ? parent : -1;
        count++;
    }
    if (state) fclose(state);
    if (error) return error;
    begun++;
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return begun ? (begun--, SUCCESS) : UNINITIALIZED; }
const char *nvmlErrorString(int error) { return "an error of the stand-in"; }

#define ASKED if (!begun) return UNINITIALIZED
static int nth(int parent, unsigned index, Device **found) {
    for (int i = 0; i < count; i++)
        if (devices[i].parent == parent && !index--) { *found = &devices[i]; return SUCCESS; }
    return parent < 0 ? INVALID : NOT_FOUND;
}
int nvmlDeviceGetCount_v2(unsigned *out) {
    ASKED;
    *out = 0;
    for (int i = 0; i < count; i++) *out += devices[i].parent < 0;
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **out) {
    ASKED;
    int error = nth(-1, index, out);
    return error ? error : (*out)->handle_error;
}
int nvmlDeviceGetMigMode(Device *d, unsigned *current, unsigned *pending) {
    ASKED;
    if (d->mig_mode < 0 || d->parent >= 0) return NOT_SUPPORTED;
    *current = *pending = d->mig_mode;
    return SUCCESS;
}
int nvmlDeviceGetMaxMigDeviceCount(Device *d, unsigned *out) { ASKED; *out = 7; return SUCCESS; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device *d, unsigned index, Device **out) {
    ASKED;
    return nth(d - devices, index, out);
}
static int text(const char *value, char *out, unsigned size) {
    if (strlen(value) >= size) return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return SUCCESS;
}
int nvmlDeviceGetUUID(Device *d, char *out, unsigned n) { ASKED; return text(d->uuid, out, n); }
int nvmlDeviceGetName(Device *d, char *out, unsigned n) { ASKED; return text(d->name, out, n); }
int nvmlDeviceGetMemoryInfo(Device *d, Memory *out) {
    ASKED;
    if (d->memory_error) return d->memory_error;
    out->total = d->total;
    out->used = d->used + reserved;
    out->free = out->total - out->used;
    return SUCCESS;
}
#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(Device *d, MemoryV2 *out) {
    ASKED;
    if (out->version != (sizeof *out | 2u << 24)) return VERSION_MISMATCH;
    if (d->memory_error) return d->memory_error;
    out->total = d->total;
    out->reserved = reserved;
    out->used = d->used;
    out->free = out->total - out->used - reserved;
    return SUCCESS;
}
#define PROCESSES nvmlDeviceGetComputeRunningProcesses_v3
#else
#define PROCESSES nvmlDeviceGetComputeRunningProcesses_v2
#endif
int PROCESSES(Device *d, unsigned *n, Process *out) {
    ASKED;
    if (d->processes_error) return d->processes_error;
    unsigned room = *n;
    *n = d->processes;
    if (room < *n) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *n; i++) out[i] = (Process){4000 + i, ~0ull, ~0u, ~0u};
    return SUCCESS;
}
"""

LISTING = """
import dataclasses, json
from vbisect.run.gpus import list_gpus
listing = list_gpus()
gpus = [{**dataclasses.asdict(gpu), "id": gpu.id} for gpu in listing.gpus]
print(json.dumps({"gpus": gpus, "problem": listing.problem}))
"""

GIB = 2**30
NO_PERMISSION, NOT_SUPPORTED, GPU_IS_LOST = 4, 3, 15

List = Callable[..., Any]


def device(
    uuid: str,
    *,
    kind: str = "gpu",
    total: int = 80 * GIB,
    used: int = 8 * 2**20,
    processes: int = 0,
    mig: int = -1,
    lost: int = 0,
    memory_error: int = 0,
    processes_error: int = 0,
    name: str = "NVIDIA H20",
) -> str:
    """A line of the stand-in's state; errors are NVML's return values, ``mig`` -1 is without."""
    numbers = (total, used, processes, mig, lost, memory_error, processes_error)
    return " ".join([kind, uuid, *map(str, numbers), name])


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with the driver's library: of today, of an old driver, and a damaged one."""
    root = tmp_path_factory.mktemp("nvml")
    (root / "nvml.c").write_text(LIBRARY)
    for kind, flags in {"today": [], "old": ["-DOLD_DRIVER"]}.items():
        (root / kind).mkdir()
        target = str(root / kind / "libnvidia-ml.so.1")
        build = ["gcc", "-shared", "-fPIC", *flags, "-o", target, str(root / "nvml.c")]
        subprocess.run(build, check=True)
    (root / "damaged").mkdir()
    (root / "damaged" / "libnvidia-ml.so.1").write_text("")
    return {kind: root / kind for kind in ("today", "old", "damaged")}


@pytest.fixture
def listed(libraries: dict[str, Path], tmp_path: Path) -> List:
    """Lists the GPUs of a state of the driver, in a process of its own."""

    def listing(*state: str, library: str = "today", visible: str | None = None) -> Any:
        (tmp_path / "state").write_text("".join(line + "\n" for line in state))
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        environment["LD_LIBRARY_PATH"] = str(libraries[library])
        environment["STANDIN_NVML"] = str(tmp_path / "state")
        if visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        told = subprocess.run(
            [sys.executable, "-c", LISTING], env=environment, capture_output=True, text=True
        )
        assert (told.returncode, told.stderr) == (0, "")
        return json.loads(told.stdout)

    return listing


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
    }


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
    assert listed(f"init {code}", device("GPU-a")) == {"gpus": [], "problem": reason}


def test_no_driver_and_no_gpu(listed: List) -> None:
    """A library that cannot be loaded is none; a driver may have nothing to drive."""
    assert listed(library="damaged") == {"gpus": [], "problem": NoGpus.NO_LIBRARY}
    assert listed() == {"gpus": [], "problem": NoGpus.NO_DEVICE}


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
