"""An engine on another machine is used as if it were here, and the way there always ends."""

from __future__ import annotations

import getpass
import io
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

import vbisect.engine.ssh
from engines import AnyEngine, clients, logins, no_configuration, refused, use
from standin.running import wait
from standin.sshd import Sshd, new_key
from vbisect.engine import connect, engine_answers
from vbisect.errors import EngineLost, HostError
from vbisect.launch.port import free_port
from vbisect.processes import OWNER_VARIABLE, end_orphans

SOON = 20.0
HOLD = """
import sys
from pathlib import Path
from vbisect.engine import connect
with connect(sys.argv[1], owner=Path(sys.argv[2])) as engine, engine.reach(1) as port:
    print(port, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """The host of the engine, to log in to."""
    with logins(tmp_path_factory.mktemp("sshd")) as started:
        yield started


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sshd: Sshd) -> Iterator[Path]:
    """The tests' own ssh client on PATH; it asks nobody, and leaves no process and no folder."""
    no_configuration(monkeypatch, tmp_path)
    folder = tmp_path / "client"
    folder.mkdir()
    use(monkeypatch, sshd.client(folder))
    (folder / "askpass").write_text(f"#!/bin/sh\ntouch {folder}/asked\n")
    (folder / "askpass").chmod(0o755)
    for name, value in {"": f"{folder}/askpass", "_REQUIRE": "force"}.items():
        monkeypatch.setenv(f"SSH_ASKPASS{name}", value)
    with tempfile.TemporaryDirectory(prefix="vb-") as scratch:  # short, as sockets need it
        monkeypatch.setattr(tempfile, "tempdir", scratch)
        yield folder
        assert not (folder / "asked").exists()
        assert wait(lambda: not clients(folder), SOON)
        assert not list(Path(scratch).iterdir())


@pytest.fixture
def address(engine: AnyEngine, sshd: Sshd) -> str:
    """The engine as seen from elsewhere."""
    if not engine.url.startswith("unix://"):
        pytest.skip("the given engine has no socket on this machine")
    return sshd.url(engine.url.removeprefix("unix://"))


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def published() -> Iterator[int]:
    """The port of a server on the loopback of the engine's host."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def opens(port: int) -> bool:
    """Whether anything accepts connections on this port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_the_engine_is_used_through_ssh(address: str, engine: AnyEngine) -> None:
    image = io.BytesIO()
    with tarfile.open(fileobj=image, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    with connect(address) as found, closing(engine.client()) as direct:
        assert found.client.ping()
        assert found.client.version() == direct.version()
        assert found.identity == direct.info()["ID"]
        found.client.api.import_image_from_data(image.getvalue(), repository="vbisect-far")
        try:
            far = {each.id for each in found.client.images.list()}
            assert far == {each.id for each in direct.images.list()}
            assert direct.images.get("vbisect-far").id in far
        finally:
            direct.images.remove("vbisect-far")
        assert found.remote
        assert found.where == address.replace(f"{getpass.getuser()}@", "")
        assert found.home() == pwd.getpwuid(os.geteuid()).pw_dir
        assert found.facts()["engine"] == direct.version()["Version"]
        disk, folder = found.disk(), direct.info()["DockerRootDir"]
        assert disk is not None
        assert disk.total == shutil.disk_usage(folder).total
        assert found.answers()
        found.reconnect()  # nothing was lost: nothing happens
        assert found.answers()
    assert engine_answers(address)


def test_sixteen_streams_leave_the_connection_free(address: str) -> None:
    """sshd's MaxSessions, ten by default, is about sessions; forwarded sockets are none."""
    with connect(address) as found:
        streams = [found.client.events(decode=True) for _ in range(16)]
        with ThreadPoolExecutor(16) as pool:
            assert len(list(pool.map(lambda _: found.client.containers.list(), range(64)))) == 64
        assert found.home()
        for stream in streams:
            stream.close()


def test_a_server_is_reached_within_the_block_only(
    address: str, published: int, settings: Path
) -> None:
    with connect(address) as found:
        with found.reach(published) as port:
            assert port != published
            assert httpx.get(f"http://127.0.0.1:{port}/").text == "hello"
            listening = [
                connection.laddr.ip
                for process in clients(settings)
                for connection in process.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            ]
            assert listening == ["127.0.0.1"]
            (folder,) = Path(tempfile.gettempdir()).iterdir()
            assert folder.stat().st_mode & 0o077 == 0
        assert not opens(port)
        with found.reach(published) as again:
            assert httpx.get(f"http://127.0.0.1:{again}/").text == "hello"
    assert not opens(again)


def test_many_servers_are_reached_at_once(address: str, published: int) -> None:
    with connect(address) as found:
        together = threading.Barrier(8)

        def ask(_: int) -> int:
            with found.reach(published) as port:
                together.wait(SOON)
                assert httpx.get(f"http://127.0.0.1:{port}/").text == "hello"
                return port

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(ask, range(8)))) == 8


