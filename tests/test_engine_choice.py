"""The engine is the one the user means: the argument, the environment, the Docker context."""

from __future__ import annotations

import shutil
import socket
import socketserver
import subprocess
import threading
from pathlib import Path

import pytest

from docker_fixtures import opened
from engines import AnyEngine, context, identity, no_configuration, refused
from standin.engine import Engine
from vbisect.engine import connect, engine_answers
from vbisect.engine.address import engine_address
from vbisect.errors import HostError, UsageError

NOWHERE = "unix:///nonexistent/docker.sock"


@pytest.fixture(autouse=True)
def configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of Docker's configuration."""
    return no_configuration(monkeypatch, tmp_path)


def test_the_argument_counts_before_docker_host(
    engine: AnyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    with connect(engine.url) as found:
        assert found.where == engine.url


def test_docker_host_counts_before_the_context(
    engine: AnyEngine, configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context(configuration, "elsewhere", NOWHERE)
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    assert f"{NOWHERE} (the Docker context 'elsewhere')" in refused()
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    with connect() as found:
        assert found.where == engine.url


@pytest.mark.parametrize("way", ["variable", "configuration"])
def test_a_docker_context(
    engine: AnyEngine, configuration: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    context(configuration, "ours", engine.url)
    if way == "variable":  # then Docker's command line wants no config.json either
        assert not (configuration / "config.json").exists()
        monkeypatch.setenv("DOCKER_CONTEXT", "ours")
    else:
        (configuration / "config.json").write_text('{"currentContext": "ours"}')
    with connect() as found:
        assert (found.where, found.identity) == (engine.url, identity(engine))
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert engine_address().where == "unix:///var/run/docker.sock"


def test_the_default_is_the_default_socket(
    configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contexts of another configuration, or of the working directory, are not the user's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / ".docker", tmp_path):
        folder.mkdir(exist_ok=True)
        context(folder, "strange", NOWHERE)
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "strange"}')
    address = engine_address()
    assert (address.where, address.source) == ("unix:///var/run/docker.sock", "Docker's default")
    monkeypatch.setenv("DOCKER_CONTEXT", "strange")
    with pytest.raises(UsageError, match=f"'strange' is not in {configuration}"), connect():
        pass


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"Endpoints": {}}', '{"Endpoints": {"docker": 1}}', '{"Endpoints": 1}']
)
def test_a_damaged_context_is_named(
    configuration: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    metadata = context(configuration, "broken", NOWHERE)
    metadata.write_text(content)
    monkeypatch.setenv("DOCKER_CONTEXT", "broken")
    with pytest.raises(UsageError, match=r"broken|meta\.json"), connect():
        pass
    assert not engine_answers()


def test_a_damaged_configuration_is_named(configuration: Path) -> None:
    (configuration / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json cannot be read"), connect():
        pass


@pytest.mark.parametrize(
    "address",
    [
        "",
        " ",
        "/var/run/docker.sock",
        "fd://",
        "npipe:////./pipe/docker_engine",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:99999",
        "tcp://[::1",
        "tcp://user:hunter22@127.0.0.1:2375",
        "user:hunter22@127.0.0.1:2375",
        "ssh://",
        "ssh:gpu01",
        "ssh://user:hunter22@gpu01",
        "ssh://@gpu01",
        "ssh://-oProxyCommand=true",
        "ssh://-oProxyCommand=true@gpu01",
        "ssh://%2DoProxyCommand=true@gpu01",
        "ssh://gpu01;true",
        "ssh://$(true)@gpu01",
        "ssh://gpu 01",
        "ssh://gpu01\ngpu02",
        "ssh://gpu01:0",
        "ssh://gpu01:65536",
        "ssh://gpu01:ssh",
        "ssh://gpu01/run/a:b.sock",
        "ssh://gpu01/run/%h.sock",
    ],
)
def test_a_malformed_address_is_wrong_usage(address: str) -> None:
    with pytest.raises(UsageError, match=r"^--docker-host gives no address") as failed:
        engine_address(address)
    assert "hunter22" not in str(failed.value)
    assert "\n" not in str(failed.value)
    assert not engine_answers(address)


class _Relay(socketserver.BaseRequestHandler):
    """Passes a connection on to a unix socket."""

    server: _Proxy

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.server.path)
            threading.Thread(target=self._pass, args=[engine, self.request], daemon=True).start()
            self._pass(self.request, engine)

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one side has gone


class _Proxy(socketserver.ThreadingTCPServer):
    """An HTTP proxy through which every address is this one engine."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(("127.0.0.1", 0), _Relay)


def test_servers_beside_a_remote_tcp_engine_cannot_be_reached(
    engine: AnyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _Proxy(engine.url.removeprefix("unix://")) as proxy:
        threading.Thread(target=proxy.serve_forever, args=[0.02], daemon=True).start()
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.server_address[1]}")
        with connect("tcp://gpu01.example:2375") as found:
            assert (found.remote, found.identity) == (True, identity(engine))
            assert (found.home(), found.disk()) == (None, None)
            with pytest.raises(HostError, match="ssh://"), found.reach(8000):
                pass
        monkeypatch.delenv("HTTP_PROXY")
        with connect(f"tcp://127.0.0.1:{proxy.server_address[1]}") as found:
            assert not found.remote
            with found.reach(8000) as port:
                assert port == 8000
        proxy.shutdown()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what DOCKER_CERT_PATH needs, and the server's certificate and key."""
    if not shutil.which("openssl"):
        pytest.skip("missing: openssl")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=tests")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for prefix in ("server-", ""):
        request = f"{prefix}request.pem"
        names = ("-extfile", "names", "-out", f"{prefix}cert.pem")
        openssl("req", *key, "-keyout", f"{prefix}key.pem", "-out", request, "-subj", "/CN=tests")
        authority = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial")
        openssl("x509", "-req", "-in", request, *authority, *names)
    return folder


def test_an_engine_that_wants_certificates(
    certificates: Path, configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    files = {"tlscacert": "ca.pem", "tlscert": "server-cert.pem", "tlskey": "server-key.pem"}
    tls = [f"--{option}={certificates / name}" for option, name in files.items()]
    with opened(Engine(f"--host={address}", "--tlsverify", *tls)) as started:
        assert "Client sent an HTTP request to an HTTPS server. Check the cert" in refused(address)
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        with pytest.raises(UsageError, match=r"cert\.pem"), connect(address):
            pass
        with connect(started.url) as found:  # a socket wants no certificates
            assert found.answers()
        monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
        # of the authorities of the web; not of the engine's
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "server-cert.pem"))
        for given in (None, address):
            monkeypatch.setenv("DOCKER_HOST", address)
            with connect(given) as found:
                assert found.identity == identity(started)
        for name in ("DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"):
            monkeypatch.delenv(name)
        # as `docker context create` lays them out
        metadata = context(configuration, "tls", address)
        material = configuration / "contexts" / "tls" / metadata.parent.name / "docker"
        material.mkdir(parents=True)
        for name in ("ca.pem", "cert.pem", "key.pem"):
            shutil.copy(certificates / name, material)
        monkeypatch.setenv("DOCKER_CONTEXT", "tls")
        with connect() as found:
            assert found.identity == identity(started)
        shutil.copy(certificates / "cert.pem", material / "ca.pem")  # no authority of the server's
        assert "certificate verify failed" in refused()
