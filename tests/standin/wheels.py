"""Builds stand-in wheels: valid, tiny, and with the server inside."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .behaviour import Behaviour

__all__ = ["Behaviour", "build_wheel", "dependency", "package_files", "repack", "write_package"]

HERE = Path(__file__).parent
SAME_NAMES = (
    *("web.py", "asks.py", "replies.py", "arguments.py", "log.py", "quirks.py"),
    "hub_client.py",
)
# The modules of the server and the names they have in the wheel.
SOURCES = {
    "server.py": "standin_server.py",
    **{name: name for name in SAME_NAMES},
    "behaviour.py": "behaviour.py",
}
API_SERVER = "from vllm.standin_server import api_server\n\napi_server()\n"
ENTRY_POINTS = "[console_scripts]\nvllm = vllm.standin_server:main\n"


@cache
def _sources() -> dict[str, str]:
    texts = {f"vllm/{target}": (HERE / source).read_text() for source, target in SOURCES.items()}
    for package in ("vllm/entrypoints", "vllm/entrypoints/openai"):
        texts[f"{package}/__init__.py"] = ""
    texts["vllm/entrypoints/openai/api_server.py"] = API_SERVER
    return texts


def package_files(version: str, behaviour: Behaviour) -> dict[str, str]:
    """The files of package `vllm` for one release: path → text."""
    return {
        **_sources(),
        "vllm/__init__.py": f'__version__ = "{version}"\n',
        "vllm/behaviour.json": behaviour.dumps(version),
    }


def write_package(directory: Path, version: str, behaviour: Behaviour) -> Path:
    """Write package `vllm` below `directory` without a wheel.

    Run it with `PYTHONPATH=directory python -m vllm.standin_server serve …`.
    """
    for name, text in package_files(version, behaviour).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def build_wheel(
    directory: Path,
    distribution: str,
    version: str,
    behaviour: Behaviour,
    *,
    requires_python: str | None = ">=3.9",
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
) -> Path:
    """Write one wheel into `directory` and return its path.

    `tag` is for wheels that exist but do not fit this machine, as PyPI has some of.
    """
    name = distribution.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    described = [
        "Metadata-Version: 2.1",
        f"Name: {distribution}",
        f"Version: {version}",
        "Summary: a stand-in for vLLM, for tests",
    ]
    if requires_python:
        described.append(f"Requires-Python: {requires_python}")
    described += [f"Requires-Dist: {line}" for line in requires]
    files = package_files(version, behaviour)
    files[f"{info}/METADATA"] = "\n".join(described) + "\n"
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: standin\nRoot-Is-Purelib: true\nTag: {tag}\n"
    )
    files[f"{info}/entry_points.txt"] = ENTRY_POINTS
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-{tag}.whl"
    # Written aside and renamed: an index that is serving the directory never sees half a wheel.
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for file, text in files.items():
            # A fixed date makes the same release the same bytes, so digests can be compared.
            archive.writestr(zipfile.ZipInfo(file, (2026, 1, 1, 0, 0, 0)), text)
    return partial.replace(path)


def dependency(directory: Path, name: str, version: str) -> Path:
    """Write a wheel of something that a release depends on; it holds nothing but its metadata."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        names = ("METADATA", "WHEEL", "RECORD")
        archive.writestr(f"{info}/RECORD", "".join(f"{info}/{name},,\n" for name in names))
    return path


def _record(files: dict[str, str], own_name: str) -> str:
    rows = []
    for name, text in files.items():
        data = text.encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*rows, f"{own_name},,\n"])


def repack(directory: Path, name: str) -> None:
    """Write wheels of an installed distribution and of all that it needs, as they are here."""
    todo, done = [name], set[str]()
    while todo:
        current = canonicalize_name(todo.pop())
        if current in done:
            continue
        done.add(current)
        found = metadata.distribution(current)
        _repack(directory, found)
        needed = (Requirement(line) for line in found.requires or ())
        todo += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]


def _repack(directory: Path, found: metadata.Distribution) -> None:
    tag = next(
        line[5:] for line in (found.read_text("WHEEL") or "").splitlines() if "Tag: " in line
    )
    name = found.metadata["Name"].replace("-", "_").replace(".", "_")
    directory.mkdir(parents=True, exist_ok=True)
    not_packed = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
    rows = []
    with zipfile.ZipFile(directory / f"{name}-{found.version}-{tag}.whl", "w") as archive:
        for file in found.files or ():
            if ".." in file.parts or file.suffix == ".pyc" or file.name in not_packed:
                continue
            archive.write(str(found.locate_file(file)), str(file))
            rows.append(f"{file},,\n")
        folder = next(p for p in map(PurePosixPath, archive.namelist()) if p.name == "METADATA")
        record = folder.with_name("RECORD")
        archive.writestr(str(record), "".join([*rows, f"{record},,\n"]))
