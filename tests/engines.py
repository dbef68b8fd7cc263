"""What tests ask of engines, and of the ways to them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from standin.engine import Engine, GivenEngine
from standin.sshd import Sshd, SshUnavailable
from vbisect.engine import connect, engine_answers
from vbisect.errors import EngineLost, HostError

AnyEngine = Engine | GivenEngine


def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty directory for Docker's configuration; nothing of the user's counts."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "docker-config"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def context(folder: Path, name: str, host: str) -> Path:
    """Make a Docker context, with Docker's own command line where it is; its metadata file."""
    metadata = folder / "contexts" / "meta" / sha256(name.encode()).hexdigest() / "meta.json"
    if shutil.which("docker"):
        create = ["docker", "context", "create", name, "--docker", f"host={host}"]
        environment = {**os.environ, "DOCKER_CONFIG": str(folder)}
        subprocess.run(create, check=True, capture_output=True, env=environment)
    else:
        metadata.parent.mkdir(parents=True)
        endpoint = {"Host": host, "SkipTLSVerify": False}
        written = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
        metadata.write_text(json.dumps(written))
    assert metadata.exists()
    return metadata


def identity(engine: AnyEngine) -> str:
    """What the engine itself says it is."""
    with closing(engine.client()) as client:
        return str(client.info()["ID"])


def refused(address: str | None = None) -> str:
    """What is said when no engine answers; it is not waited for."""
    began = time.monotonic()
    with pytest.raises(HostError) as failed, connect(address):
        pass
    assert time.monotonic() - began < 30
    text = str(failed.value)
    assert "\n" not in text
    assert not isinstance(failed.value, EngineLost)  # it was never there
    assert not engine_answers(address)
    return text


@contextmanager
def logins(directory: Path, *settings: str) -> Iterator[Sshd]:
    """An sshd, or a skip where this host has none; where $VBISECT_CI is set, a failure."""
    sshd = Sshd(directory, *settings)
    try:
        sshd.__enter__()
    except SshUnavailable as error:
        if os.environ.get("VBISECT_CI"):
            raise
        pytest.skip(str(error))
    try:
        yield sshd
    finally:
        sshd.__exit__(None, None, None)


def use(monkeypatch: pytest.MonkeyPatch, client: Path) -> None:
    """Put this ssh client in front."""
    monkeypatch.setenv("PATH", f"{client}{os.pathsep}{os.environ['PATH']}")


def clients(folder: Path) -> list[psutil.Process]:
    """Running ssh processes that were started through the client in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder / "ssh_config") in process.cmdline() and process.status() != "zombie":
                found.append(process)
        except psutil.Error:
            continue
    return found
