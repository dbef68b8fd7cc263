"""An engine that answers is used, and when none does the user learns what to do."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from docker_fixtures import opened
from engines import AnyEngine, identity, no_configuration, refused
from standin.engine import Engine
from vbisect.engine import connect, engine_answers
from vbisect.engine.disk import Disk, disk_of_df, image_folders
from vbisect.engine.images import plain_http_registries
from vbisect.engine.product import Product, identity_of
from vbisect.errors import EngineLost
from vbisect.run.prepare import passed_over

NOBODY = 65534
NOWHERE = "unix:///nonexistent/docker.sock"


@pytest.fixture(autouse=True)
def configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of Docker's configuration."""
    return no_configuration(monkeypatch, tmp_path)


def test_a_local_socket(engine: AnyEngine) -> None:
    with connect(engine.url) as found:
        assert found.client.ping()
        assert found.answers()
        assert (found.where, found.identity) == (engine.url, identity(engine))
        assert not found.remote
        assert found.home() == str(Path.home())
        with found.reach(8000) as port:
            assert port == 8000
    assert engine_answers(engine.url)


def test_facts_are_those_of_the_engine(engine: AnyEngine) -> None:
    with connect(engine.url) as found, closing(engine.client()) as client:
        info, version = client.info(), client.version()
        assert found.facts() == {
            "product": "Docker",
            "engine": version["Version"],
            "api": version["ApiVersion"],
            "os": info["OperatingSystem"],
            "kernel": info["KernelVersion"],
            "architecture": info["Architecture"],
            "storage_driver": info["Driver"],
            "cgroup": info["CgroupVersion"],
            "runtimes": sorted(info["Runtimes"]),
        }


@pytest.mark.docker
def test_insecure_registries_are_those_of_the_engine() -> None:
    """By name, or by a network that an address of theirs is in, as the engine itself decides."""
    name = socket.gethostname()
    insecure = ("10.213.0.0/16", "registry.test:5000", f"{socket.gethostbyname(name)}/32")
    with (
        opened(Engine(*(f"--insecure-registry={it}" for it in insecure))) as started,
        connect(started.url) as engine,
    ):
        plain_http = plain_http_registries(engine)
    for host in ("10.213.7.1:5000", "10.213.7.1", "registry.test:5000", name, "127.0.0.1:5000"):
        assert plain_http(host), host
    for host in ("10.214.7.1:5000", "registry.test:5001", "docker.io", "registry-1.docker.io"):
        assert not plain_http(host), host


def test_the_disk_is_that_of_the_images(engine: AnyEngine) -> None:
    with connect(engine.url) as found, closing(engine.client()) as client:
        folder = next(f for f in image_folders(client.info()) if Path(f).exists())
        disk = found.disk()
        assert disk is not None
        usage = shutil.disk_usage(folder)
        assert disk.total == usage.total
        assert abs(disk.free - usage.free) < 1 << 30


def test_containerds_image_store_is_elsewhere() -> None:
    info = {"DockerRootDir": "/data/docker", "DriverStatus": [["Backing Filesystem", "extfs"]]}
    assert image_folders(info) == ["/data/docker"]
    info["DriverStatus"] = [["driver-type", "io.containerd.snapshotter.v1"]]
    assert image_folders(info) == ["/var/lib/containerd", "/data/docker"]
    assert image_folders({}) == []


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        (
            "hello from .bashrc 1 2 3 4% x\n"
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
            "//a b/c    1000 400 500 45% /mnt/with space\n",
            Disk(1024000, 512000),
        ),
        ("df: /x: No such file or directory\n", None),
        ("", None),
    ],
)
def test_df_is_read(text: str, disk: Disk | None) -> None:
    assert disk_of_df(text) == disk