def test_a_port_taken_in_between_is_not_used(
    address: str, published: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([published, published, free_port()])
    monkeypatch.setattr(vbisect.engine.ssh, "free_port", lambda: next(ports))
    with connect(address) as found, found.reach(published) as port:
        assert port != published
        assert httpx.get(f"http://127.0.0.1:{port}/").text == "hello"


def test_nothing_listens_there_yet(address: str) -> None:
    """The tunnel accepts and closes: to a client that is a server that went away."""
    with (
        connect(address) as found,
        found.reach(free_port()) as port,
        pytest.raises(httpx.TransportError),
    ):
        httpx.get(f"http://127.0.0.1:{port}/")


def test_the_users_configuration_counts_without_its_forwards(
    sshd: Sshd, address: str, settings: Path, published: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host's alias keeps its case; what is meant for interactive sessions is left out."""
    mine = (
        "Match originalhost GPU01",
        "HostName 127.0.0.1",
        f"Port {sshd.port}",
        f"User {sshd.user}",
        "Match all",
        f"LocalForward 127.0.0.1:{published} 127.0.0.1:1",  # taken: by another session of theirs
        "ExitOnForwardFailure yes",
        "ControlMaster auto",
        f"ControlPath {settings}/theirs",
        "ControlPersist 10m",
        "RemoteCommand sleep 60",
        "RequestTTY yes",
        "LogLevel QUIET",
        "GatewayPorts yes",
    )
    use(monkeypatch, sshd.client(settings, *mine))
    path = address.partition(str(sshd.port))[2]
    with connect(f"ssh://GPU01{path}") as found:
        assert found.answers()
        assert found.where == f"ssh://GPU01{path}"
        with found.reach(published) as port:
            assert httpx.get(f"http://127.0.0.1:{port}/").text == "hello"
    assert not (settings / "theirs").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_connection_ends_with_vbisect(
    address: str, settings: Path, tmp_path: Path, number: int
) -> None:
    environment = {**os.environ, "TMPDIR": tempfile.gettempdir()}
    line = [sys.executable, "-c", HOLD, address, str(tmp_path)]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        masters = clients(settings)
        assert masters
        assert all(m.environ()[OWNER_VARIABLE] == str(tmp_path) for m in masters)
        assert opens(port)
        holder.send_signal(number)
        assert wait(lambda: not clients(settings), SOON)
        assert not opens(port)
    end_orphans(tmp_path)  # what is left are files: removed when the run is resumed


def test_a_lost_connection_is_noticed_and_made_again(
    sshd: Sshd, address: str, settings: Path, published: int
) -> None:
    with connect(address) as found, found.reach(published):
        logged_in = sshd.logged_in()
        sshd.end_sessions()
        assert wait(lambda: not found.answers(), SOON)
        lost = "The connection to 127.0.0.1 was lost"
        calls: list[Callable[[], object]] = [
            found.home,
            found.disk,
            lambda: found.reach(published).__enter__(),
        ]
        for call in calls:
            with pytest.raises(EngineLost, match=lost):
                call()
        with pytest.raises(EngineLost):
            found.facts()
        assert sshd.logged_in() == logged_in  # nothing logged in behind our back
        found.reconnect()
        assert found.answers()
        assert found.home()
        with found.reach(published) as port:
            assert httpx.get(f"http://127.0.0.1:{port}/").text == "hello"
        assert len(clients(settings)) == 1


def test_a_host_that_stays_away_is_said(address: str, tmp_path: Path, settings: Path) -> None:
    (tmp_path / "gone").mkdir()
    with logins(tmp_path / "gone") as sshd:
        sshd.client(settings)
        there = sshd.url(address.partition("127.0.0.1:")[2].lstrip("0123456789"))
        with connect(there) as found:
            sshd.__exit__(None, None, None)
            assert wait(lambda: not clients(settings), SOON)
            for _ in range(2):
                with pytest.raises(HostError, match="Connection refused"):
                    found.reconnect()
            assert not found.answers()
            assert not clients(settings)


def test_a_host_that_falls_silent_is_not_waited_for(sshd: Sshd, address: str) -> None:
    with connect(address) as found:
        sessions = sshd.sessions()
        for session in sessions:
            session.suspend()
        try:
            began = time.monotonic()
            assert not found.answers()
            assert time.monotonic() - began < SOON
        finally:
            for session in sessions:
                session.resume()
        assert found.answers()


@pytest.mark.parametrize("known", ["another key", "no key"])
def test_a_host_key_that_is_not_known(sshd: Sshd, address: str, settings: Path, known: str) -> None:
    hosts = settings / "known_hosts"
    hosts.touch()
    if known == "another key":
        new_key(settings / "other")
        hosts.write_text(sshd.known_as(settings / "other"))
    sshd.client(settings, f"UserKnownHostsFile {hosts}", "LogLevel QUIET")
    text = refused(address)
    assert "Host key verification failed." in text
    assert f"ssh -l {sshd.user} -p {sshd.port} -- 127.0.0.1" in text


def test_a_key_that_is_not_let_in(sshd: Sshd, address: str, settings: Path) -> None:
    new_key(settings / "stranger")
    config = settings / "ssh_config"
    config.write_text(config.read_text().replace(str(sshd.key), f"{settings}/stranger"))
    assert f"{sshd.user}@127.0.0.1: Permission denied (publickey" in refused(address)


def test_a_key_that_wants_a_passphrase(sshd: Sshd, address: str, settings: Path) -> None:
    key = settings / "locked"
    shutil.copy(sshd.key, key)
    locked = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "a passphrase", "-f", str(key)]
    subprocess.run(locked, check=True)
    config = settings / "ssh_config"
    config.write_text(config.read_text().replace(str(sshd.key), str(key)))
    assert "Permission denied (publickey" in refused(address)


def test_no_socket_there(sshd: Sshd) -> None:
    text = refused(sshd.url("/nonexistent/docker.sock"))
    assert f"ssh://127.0.0.1:{sshd.port}/nonexistent/docker.sock (--docker-host)" in text
    assert "sees no socket /nonexistent/docker.sock there. Start Docker" in text


def test_no_engine_behind_the_socket(sshd: Sshd, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "docker.sock"))
    assert "nothing answers on" in refused(sshd.url(f"{tmp_path}/docker.sock"))


@pytest.mark.parametrize("kind", ["Tcp", "StreamLocal"])
def test_an_sshd_that_forwards_nothing(
    address: str, tmp_path: Path, settings: Path, kind: str
) -> None:
    (tmp_path / "strict").mkdir()
    with logins(tmp_path / "strict", f"Allow{kind}Forwarding no") as sshd:
        sshd.client(settings, "LogLevel QUIET")
        there = sshd.url(address.partition("127.0.0.1:")[2].lstrip("0123456789"))
        assert f"Allow{kind}Forwarding" in refused(there)


def test_no_host_there() -> None:
    text = refused("ssh://127.0.0.1:1")
    assert "port 1: Connection refused" in text


def test_no_ssh_client(sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "needs the ssh client: cannot start ssh: No such file" in refused(sshd.url())
