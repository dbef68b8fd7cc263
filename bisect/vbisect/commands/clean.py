"""``vbisect clean``: give back what vbisect made or pulled, and nothing else."""

from __future__ import annotations

import sys

from vbisect.amounts import counted
from vbisect.builds.eviction import evict
from vbisect.engine import connect, engine_answers
from vbisect.errors import HostError
from vbisect.releases.candidates import parse_version


def remove_everything(versions: tuple[str, ...], docker_host: str | None) -> None:
    """Remove what runs left, and say how much that freed; ``versions`` limits it to these.

    Raises ``UsageError`` for what is no version, ``HostError`` when an engine that was named does
    not answer or the cache cannot be written.
    """
    versions = tuple(str(parse_version(version)) for version in versions)
    if docker_host is not None or engine_answers():
        _remove_from_engine(versions, docker_host)
    _remove_environments(versions)


def _remove_environments(versions: tuple[str, ...]) -> None:
    freed = removed = 0
    try:
        _say("removing environments")
        for item in evict(versions):
            print(f"{item.name}: {'in use, kept' if item.in_use else 'removed'}", flush=True)
            freed += item.freed
            removed += not item.in_use
    except OSError as error:
        where = error.filename or "The cache"
        raise HostError(f"{where} cannot be removed: {error.strerror}.") from error
    print(
        f"{counted(removed, 'environment')} removed, {freed / 1e9:.2f} GB freed "
        "(uv's own cache is kept)"
    )


def _say(line: str) -> None:
    print(f"vbisect: {line}", file=sys.stderr, flush=True)


def _remove_from_engine(versions: tuple[str, ...], docker_host: str | None) -> None:
    from vbisect.builds.built_images import remove_built_images
    from vbisect.builds.disk import taken
    from vbisect.builds.image_store import ImageStore
    from vbisect.engine.faults import engine_faults
    from vbisect.engine.leftovers import remove_leftovers, remove_volumes

    with connect(docker_host) as engine:
        _say(f"removing containers, images and volumes from {engine.where}")
        store = ImageStore(engine)
        containers = remove_leftovers(engine)
        before = store.own()
        for name, entry in store.ledger.entries().items():
            if not versions or entry.carries(versions):
                removed = store.remove(name)
                if name not in before:
                    continue  # its pull was given up
                print(f"{entry.reference}: {'removed' if removed else 'in use, kept'}", flush=True)
        freed = taken(before) - taken(store.own())
        with engine_faults(engine.title):
            built = remove_built_images(engine.client, versions)
        for item in built:
            print(f"{item.image.tag}: {'in use, kept' if item.in_use else 'removed'}")
        volumes = [] if versions else remove_volumes(engine)
        pulled = len(before) - len(store.own())
        print(
            f"{counted(containers, 'container')}, {counted(len(volumes), 'volume')} and "
            f"{counted(pulled, 'pulled image')} removed from {engine.where}, "
            f"{freed / 1e9:.2f} GB of layers freed; "
            f"{counted(sum(not item.in_use for item in built), 'built image')} removed"
        )
