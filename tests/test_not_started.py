"""What an engine says where it starts no container: its host's fault, or the image's."""

from __future__ import annotations

import pytest

from vbisect.engine.faults import not_started
from vbisect.reasons import CAN_PASS, SkipReason

IDENTITY = "eefb472afcd08ce30780dfa7e7683d9d0ce8ca5720a53203b3d90a475d84129a"
# Docker 20.10 with runc 1.1, Podman 4.3 with runc 1.1 and crun 1.8
OF_THE_HOST = [
    "failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error "
    f"(open /run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{IDENTITY}/log.json: "
    "no such file or directory): fork/exec /nonexistent/runc: no such file or directory: unknown",
    'OCI runtime create failed: unable to retrieve OCI runtime error: exec: "runc-none": '
    "executable file not found in $PATH: unknown",
    "runc create failed: unable to start container process: error during container init: error "
    "setting rlimits for ready process: error setting rlimit type 7: operation not permitted",
    "runc create failed: unable to start container process: error during container init: unable to "
    "apply apparmor profile: apparmor failed to apply profile: write "
    "/proc/self/attr/apparmor/exec: no such file or directory",
    "crun: setrlimit `RLIMIT_NOFILE`: Operation not permitted: OCI permission denied",
    "crun: cgroups in hybrid mode not supported, drop all controllers from cgroupv2",
]
OF_THE_IMAGE = [
    'runc create failed: unable to start container process: exec: "vllm": executable file not '
    "found in $PATH: unknown",
    'runc create failed: unable to start container process: exec: "/x": permission denied: unknown',
    "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "
    '"/x": stat /x: no such file or directory: unknown',
    "crun: executable file `vllm` not found in $PATH: No such file or directory: OCI runtime "
    "attempted to invoke a command that was not found",
    "nvidia-container-cli: requirement error: invalid expression",
]


@pytest.mark.parametrize("words", OF_THE_HOST)
def test_a_fault_of_the_host(words: str) -> None:
    """Told without what is another at every start, and tried again."""
    told = not_started(words)
    assert told.reason is SkipReason.NOT_STARTED
    assert told.reason.of_the_run
    assert told.reason in CAN_PASS
    assert told.detail == words.replace(IDENTITY, "…")


@pytest.mark.parametrize("words", OF_THE_IMAGE)
def test_a_fault_of_the_image(words: str) -> None:
    told = not_started(words)
    assert told.reason is SkipReason.NOT_STARTABLE
    assert not told.reason.of_the_run
