"""A Docker engine of one's own: a real dockerd whose every trace ends with its block."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import docker

# One for the whole host whatever TMPDIR says, as the bridges are, and short: the path of a socket
# has 107 bytes at most.
ROOT = Path("/tmp/vbisect-test-engines")
SLOTS = 32
# Where Debian has dockerd, runc and ip, for users whose PATH lacks them.
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
NEEDED = ("dockerd", "containerd", "runc", "ip")
START_SECONDS = 30.0
STOP_SECONDS = 20.0


class EngineUnavailable(Exception):
    """This host cannot run a dockerd; the text says why."""


class Engine:
    """A private dockerd while its `with` block runs.

    Each takes a slot: a number that names its directory and its bridge, so that engines side by
    side never give two containers the same address, and the next holder of a slot can remove what
    a killed test run left there. It touches no packet filter: ports are published on 127.0.0.1 by
    dockerd's own proxy, and containers reach nothing but the host. `arguments` go to dockerd at
    each start, which finds the programs in `tools` first.
    """

    def __init__(self, *arguments: str, tools: Path | None = None) -> None:
        self.arguments = arguments
        self._path = PATH if tools is None else f"{tools}{os.pathsep}{PATH}"
        self._process: subprocess.Popen[bytes] | None = None
        self._slot: IO[bytes] | None = None
        self.bridge = ""
        """The network interface that joins the containers."""
        self.directory = Path()
        """Below it lies everything; dockerd's own log is `dockerd.log`."""

    def __enter__(self) -> Engine:
        """Take a slot and start; raises `EngineUnavailable`."""
        missing = [name for name in NEEDED if shutil.which(name, path=PATH) is None]
        if missing or os.geteuid() != 0:
            raise EngineUnavailable(f"missing: {', '.join(missing) or 'the rights of root'}")
        self._take_slot()
        try:
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
        """Remove the containers, end dockerd and its containerd, remove all files."""
        try:
            if self._process is None:
                self.start()  # only a dockerd can remove the containers that outlived one
            self.remove_containers()
        finally:
            self._remove()

    @property
    def url(self) -> str:
        """The address for DOCKER_HOST."""
        return f"unix://{self.directory}/docker.sock"

    def client(self) -> docker.DockerClient:
        """A client of the Docker SDK; the caller closes it."""
        return _client(self.url)

    def start(self) -> None:
        """Start dockerd, again after `kill` or `stop`, on the same data."""
        assert self._process is None, "it runs"
        # What a killed dockerd left would mislead this one: it takes for alive whatever has the
        # number of the old process, be it a stranger or not yet reaped.
        for left in ("docker.pid", "docker.sock", "exec/containerd/containerd.pid"):
            (self.directory / left).unlink(missing_ok=True)
        with (self.directory / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PATH": self._path},
                start_new_session=True,  # Ctrl-C is for the tests; they end it in order
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                log_end = (self.directory / "dockerd.log").read_text(errors="replace")[-1500:]
                raise EngineUnavailable(f"dockerd did not start:\n{log_end}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL dockerd. The kernel takes a containerd of its own too; containers run on."""
        assert self._process is not None, "it does not run"
        self._process.kill()
        self._process.wait()
        self._process = None
        psutil.wait_procs(_processes({self._containerd_settings}), 5)

    def stop(self) -> None:
        """End dockerd in order, as a package upgrade does: containers end too."""
        assert self._process is not None, "it does not run"
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
            self._process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def remove_containers(self) -> None:
        """Remove every container, whatever its state."""
        import docker

        with contextlib.closing(self.client()) as client:
            for container in client.containers.list(all=True, ignore_removed=True):
                with contextlib.suppress(docker.errors.APIError):  # what is left, `_remove` ends
                    container.remove(force=True, v=True)

    @property
    def _containerd_settings(self) -> str:
        return f"{self.directory}/exec/containerd/containerd.toml"

    def _command(self) -> list[str]:
        root = self.directory
        return [
            "dockerd",
            f"--config-file={root}/daemon.json",  # the host's own would conflict
            f"--data-root={root}/data",
            f"--exec-root={root}/exec",
            f"--pidfile={root}/docker.pid",
            f"--host={self.url}",
            f"--bridge={self.bridge}",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-masq=false",
            "--ip-forward=false",
            # Where a containerd of the host runs, dockerd uses that instead of starting its own.
            f"--containerd-namespace={self.bridge}",
            f"--containerd-plugins-namespace={self.bridge}-plugins",
            *self.arguments,
        ]

    def _answers(self) -> bool:
        import docker

        try:
            with contextlib.closing(_client(self.url)) as client:
                return bool(client.ping())
        except docker.errors.DockerException:
            return False

    def _take_slot(self) -> None:
        self._slot, number = take_slot("")
        self.bridge = f"vbisect{number}"
        self.directory = ROOT / str(number)
        self._address = f"10.213.{number}.1/24"
        self._hardware = f"02:42:0a:d5:{number:02x}:01"

    def _prepare(self) -> None:
        self._end_everything()
        self.directory.mkdir()
        (self.directory / "daemon.json").write_text("{}")
        for arguments in (
            # A bridge without an address of its own takes that of a port, and another one when
            # containers come and go: packets to the old one are lost for up to a minute.
            ("link", "add", "name", self.bridge, "address", self._hardware, "type", "bridge"),
            ("addr", "add", self._address, "dev", self.bridge),
            ("link", "set", self.bridge, "up"),
        ):
            made = _ip(*arguments)
            if made.returncode:
                raise EngineUnavailable(f"no bridge for containers: {made.stderr.strip()}")

    def _remove(self) -> None:
        assert self._slot is not None
        if self._process is not None:
            self.kill()  # an orderly end takes a second, and keeps nothing that is wanted
        self._end_everything()
        self._slot.close()

    def _end_everything(self) -> None:
        """End what a dockerd in this slot may have left: processes, mounts, files, the bridge."""
        ours = _processes(
            {f"--config-file={self.directory}/daemon.json"},
            {self._containerd_settings},
            {"-namespace", self.bridge},  # the shims, whose children are the containers
        )
        for process in [p for root in ours for p in (*_below(root), root)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(ours, 5)
        remove_mounted(self.directory)
        _ip("link", "delete", self.bridge)


class GivenEngine:
    """An engine that was there before; tests share it with others and cannot stop it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self) -> docker.DockerClient:
        """A client of the Docker SDK; the caller closes it."""
        return _client(self.url)


def take_slot(prefix: str) -> tuple[IO[bytes], int]:
    """A number that nobody else on this host has until its file is closed, and that file.

    Those of each `prefix` are counted by themselves. Raises `EngineUnavailable`.
    """
    ROOT.mkdir(exist_ok=True)
    for number in range(SLOTS):
        slot = (ROOT / f"{prefix}{number}.lock").open("ab")
        try:
            fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            slot.close()
            continue
        return slot, number
    raise EngineUnavailable(f"all {SLOTS} slots are taken")


def remove_mounted(directory: Path) -> None:
    """Remove a directory with all that is mounted below it."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    for point in reversed([line.split()[4] for line in mounts]):
        if Path(point).is_relative_to(directory):
            subprocess.run(["umount", "--lazy", point], check=False)
    shutil.rmtree(directory, ignore_errors=True)


def _client(url: str) -> docker.DockerClient:
    import docker

    return docker.DockerClient(base_url=url, version="auto", timeout=60)


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": PATH},
    )


def _processes(*marks: set[str]) -> list[psutil.Process]:
    """Running processes whose command line has all the words of one of the marks."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = set(process.cmdline())
            if any(mark <= words for mark in marks):
                found.append(process)
    return found


def _below(process: psutil.Process) -> Sequence[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
