"""The base image that real vLLM is built on: the host's own distribution, with what vLLM needs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .base import BaseUnavailable, _network_settings, _sources, _suite

if TYPE_CHECKING:
    import docker

REPOSITORY = "vbisect-test/build-base"
# Those that vbisect would install itself on a public base image, for a CPU.
PACKAGES = ("ca-certificates", "g++", "libnuma1", "python3", "python3-dev")
NOT_UNPACKED = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")


def build_base(client: docker.DockerClient) -> str:
    """The name of the image, imported unless the engine has it. Raises `BaseUnavailable`."""
    file = base_file()
    tag = file.stem.removeprefix("build-base-")
    if not client.images.list(f"{REPOSITORY}:{tag}"):
        client.api.import_image_from_file(str(file), repository=REPOSITORY, tag=tag)
    return f"{REPOSITORY}:{tag}"


def base_file() -> Path:
    """A tar file of its root, made on first use (20 s, 500 MB) and kept in $VBISECT_TEST_CACHE."""
    default = Path(tempfile.gettempdir()) / "vbisect-test-cache"
    cache = Path(os.environ.get("VBISECT_TEST_CACHE") or default)
    cache.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    path = cache / f"build-base-{_suite()}-{recipe}.tar"
    with (cache / "build-base.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            partial = path.with_name(f"{path.stem}.partial.tar")
            _make(partial)
            partial.rename(path)
    return path


def _make(path: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise BaseUnavailable("missing: mmdebstrap")
    done = subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in NOT_UNPACKED),
            *(f"--aptopt={line}" for line in _network_settings()),
            _suite(),
            str(path),
            *(str(file) for file in _sources()),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        path.unlink(missing_ok=True)
        raise BaseUnavailable(f"mmdebstrap failed:\n{done.stderr[-1500:]}")
