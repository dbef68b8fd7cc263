"""``vbisect clean``: give back what vbisect made or pulled, and nothing else."""

from __future__ import annotations

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
    try:
        done = evict(versions)
    except OSError as error:
        where = error.filename or "The cache"
        raise HostError(f"{where} cannot be removed: {error.strerror}.") from error
    for item in done:
        print(f"{item.name}: in use, kept" if item.in_use else f"{item.name}: removed")
    freed = sum(item.freed for item in done)
    removed = sum(not item.in_use for item in done)
    print(f"{removed} environments removed, {freed / 1e9:.2f} GB freed (uv's own cache is kept)")


def _remove_from_engine(versions: tuple[str, ...], docker_host: str | None) -> None:
    from vbisect.builds.built_images import remove_built_images
    from vbisect.builds.disk import taken
    from vbisect.builds.image_store import ImageStore
    from vbisect.engine.faults import engine_faults
    from vbisect.engine.leftovers import remove_leftovers, remove_volumes

    with connect(docker_host) as engine:
        store = ImageStore(engine)
        containers = remove_leftovers(engine)
        before = store.own()
        for name, entry in store.ledger.entries().items():
            if not versions or entry.carries(versions):
                removed = store.remove(name)
                if name not in before:
                    continue  # its pull was given up
                print(f"{entry.reference}: {'removed' if removed else 'in use, kept'}")
        freed = taken(before) - taken(store.own())
        with engine_faults(engine.where):
            built = remove_built_images(engine.client, versions)
        for item in built:
            print(f"{item.image.tag}: {'in use, kept' if item.in_use else 'removed'}")
        volumes = [] if versions else remove_volumes(engine)
        print(
            f"{containers} containers, {len(volumes)} volumes and {len(before) - len(store.own())} "
            f"pulled images removed from {engine.where}, {freed / 1e9:.2f} GB of layers freed; "
            f"{sum(not item.in_use for item in built)} built images removed"
        )
