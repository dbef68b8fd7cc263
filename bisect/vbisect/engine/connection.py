"""An engine is met once, then used by every thread of a run through one client."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from ssl import SSLError
from typing import Any

from docker import APIClient, DockerClient
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig
from docker.utils.config import load_general_config
from requests import RequestException
from requests.utils import get_environ_proxies

from vbisect.engine.address import Address, engine_address
from vbisect.engine.disk import Disk, disk_of_df, image_folders, local_disk
from vbisect.engine.faults import engine_faults, explanation
from vbisect.engine.gpus import GpuAccess, gpu_access, has_amd_gpus
from vbisect.engine.product import identity_of, product_of, title
from vbisect.engine.sockets import other_engines
from vbisect.engine.ssh import Link, open_link
from vbisect.errors import HostError, VbisectError
from vbisect.text import one_line

_CALL_SECONDS = 60
_ANSWER_SECONDS = 4
_GLANCE_SECONDS = 1.5
_STREAMS = 32
"""Connections that are kept: a run follows about sixteen streams at once."""
_TROUBLE = (DockerException, RequestException, OSError)


class Engine:
    """A Docker engine that answered. ``client`` may be used by several threads at once.

    ``product`` is Docker, or Podman, which speaks as Docker does. ``where`` is its address for
    messages and ``title`` itself, as a sentence begins; ``identity`` is a name that lasts,
    ``remote`` whether it is on another machine.
    """

    def __init__(
        self, address: Address, client: DockerClient, glance: DockerClient, link: Link | None
    ) -> None:
        self.client = client
        self._glance = glance
        self._link = link
        self._address = address
        self._info: dict[str, Any] = client.info()
        self.where: str = address.where
        self.product = product_of(client.version())
        self.title = title(self.product, self.where)
        self.identity = identity_of(self.product, self.where, self._info)
        self.remote: bool = address.remote

    def reach(self, port: int) -> AbstractContextManager[int]:
        """A port on this machine's 127.0.0.1 through which the engine's 127.0.0.1:``port`` is had.

        Through a tunnel, a port on which nothing listens there is not refused: the connection is
        accepted, then closed. Raises ``HostError`` where there is no way, ``EngineLost``
        when there was one.
        """
        if self._link is not None:
            return self._link.forward(port)
        if self.remote:
            raise HostError(
                f"Servers beside the engine at {self.where} cannot be reached: ports are published "
                "on its loopback only. Give its address as ssh://[user@]host instead."
            )
        return nullcontext(port)

    def disk(self) -> Disk | None:
        """The disk its images fill, ``None`` when it cannot be known.

        Raises ``EngineLost`` when the connection is lost.
        """
        if self._link is not None:
            for folder in image_folders(self._info):
                if said := self._link.ask("df", "-Pk", folder):
                    return disk_of_df(said)
            return None
        return local_disk(self._info) if self._address.host is None else None

    def home(self) -> str | None:
        """The user's home directory on the engine's host, ``None`` when it cannot be known.

        Raises ``EngineLost`` when the connection is lost.
        """
        if self._link is not None:
            said = (self._link.ask("printenv", "HOME") or "").split("\n")
            # start-up files of the shell there may print lines of their own first
            return next((line for line in reversed(said) if line.startswith("/")), None)
        return str(Path.home()) if self._address.host is None else None

    @cached_property
    def gpu_access(self) -> GpuAccess | None:
        """By what its containers get NVIDIA GPUs, ``None`` when they cannot have any.

        Raises ``EngineLost`` when the connection is lost.
        """
        return gpu_access(self.product, self._info, self._ask)

    @property
    def has_amd_gpus(self) -> bool:
        """Whether its containers get GPUs of AMD, as far as it tells."""
        return has_amd_gpus(self._info)

    def _ask(self, *command: str) -> str | None:
        """What a command prints on the engine's host, ``None`` when it fails there, or cannot be
        asked."""
        if self._link is not None:
            return self._link.ask(*command)
        return _printed(command) if self._address.host is None else None

    @property
    def processors(self) -> int | None:
        """Those of its host, ``None`` where it does not tell."""
        return _amount(self._info.get("NCPU"))

    @property
    def memory(self) -> int | None:
        """All memory of its host, in bytes; ``None`` where it does not tell."""
        return _amount(self._info.get("MemTotal"))

    @property
    def own_proxies(self) -> bool:
        """Whether Docker's own configuration says which proxies containers have."""
        return bool(load_general_config().get("proxies"))

    def answers(self) -> bool:
        """Whether it still answers; waits a few seconds at most."""
        try:
            return bool(self._glance.ping())
        except _TROUBLE:
            return False

    def reconnect(self) -> None:
        """Log in to the engine's host again, where ssh has noticed that it is lost.

        A host that falls silent is noticed within 15 s. Ports that ``reach`` gave are gone by then.
        Raises ``HostError`` when the host lets nobody in.
        """
        if self._link is not None:
            self._link.connect()

    def facts(self) -> dict[str, Any]:
        """What it is, for the evidence of a trial. Raises ``EngineLost`` when it is gone."""
        with engine_faults(self.title):
            version = str(self.client.version()["Version"])
        info = self._info
        return {
            "product": self.product,
            "engine": one_line(version),
            "api": one_line(self.client.api.api_version),
            "os": one_line(str(info.get("OperatingSystem", ""))),
            "kernel": one_line(str(info.get("KernelVersion", ""))),
            "architecture": one_line(str(info.get("Architecture", ""))),
            "storage_driver": one_line(str(info.get("Driver", ""))),
            "cgroup": one_line(str(info.get("CgroupVersion", ""))),
            "runtimes": sorted(one_line(str(name)) for name in info.get("Runtimes") or ()),
        }


