"""A Podman of one's own: its real service for Docker's API, whose every trace ends with its block.

What netavark leaves in the packet filter are three chains that match nothing any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from .engine import (
    PATH,
    ROOT,
    START_SECONDS,
    STOP_SECONDS,
    EngineUnavailable,
    GivenEngine,
    remove_mounted,
    take_slot,
)

if TYPE_CHECKING:
    import docker

NEEDED = ("podman", "conmon", "runc", "iptables")
# Registries on this host speak plain http, whatever their port.
REGISTRIES = """\
[[registry]]
location = "127.0.0.1"
insecure = true
"""
# Debian's crun does not start anything where both hierarchies of cgroups are mounted. Limits are
# those of this host: by default Podman asks for more files than root may have in a sandbox. 4.3
# takes the soft limit for the hard one, so both are the same.
CONTAINERS = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]
[engine]
runtime = "{runtime}"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "{directory}/networks"
default_network = "vbisect"
"""
FILES = 4096


class Podman:
    """A private ``podman system service`` while its `with` block runs, with storage of its own.

    ``files`` is how many files containers may have open: more than this host lets anybody have is
    what Podman meets in many sandboxes, and then it starts nothing.
    """

    def __init__(self, *, files: int = FILES, runtime: str = "runc") -> None:
        self._files, self._runtime = files, runtime
        self._process: subprocess.Popen[bytes] | None = None
        self._slot: IO[bytes] | None = None
        self.directory = Path()
        """Below it lies everything; the service's own log is `podman.log`."""

    def __enter__(self) -> Podman:
        """Take a slot and start; raises `EngineUnavailable`."""
        missing = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
        if missing or os.geteuid() != 0:
            raise EngineUnavailable(f"missing: {', '.join(missing) or 'the rights of root'}")
        self._slot, self._number = take_slot("podman")
        self.directory = ROOT / f"podman{self._number}"
        try:
            self._end_everything()  # of a test run that was killed
            self._prepare()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the containers, end the service, remove all files."""
        self._remove()

    @property
    def url(self) -> str:
        """The address for DOCKER_HOST."""
        return f"unix://{self.directory}/podman.sock"

    @property
    def storage(self) -> Path:
        """Where its images and containers are."""
        return self.directory / "storage"

    def client(self) -> docker.DockerClient:
        """A client of the Docker SDK; the caller closes it."""
        return GivenEngine(self.url).client()

    def start(self) -> None:
        """Start the service, again after `stop`, on the same storage."""
        assert self._process is None, "it runs"
        with (self.directory / "podman.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("system", "service", "--time=0", self.url),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is for the tests; they end it in order
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                log_end = (self.directory / "podman.log").read_text(errors="replace")[-1500:]
                raise EngineUnavailable(f"podman did not start:\n{log_end}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the service; containers run on."""
        assert self._process is not None, "it does not run"
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __call__(self, *words: str) -> str:
        """What Podman's own command line prints about this storage."""
        done = subprocess.run(
            self._command(*words),
            capture_output=True,
            text=True,
            env=self._environment(),
            check=True,
        )
        return done.stdout

    def _command(self, *words: str) -> list[str]:
        places = [f"--{name}={self.directory}/{name}" for name in ("runroot", "tmpdir")]
        return ["podman", f"--root={self.storage}", *places, *words]

    def _environment(self) -> dict[str, str]:
        """The host's own settings do not count."""
        return {
            **os.environ,
            "PATH": PATH,
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.directory / "registries.conf"),
        }

    def _prepare(self) -> None:
        (self.directory / "networks").mkdir(parents=True)
        (self.directory / "registries.conf").write_text(REGISTRIES)
        (self.directory / "containers.conf").write_text(
            CONTAINERS.format(files=self._files, runtime=self._runtime, directory=self.directory)
        )
        subnet = f"10.214.{self._number}"
        network = {
            "name": "vbisect",
            "id": f"{self._number:064x}",
            "driver": "bridge",
            "network_interface": f"vbisectp{self._number}",
            "created": "2026-01-01T00:00:00Z",
            "subnets": [{"subnet": f"{subnet}.0/24", "gateway": f"{subnet}.1"}],
            "ipv6_enabled": False,
            "internal": False,
            "dns_enabled": False,
            "ipam_options": {"driver": "host-local"},
        }
        (self.directory / "networks" / "vbisect.json").write_text(json.dumps(network))

    def _answers(self) -> bool:
        import docker

        try:
            with contextlib.closing(self.client()) as client:
                return bool(client.ping())
        except docker.errors.DockerException:
            return False

    def _remove(self) -> None:
        assert self._slot is not None
        if self._process is not None:
            self.stop()
        self._end_everything()
        self._slot.close()

    def _end_everything(self) -> None:
        """Remove what a service in this slot may have left: containers, mounts, files."""
        if (self.directory / "containers.conf").exists():
            with contextlib.suppress(subprocess.CalledProcessError):
                self("rm", "--all", "--force", "--time=0", "--volumes")
        remove_mounted(self.directory)


def more_files_than_anybody_has() -> int:
    """A limit of open files that this host refuses to everybody."""
    return int(Path("/proc/sys/fs/nr_open").read_text()) + 1
