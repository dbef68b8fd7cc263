"""Containers and volumes that carry vbisect's labels: whose they are, and their removal."""

from __future__ import annotations

import hashlib
import socket
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import APIError, NotFound

from vbisect.engine.faults import engine_faults, explanation
from vbisect.errors import HostError
from vbisect.locks import Locked, file_lock
from vbisect.text import one_line

if TYPE_CHECKING:
    from docker.models.containers import Container

    from vbisect.engine.connection import Engine

RUN = "vbisect.run"
_RUN_DIRECTORY = "vbisect.run_dir"
_MACHINE = "vbisect.machine"
VOLUME_PREFIX = "vbisect-vllm-"
_REMOVAL_SECONDS = 30


def owner_labels(run_dir: Path) -> dict[str, str]:
    """The labels of a container that the run in ``run_dir`` (absolute) starts."""
    return {RUN: run_dir.name, _RUN_DIRECTORY: str(run_dir), _MACHINE: _machine()}


def remove_leftovers(engine: Engine, run_dir: Path | None = None) -> int:
    """Remove the containers of runs that nobody carries on any more; returns how many.

    ``run_dir`` is the caller's own run, of which it has no container. Containers that a vbisect on
    another machine started are left alone. Raises ``EngineLost``, or ``HostError`` for one that
    cannot be removed.
    """
    with engine_faults(engine.title):
        found = engine.client.containers.list(all=True, filters={"label": RUN}, ignore_removed=True)
        return sum(
            _remove(engine, container) for container in found if _is_left_over(container, run_dir)
        )


def remove_volumes(engine: Engine) -> list[str]:
    """Remove the volumes with compiled kernels that no container uses; returns their names."""
    removed = []
    with engine_faults(engine.title):
        for volume in engine.client.volumes.list(filters={"name": VOLUME_PREFIX}):
            if not str(volume.name).startswith(VOLUME_PREFIX):
                continue
            try:
                volume.remove()
            except APIError as error:
                if error.status_code in (404, 409):
                    continue
                raise
            removed.append(str(volume.name))
    return removed


def _remove(engine: Engine, container: Container) -> bool:
    """Remove a container; ``False`` when somebody else was quicker."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        return False
    except APIError as error:
        if error.status_code != 409:
            raise HostError(
                f"The container {container.short_id}, left by a killed run, cannot be removed: "
                f"{one_line(explanation(error))}. Remove it by hand: "
                f"{engine.product.lower()} rm --force {container.short_id}"
            ) from None
        with suppress(NotFound):  # somebody is removing it already
            container.wait(timeout=_REMOVAL_SECONDS, condition="removed")
        return False
    return True


def _is_left_over(container: Container, run_dir: Path | None) -> bool:
    labels = container.labels
    if labels.get(_MACHINE) != _machine():
        return False
    owner = Path(labels.get(_RUN_DIRECTORY, "/nowhere"))
    if owner == run_dir:
        return True
    try:
        if not (owner / "lock").exists():
            return True
        # shared: several that start at once may look at the same moment
        with file_lock(owner / "lock", shared=True):
            return True
    except (Locked, OSError):  # at work, or another user's, which is for that user to say
        return False


def _machine() -> str:
    """A name for this machine that tells nothing about it."""
    return hashlib.sha256(f"{socket.gethostname()}-{uuid.getnode()}".encode()).hexdigest()[:16]
