"""The runtimes there are; a new one is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vbisect.run.runtimes.interface import Fetched, Runtime, Say
from vbisect.run.settings import RunSettings

__all__ = ["RUNTIMES", "Fetched", "Runtime", "Say", "open_runtime"]


def _venv(settings: RunSettings, run_dir: Path, say: Say) -> Runtime:
    from vbisect.run.runtimes.venv import VenvRuntime

    return VenvRuntime(settings, run_dir)


def _docker(settings: RunSettings, run_dir: Path, say: Say) -> Runtime:
    from vbisect.run.runtimes.docker import DockerRuntime

    return DockerRuntime(settings, run_dir, say)


RUNTIMES: dict[str, Callable[[RunSettings, Path, Say], Runtime]] = {
    "venv": _venv,
    "docker": _docker,
}


def open_runtime(settings: RunSettings, run_dir: Path, say: Say) -> Runtime:
    """The runtime of a run; raises ``HostError`` when this host does not have it."""
    return RUNTIMES[settings.runtime](settings, run_dir, say)
