"""The file behind a wheel: its digest, size and upload date, as the package index states them."""

from __future__ import annotations

import threading
import tomllib
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from pydantic import BaseModel, ConfigDict

from vbisect.builds.by_recipe import never_built
from vbisect.builds.uv import failure, run_uv
from vbisect.processes import scratch_directory
from vbisect.releases import Wheel


class WheelFile(BaseModel):
    """``size`` in bytes; ``uploaded`` in UTC, ``None`` where the index gives no date."""

    model_config = ConfigDict(frozen=True)

    filename: str
    sha256: str | None
    size: int | None
    uploaded: datetime | None


def find_wheel_file(
    wheel: Wheel, python: str, *, cancel: threading.Event | None = None
) -> WheelFile:
    """Ask the index for the wheel that ``python`` (a path or version) would get.

    uv writes it in the standard lock format (https://packaging.python.org/specifications/pylock-toml),
    which carries upload times. Raises ``Untestable`` when there is none for this platform,
    ``HostError`` when no index answers.
    """
    with scratch_directory() as folder:
        lock = folder / "pylock.toml"
        (folder / "requirements.in").write_text(f"{wheel.distribution}=={wheel.version}\n")
        arguments = ["pip", "compile", "requirements.in", "--no-deps", "--python", python]
        arguments += ["--format", "pylock.toml", "--output-file", str(lock)]
        arguments += never_built(wheel)
        arguments += ["--index", wheel.index] if wheel.index else []
        result = run_uv(arguments, cancel=cancel, directory=folder)
        if result.returncode:
            raise failure(result, "the configured package index")
        package = tomllib.loads(lock.read_text(encoding="utf-8"))["packages"][0]
    files = package.get("wheels") or [package.get("archive") or package.get("sdist") or {}]
    file = max(files, key=lambda item: _preference(_filename(item)))
    uploaded = file.get("upload-time")
    return WheelFile(
        filename=_filename(file),
        sha256=file.get("hashes", {}).get("sha256"),
        size=file.get("size"),
        uploaded=uploaded.replace(tzinfo=uploaded.tzinfo or UTC) if uploaded else None,
    )


def _filename(file: dict[str, Any]) -> str:
    address = str(file.get("url") or file.get("path") or "")
    return str(file.get("name") or unquote(address.rpartition("/")[2]))


def _preference(filename: str) -> tuple[int, int]:
    """Wheels that run here first, then the latest build: versions were re-uploaded under a tag."""
    try:
        _, _, build, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return (0, 0)
    return (int(not tags.isdisjoint(sys_tags())), build[0] if build else 0)