@contextmanager
def connect(docker_host: str | None = None, *, owner: Path | None = None) -> Iterator[Engine]:
    """The engine the user means, for the duration of the block.

    ``docker_host`` is what ``--docker-host`` gave; without it DOCKER_HOST, the Docker context, the
    default socket count, in this order. ``owner`` is the run directory on whose behalf it is.
    Raises ``UsageError`` for a malformed address, ``HostError`` when no engine answers.
    """
    address = engine_address(docker_host)
    with ExitStack() as stack:
        link = _link(address, owner, stack)
        try:
            glance = _client(address, link, _ANSWER_SECONDS)
            stack.callback(glance.close)
            client = _client(address, link, _CALL_SECONDS, glance.api.api_version)
            stack.callback(client.close)
            engine = Engine(address, client, glance, link)
        except _TROUBLE as error:
            raise _unreachable(address, link, error) from None
        yield engine


def engine_answers(docker_host: str | None = None) -> bool:
    """Whether ``connect`` would find an engine; for a local socket that is known at once."""
    try:
        address = engine_address(docker_host)
        with ExitStack() as stack:
            link = _link(address, None, stack)
            seconds = _ANSWER_SECONDS if address.remote else _GLANCE_SECONDS
            stack.callback(_client(address, link, seconds).close)
    except (VbisectError, *_TROUBLE):
        return False
    return True


def _link(address: Address, owner: Path | None, stack: ExitStack) -> Link | None:
    """The SSH connection that this address needs, if it does, until ``stack`` is left."""
    if address.ssh is None:
        return None
    try:
        return stack.enter_context(open_link(address.ssh, owner))
    except OSError as error:
        raise HostError(f"ssh cannot be started here: {one_line(str(error))}.") from None


def _client(
    address: Address, link: Link | None, seconds: float, version: str = "auto"
) -> DockerClient:
    """``seconds`` is how long one answer is waited for."""
    return DockerClient(
        base_url=f"unix://{link.socket}" if link is not None else address.url,
        version=version,
        timeout=seconds,  # type: ignore[arg-type]  # requests takes fractions too
        tls=_OwnAuthority(address.tls) if address.tls is not None else False,
        max_pool_size=_STREAMS,
    )


class _OwnAuthority(TLSConfig):
    """An engine's certificates, which REQUESTS_CA_BUNDLE would otherwise replace."""

    def __init__(self, given: TLSConfig) -> None:
        super().__init__(given.cert, given.ca_cert, given.verify)

    def configure_client(self, client: APIClient) -> None:
        super().configure_client(client)
        client.proxies = get_environ_proxies(client.base_url)
        client.trust_env = False


def _amount(told: object) -> int | None:
    return told if isinstance(told, int) and told > 0 else None


def _printed(command: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout


def _unreachable(address: Address, link: Link | None, error: BaseException) -> HostError:
    """No engine answers: where, why, and what to do."""
    where = one_line(f"{address.where} ({address.source})")
    if link is not None:
        return HostError(f"No Docker engine answers at {where}: {link.why_no_engine()}")
    cause = _cause(error)
    words = cause.strerror if isinstance(cause, OSError) else None
    if isinstance(cause, APIError):
        words = explanation(cause)
    words = one_line(words or str(cause)).rstrip(".")
    others = other_engines() if address.host is None else ""
    advice = f"{_advice(cause)} {others}".rstrip()
    return HostError(f"No Docker engine answers at {where}: {words}. {advice}")


def _cause(error: BaseException) -> BaseException:
    """The engine's or the system's own error, from below what the SDK and its layers made of it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, APIError):
            return inner
        if isinstance(inner, OSError) and not isinstance(inner, RequestException):
            return inner
        inner = inner.__cause__ or inner.__context__
    return error


def _advice(cause: BaseException) -> str:
    if isinstance(cause, PermissionError):
        return (
            'Add yourself to the docker group (sudo usermod -aG docker "$USER"), then log in again.'
        )
    if isinstance(cause, (SSLError, APIError)):
        return (
            "Check the certificates: those that DOCKER_TLS_VERIFY and DOCKER_CERT_PATH name, "
            "or those of the Docker context."
        )
    return "Start Docker, or name another engine with --docker-host."
