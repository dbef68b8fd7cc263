"""The base layer of the stand-in images: a root filesystem that holds Python."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from .registry import Layer

# dash: a container that is looked into wants a shell. base-files: /tmp, /root, os-release.
PACKAGES = ("base-files", "dash", "python3")
LEFT_OUT = re.compile(
    r"\./(usr/share/(doc|info|lintian|locale|man)|var/(cache|lib/apt|lib/dpkg|log)|etc/apt|dev"
    r"|usr/lib/[^/]+/gconv|usr/lib/python3[.\d]*/(lib2to3|pydoc_data|test))/."
)
# What the server imports is compiled once, here, instead of in every container.
WARM_UP = (
    "import argparse, dataclasses, http.server, importlib.metadata, json, pathlib, random, "
    "signal, socketserver, subprocess, threading, uuid"
)
ROOT = "root:x:0:0:root:/root:/bin/sh"
SOURCES = ("sources.list", "sources.list.d/debian.sources", "sources.list.d/ubuntu.sources")


class BaseUnavailable(Exception):
    """This host cannot make the base layer; the text says why."""


@cache
def base_layer() -> Layer:
    """The layer, made on first use and kept in $VBISECT_TEST_CACHE. Raises `BaseUnavailable`."""
    default = Path(tempfile.gettempdir()) / "vbisect-test-cache"
    cache = Path(os.environ.get("VBISECT_TEST_CACHE") or default)
    cache.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    path = cache / f"base-{_suite()}-{recipe}.tar.gz"
    with (cache / "base.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            partial = path.with_suffix(".partial")
            _make(partial)
            partial.rename(path)
    return Layer(path.read_bytes())


def _make(path: Path) -> None:
    """Unpack the packages without installing them: no scripts run, and it takes seconds."""
    if shutil.which("mmdebstrap") is None:
        raise BaseUnavailable("missing: mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="vbisect-base-") as scratch:
        plain = Path(scratch) / "plain.tar"
        done = subprocess.run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=extract",
                f"--include={','.join(PACKAGES)}",
                f'--extract-hook=echo "{ROOT}" >"$1/etc/passwd"',
                f'--extract-hook=chroot "$1" /usr/bin/python3 -I -c "{WARM_UP}"',
                *(f"--aptopt={line}" for line in _network_settings()),
                _suite(),
                str(plain),
                *(str(file) for file in _sources()),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BaseUnavailable(f"mmdebstrap failed:\n{done.stderr[-1500:]}")
        with gzip.open(path, "wb", compresslevel=1) as packed:
            _slim(plain, packed)


def _slim(plain: Path, packed: gzip.GzipFile) -> None:
    with tarfile.open(plain) as source, tarfile.open(fileobj=packed, mode="w|") as target:
        for member in source:
            if LEFT_OUT.match(member.name):
                continue
            target.addfile(member, source.extractfile(member) if member.isreg() else None)


def _suite() -> str:
    release = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)", release, re.MULTILINE)
    if found is None:
        raise BaseUnavailable("this is no Debian or Ubuntu")
    return found[1]


def _sources() -> list[Path]:
    """The host's own package sources, without those of third parties."""
    files = [Path("/etc/apt") / name for name in SOURCES]
    return [file for file in files if file.is_file() and file.stat().st_size]


def _network_settings() -> list[str]:
    """The host's settings of how its mirror is reached and trusted."""
    command = ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', "Acquire"]
    dumped = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    wanted = r'^Acquire::(?:https?|Check-Date|Check-Valid-Until|Retries)[:\w.-]* ".*";$'
    return re.findall(wanted, dumped, re.MULTILINE)
