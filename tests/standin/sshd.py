"""A host to log in to: a real sshd on the loopback interface, with keys of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import psutil

SSH = shutil.which("ssh")
# Where Debian has sshd, for users whose PATH lacks it; it has to be started by its full path.
SSHD = shutil.which(
    "sshd", path=os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"))
)
START_SECONDS = 10.0
CLIENT = """#!/bin/sh
exec {ssh} -F {config} "$@"
"""
SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
StrictModes no
UsePAM no
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
"""
CONFIGURATION = """
IdentityFile {directory}/user
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {directory}/known_hosts
GlobalKnownHostsFile none
"""


class SshUnavailable(Exception):
    """This host cannot run an sshd; the text says why."""


class Sshd:
    """Logs the user of the tests in on 127.0.0.1 while its `with` block runs.

    `settings` are lines that go first into sshd's configuration, where the first of a kind counts.
    The user's own `~/.ssh` is left alone: ssh finds it through the password database, whatever
    HOME says. What is under test starts `ssh` from PATH, so `client` makes a directory for the
    front of PATH whose `ssh` is the real one with another configuration file.
    """

    def __init__(self, directory: Path, *settings: str) -> None:
        self._directory = directory
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.key = directory / "user"
        """The one that is let in."""
        self.user = getpass.getuser()
        self.port = 0

    def __enter__(self) -> Sshd:
        """Make keys and listen; raises `SshUnavailable`."""
        found = {"ssh": SSH, "ssh-keygen": shutil.which("ssh-keygen"), "sshd": SSHD}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise SshUnavailable(f"missing: {', '.join(missing)}")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it, and uses it so
        for name in ("host", "user"):
            new_key(self._directory / name)
        self.port = _free_port()
        text = "\n".join(self._settings) + SERVER.format(port=self.port, directory=self._directory)
        (self._directory / "sshd_config").write_text(text)
        (self._directory / "known_hosts").write_text(self.known_as(self._directory / "host"))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", str(self._directory / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests; they end it
            )
        deadline = time.monotonic() + START_SECONDS
        while b"Server listening" not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise SshUnavailable(f"sshd did not start: {self._log.read_text()}")
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, and every session with it."""
        assert self._process is not None
        if self._process.poll() is None:
            self.end_sessions()
            self._process.kill()
            self._process.wait()

    def url(self, path: str = "") -> str:
        """An address for it, as DOCKER_HOST takes it."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"

    def client(self, directory: Path, *settings: str) -> Path:
        """Makes a directory for the front of PATH; `settings` of ssh go before those that work."""
        config, command = directory / "ssh_config", directory / "ssh"
        known = "\n".join(settings) + CONFIGURATION.format(directory=self._directory)
        config.write_text(known)
        command.write_text(CLIENT.format(ssh=SSH, config=config))
        command.chmod(0o755)
        return directory

    def known_as(self, key: Path) -> str:
        """The line of a known_hosts file that ties its address to the public half of a key."""
        kind, public = key.with_suffix(".pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {kind} {public}\n"

    def sessions(self) -> list[psutil.Process]:
        """The processes that serve those who are logged in."""
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    def end_sessions(self) -> None:
        """Cut every connection, as a host does that goes down."""
        for process in self.sessions():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def logged_in(self) -> int:
        """How often anybody has logged in so far."""
        return self._log.read_text().count("Accepted publickey")

    @property
    def _log(self) -> Path:
        return self._directory / "sshd.log"


def new_key(path: Path) -> None:
    """A key without a passphrase, its public half beside it."""
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vbisect tests", "-f", str(path)]
    subprocess.run(made, check=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
