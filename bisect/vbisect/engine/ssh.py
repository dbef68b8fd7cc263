"""One SSH connection to an engine's host, made by the user's own ssh client.

Their configuration, keys, agent, known hosts and jump hosts count; ``ssh`` is the one found on
``PATH``. Nothing is listened to beyond this machine's loopback and a private directory.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from vbisect.engine.destination import Destination
from vbisect.errors import EngineLost, HostError
from vbisect.launch.port import free_port
from vbisect.processes import OWNER_VARIABLE, Guarded, scratch_directory
from vbisect.text import one_line

_CONNECT_SECONDS = 10  # to one host; jump hosts are not counted
_LOGIN_SECONDS = 30
_ASK_SECONDS = 10
_END_SECONDS = 2
_PORT_ATTEMPTS = 5
_MASTER_OPTIONS = (
    "BatchMode=yes",  # never a prompt: nobody is there to answer it
    f"ConnectTimeout={_CONNECT_SECONDS}",
    "ServerAliveInterval=5",  # a dead link is noticed after three of these
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",  # those of the user's configuration are for their own sessions
    "ControlPersist=no",
    "LogLevel=INFO",  # what went wrong is read from its log
)


class Link:
    """A connection that is had for a while. ``socket`` is the remote engine's, forwarded here."""

    def __init__(self, destination: Destination, folder: Path, owner: Path | None) -> None:
        self.socket = folder / "docker.sock"
        self._destination = destination
        self._control_path = folder / "ssh"
        self._log = folder / "ssh.log"
        self._environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}  # for jump hosts too
        if owner is not None:
            self._environment[OWNER_VARIABLE] = str(owner.absolute())
        self._lock = threading.Lock()
        self._process: Guarded | None = None

    def connect(self) -> None:
        """Log in, unless that was done and still holds. Raises ``HostError`` in ssh's words."""
        with self._lock:
            if self._process is not None and self._stands():
                return
            self.close()
            for left in (self.socket, self._control_path, self._log):
                left.unlink(missing_ok=True)
            options = [word for option in _MASTER_OPTIONS for word in ("-o", option)]
            master = ["ssh", "-M", "-N", "-T", "-S", str(self._control_path), *options]
            self._process = Guarded(
                [*master, *self._destination.arguments],
                log=self._log,
                environment=self._environment,
                grace=_END_SECONDS,
            )
            try:
                self._wait_for_login()
                self._forward_socket()
                self._check_port_forwarding()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Log out."""
        if self._process is not None:
            with suppress(OSError):  # it was never there to be ended
                self._process.stop()

    @contextmanager
    def forward(self, port: int) -> Iterator[int]:
        """A port here, on 127.0.0.1, that leads to 127.0.0.1:``port`` there.

        Raises ``EngineLost`` when the connection is lost.
        """
        attempts = Retrying(
            retry=retry_if_exception_type(_PortTakenError),
            stop=stop_after_attempt(_PORT_ATTEMPTS),
            reraise=True,
        )
        try:
            local = attempts(self._try_forward, port)
        except _PortTakenError:
            raise HostError(
                f"ssh could not listen on a port of 127.0.0.1: {self._words()}"
            ) from None
        try:
            yield local
        finally:
            self._control("-O", "cancel", "-L", _ports(local, port))

    def ask(self, *command: str) -> str | None:
        """What a command prints there; ``None`` when it fails or does not end in time.

        Raises ``EngineLost`` when the connection is lost.
        """
        # the login shell there sees one string, whatever ssh is given
        done = self._control("-T", command=shlex.join(command))
        if done is not None and done.returncode == 0:
            return done.stdout
        self._check()
        return None

    def why_no_engine(self) -> str:
        """Why nothing answers through ``socket``, with what to do about it."""
        path, host = self._destination.socket, self._destination.host
        if self.ask("test", "-S", path) is None:
            return (
                f"this login sees no socket {path} there. Start Docker on {host}, "
                "or name its socket as in ssh://host/path/to/docker.sock."
            )
        if self.ask("test", "-w", path) is None:
            return (
                f"permission denied on {path} there. Add the login to the docker group of {host}."
            )
        return (
            f"nothing answers on {path} there. Start Docker on {host}, "
            "and let its sshd forward sockets (AllowStreamLocalForwarding)."
        )

    def lost(self) -> EngineLost:
        """The error for a connection that is gone."""
        return EngineLost(
            one_line(f"The connection to {self._destination.host} was lost: {self._words()}")
        )

    def _wait_for_login(self) -> None:
        """Return once ssh has logged in; raises ``HostError`` with its words if it does not."""
        deadline = time.monotonic() + _LOGIN_SECONDS
        host = self._destination.host
        by_hand = shlex.join(["ssh", *self._destination.arguments])
        advice = f" (first make this work without a question: {by_hand})"
        while not self._control_path.exists():
            if self._ended(0.02):
                raise HostError(f"ssh cannot log in to {host}: {self._words()}{advice}")
            if time.monotonic() > deadline:
                raise HostError(f"ssh did not log in to {host} in {_LOGIN_SECONDS} s{advice}")

    def _forward_socket(self) -> None:
        """Make ``socket``. Whether an engine answers there is not known by that."""
        forwarded = f"{self.socket}:{self._destination.socket}"
        done = self._control("-O", "forward", "-L", forwarded)
        if done is None or done.returncode != 0:
            self._check()
            raise HostError(one_line(f"ssh could not forward {forwarded}: {self._words()}"))

    def _check_port_forwarding(self) -> None:
        """Raises ``HostError`` when the sshd there refuses to forward ports to its loopback.

        Found out now: later it would look like servers that never get ready.
        """
        self._control("-W", "127.0.0.1:1")  # nothing listens there, which is another refusal
        if "administratively prohibited" in self._said():
            raise HostError(
                f"The sshd of {self._destination.host} does not forward ports, so servers there "
                "cannot be reached. Set AllowTcpForwarding to 'local' in its configuration."
            )

    def _try_forward(self, port: int) -> int:
        local = free_port()
        done = self._control("-O", "forward", "-L", _ports(local, port))
        if done is None or done.returncode != 0:
            self._check()
            raise _PortTakenError
        return local

    def _control(
        self, *options: str, command: str | None = None
    ) -> subprocess.CompletedProcess[str] | None:
        """Run ssh over this connection; ``None`` when it did not end in time."""
        line = ["ssh", "-F", "none", "-S", str(self._control_path), "-o", "BatchMode=yes"]
        # without a master ssh would connect by itself, past the user's configuration
        line += ["-o", "ProxyCommand=false", *options, "--", self._destination.host]
        try:
            return subprocess.run(
                [*line, command] if command is not None else line,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_ASK_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None

    def _stands(self) -> bool:
        asked = self._control("-O", "check")
        return asked is not None and asked.returncode == 0

    def _check(self) -> None:
        if self._ended(0.5):  # its control socket goes a moment before ssh does
            raise self.lost()

    def _ended(self, seconds: float) -> bool:
        assert self._process is not None
        try:
            return self._process.wait(seconds) is not None
        except OSError as error:
            raise HostError(f"An ssh:// engine needs the ssh client: {error}.") from None

    def _words(self) -> str:
        """The last thing ssh said."""
        said = [line for line in self._said().split("\n") if line.strip()]
        return one_line(said[-1]) if said else "ssh gave no reason."

    def _said(self) -> str:
        try:
            return self._log.read_text(errors="replace")
        except OSError:  # another thread is about to log in again
            return ""


@contextmanager
def open_link(destination: Destination, owner: Path | None) -> Iterator[Link]:
    """A connection for the duration of the block. It ends with vbisect, however that ends.

    ``owner`` is the run directory it belongs to. Raises ``HostError`` in ssh's own words.
    """
    with scratch_directory() as folder:
        link = Link(destination, folder, owner)
        try:
            link.connect()
            yield link
        finally:
            link.close()


class _PortTakenError(Exception):
    """Somebody else took the port between choosing and binding it."""


def _ports(local: int, port: int) -> str:
    return f"127.0.0.1:{local}:127.0.0.1:{port}"
