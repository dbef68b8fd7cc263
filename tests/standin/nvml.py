"""A stand-in for the NVIDIA driver's library: any GPUs and any driver, with their faults."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

GIB = 2**30

# what the functions return and when: https://docs.nvidia.com/deploy/nvml-api/
LIBRARY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS, UNINITIALIZED, INVALID, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 6,
       INSUFFICIENT_SIZE, VERSION_MISMATCH = 25, UNKNOWN = 999 };

typedef struct {
    int mig_mode, parent, processes, handle_error, memory_error, processes_error;
    int brand, major, minor;
    unsigned long long total, used;
    char uuid[96], name[96];
} Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } Process;

static Device devices[64];
static int count, begun, cuda;
static char driver[80];
static const unsigned long long reserved = 600ull << 20;

int nvmlInitWithFlags(unsigned flags) {
    char line[512];
    int error = SUCCESS, parent = -1;
    FILE *state = fopen(getenv("STANDIN_NVML"), "r");
    count = cuda = 0;
    driver[0] = 0;
    while (state && fgets(line, sizeof line, state)) {
        Device *d = &devices[count];
        char kind[8] = "";
        if (sscanf(line, "init %d", &error) == 1) continue;
        if (sscanf(line, "driver %79s %d", driver, &cuda) == 2) continue;
        if (sscanf(line, "%7s %95s %llu %llu %d %d %d %d %d %d %d %d %95[^\n]", kind, d->uuid,
                   &d->total, &d->used, &d->processes, &d->mig_mode, &d->handle_error,
                   &d->memory_error, &d->processes_error, &d->brand, &d->major, &d->minor,
                   d->name) != 13) abort();
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
int nvmlSystemGetDriverVersion(char *out, unsigned n) {
    ASKED;
    return driver[0] ? text(driver, out, n) : UNKNOWN;
}
int nvmlSystemGetCudaDriverVersion(int *out) {
    ASKED;
    *out = cuda;
    return cuda ? SUCCESS : UNKNOWN;
}
int nvmlDeviceGetBrand(Device *d, int *out) {
    ASKED;
    *out = d->brand;
    return d->brand < 0 || d->parent >= 0 ? NOT_SUPPORTED : SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(Device *d, int *major, int *minor) {
    ASKED;
    *major = d->major, *minor = d->minor;
    return d->major < 0 || d->parent >= 0 ? NOT_SUPPORTED : SUCCESS;
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
    brand: int = 14,
    capability: tuple[int, int] = (9, 0),
    name: str = "NVIDIA H20",
) -> str:
    """A line of the stand-in's state, for a GPU or a part of one.

    Errors are NVML's return values, ``brand`` is NVML's number, and ``mig`` -1 is without.
    """
    numbers = (total, used, processes, mig, lost, memory_error, processes_error, brand)
    return " ".join([kind, uuid, *map(str, (*numbers, *capability)), name])


def driver(version: str, cuda: int) -> str:
    """The line of the stand-in's state for the driver; ``cuda`` as NVML has it, 12070 for 12.7."""
    return f"driver {version} {cuda}"


def build_library(folder: Path, *flags: str) -> Path:
    """The library in ``folder``, for LD_LIBRARY_PATH; with -DOLD_DRIVER that of before R510.

    Without a compiler the test is skipped; where $VBISECT_CI is set, it fails.
    """
    if shutil.which("gcc") is None and not os.environ.get("VBISECT_CI"):
        pytest.skip("missing: gcc")
    folder.mkdir(parents=True)
    source = folder / "nvml.c"
    source.write_text(LIBRARY)
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", *flags, "-o", target, source], check=True)
    return folder


def gpu_environment(library: Path, state: Path, lines: Sequence[str]) -> dict[str, str]:
    """With these variables a process sees a driver of the state ``lines``, kept in ``state``."""
    state.write_text("".join(line + "\n" for line in lines))
    return {"LD_LIBRARY_PATH": str(library), "STANDIN_NVML": str(state)}