def test_sixteen_streams_leave_the_client_free(engine: AnyEngine) -> None:
    with connect(engine.url) as found:
        streams = [found.client.events(decode=True) for _ in range(16)]
        with ThreadPoolExecutor(16) as pool:
            asked = list(pool.map(lambda _: found.client.containers.list(), range(64)))
        assert len(asked) == 64
        for stream in streams:
            stream.close()


@pytest.mark.parametrize("source", ["--docker-host", "DOCKER_HOST"])
def test_no_engine_is_said_with_its_address(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    if source == "DOCKER_HOST":
        monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    text = refused(NOWHERE if source == "--docker-host" else None)
    assert f"No Docker engine answers at {NOWHERE} ({source}): No such file or directory." in text
    assert "Start Docker" in text


def test_a_port_where_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listening
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert f"{address} (--docker-host): Connection refused." in refused(address)


def test_an_engine_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "docker.sock"))
        silent.listen()
        address = f"unix://{tmp_path}/docker.sock"
        began = time.monotonic()
        assert not engine_answers(address)
        assert time.monotonic() - began < 20
        assert "timed out" in refused(address)


def test_permission_denied(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(tmp_path / "docker.sock"))
        (tmp_path / "docker.sock").chmod(0)
        closed.listen()
        with _not_root():
            text = refused(f"unix://{tmp_path}/docker.sock")
    assert "Permission denied." in text
    assert "docker group" in text


def test_podman_has_a_name_that_lasts() -> None:
    """Its ID is another at every call; Docker's is kept, and with it what was entered under it."""
    told = {"Name": "gpu01", "DockerRootDir": "/var/lib/containers/storage"}
    names = {
        identity_of(Product.PODMAN, "unix:///run/podman/podman.sock", told | {"ID": each})
        for each in ("4eaf6a73", "0595422a")
    }
    assert len(names) == 1
    elsewhere = told | {"DockerRootDir": "/home/me/.local/share/containers/storage"}
    assert identity_of(Product.PODMAN, "unix:///run/podman/podman.sock", elsewhere) not in names
    assert identity_of(Product.DOCKER, "unix:///x.sock", told | {"ID": "4EAF:6A73"}) == "4EAF:6A73"


@contextmanager
def listening(path: Path) -> Iterator[str]:
    """The address of a socket that somebody listens on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
        there.listen()
        yield f"unix://{path}"


def test_sockets_of_other_engines_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that this user may use; none is taken unasked, and none is told to who asked afar."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman" / "podman.sock").touch()  # no socket
    with listening(tmp_path / "docker.sock") as rootless:
        text = refused(NOWHERE)
        assert f"Another engine's socket is there: pass --docker-host {rootless}" in text
        assert "podman.sock" not in text.replace("unix:///run/podman/podman.sock", "")
        (tmp_path / "podman" / "podman.sock").unlink()
        with listening(tmp_path / "podman" / "podman.sock") as podman:
            assert f"--docker-host {rootless} or --docker-host {podman}" in refused(NOWHERE)
            assert "Another engine" not in refused("tcp://127.0.0.1:9")


def test_a_run_from_wheels_says_where_another_engine_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it was asked for, or an engine was named that does not answer."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with listening(tmp_path / "podman" / "podman.sock") as podman:
        told = passed_over("auto", "venv")
        assert len(told) == 1
        assert told[0].startswith("No Docker engine answers, so wheels are tested. Another engine")
        assert f"--docker-host {podman}" in told[0]
        assert passed_over("venv", "venv") == passed_over("auto", "docker") == ()
        monkeypatch.setenv("DOCKER_HOST", NOWHERE)
        assert passed_over("auto", "venv") == ()


@contextmanager
def _not_root() -> Iterator[None]:
    """Without root's rights, where the tests have them."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_engine_that_stops_is_noticed(own_engine: Engine) -> None:
    with connect(own_engine.url) as found:
        assert found.answers()
        own_engine.kill()
        assert not found.answers()
        with pytest.raises(EngineLost, match=own_engine.url):
            found.facts()
        own_engine.start()
        found.reconnect()
        assert found.answers()
