"""What a run would do: how many boots, what it would download, and how much disk that takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from statistics import mean
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from vbisect.builds.disk import USUAL_UNPACKED
from vbisect.builds.image_store import ImageStore
from vbisect.engine import Disk, connect
from vbisect.engine.images import plain_http_registries, platform_of
from vbisect.errors import HostError
from vbisect.registry import (
    ImageMissing,
    ImageReference,
    Registry,
    RemoteImage,
)
from vbisect.registry.reference import DOCKER_HUB
from vbisect.releases.image_tags import listed
from vbisect.run.settings import RunSettings
from vbisect.search import Outcome, next_pick

if TYPE_CHECKING:
    from vbisect.engine.connection import Engine

_AT_ONCE = 8
BOOT_SECONDS = 150
"""What a boot is reckoned with until this host's own are known (vLLM with a 7B model on a GPU)."""

BYTES_PER_SECOND = 50e6
"""What a download is reckoned with."""


class Download(BaseModel):
    """What one candidate would fetch: ``layers`` maps what is missing to its compressed bytes.

    ``there`` when nothing needs to be fetched, ``missing`` when there is no such image.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    there: bool = False
    missing: bool = False
    layers: dict[str, int] = {}


class Plan(BaseModel):
    """What a run over ``versions`` would do at most, and on average over where the change may be.

    Sizes in bytes, times in seconds; ``None`` where nobody can tell beforehand.
    """

    model_config = ConfigDict(frozen=True)

    versions: tuple[str, ...]
    testable: int
    there: tuple[str, ...]
    missing: tuple[str, ...]
    boots_worst: int
    boots_mean: float
    download_worst: int | None
    download_mean: int | None
    disk_worst: int | None
    disk_free: int | None
    disk_budget: int | None
    seconds_worst: int
    seconds_mean: int
    notes: tuple[str, ...] = ()


def make_plan(settings: RunSettings) -> Plan:
    """Ask where the builds are; starts and fetches nothing.

    Raises ``HostError`` when no engine answers.
    """
    if settings.docker is None:
        missing = [r.version for r in settings.candidates if settings.device not in r.wheels]
        downloads = {v: Download(version=v, missing=v in missing) for v in settings.versions}
        unknown = ("How much a wheel with its dependencies takes is known once it is resolved.",)
        return _reckon(settings, downloads, None, sizes_known=False, notes=unknown)
    with connect(settings.docker.host) as engine:
        notes: tuple[str, ...] = ()
        try:
            downloads = _downloads(settings, engine)
            sizes_known = True
        except HostError as error:
            downloads = {v: Download(version=v) for v in settings.versions}
            notes, sizes_known = (f"The registry could not be asked: {error}",), False
        return _reckon(settings, downloads, engine.disk(), sizes_known=sizes_known, notes=notes)


def _downloads(settings: RunSettings, engine: Engine) -> dict[str, Download]:
    assert settings.docker is not None
    store = ImageStore(engine)
    present, platform = store.present_layers(), platform_of(engine)
    with Registry(plain_http=plain_http_registries(engine)) as registry:
        references = {
            release.version: ImageReference.parse(settings.docker.image_of(release))
            for release in settings.candidates
        }
        listed = _hub_sizes(references.values())

        def ask(version: str) -> Download:
            reference = references[version]
            digest = reference.digest or registry.digest(reference)
            if digest is None:
                built = store.built(version, settings.device) is not None
                return Download(version=version, there=built, missing=not built)
            if store.find(str(reference.with_digest(digest))) is not None:
                return Download(version=version, there=True)
            if str(reference) in listed:
                return Download(version=version, layers={digest: listed[str(reference)]})
            try:
                image = registry.image(reference.with_digest(digest), platform)
            except ImageMissing:
                return Download(version=version, missing=True)
            return Download(version=version, layers=_missing_layers(image, present))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(ask, settings.versions)
        return {download.version: download for download in found}


def _hub_sizes(references: Iterable[ImageReference]) -> dict[str, int]:
    """Sizes from Docker Hub's own listing, which does not count as pulling every manifest."""
    repositories = {r.name: r for r in references if r.registry == DOCKER_HUB}
    sizes: dict[str, int] = {}
    for name, repository in repositories.items():
        with suppress(HostError):  # each image can be asked for instead
            sizes |= {f"{name}:{tag.name}": tag.size for tag in listed(repository)}
    return sizes


def _missing_layers(image: RemoteImage, present: frozenset[str]) -> dict[str, int]:
    return {layer: size for layer, size in image.layer_sizes.items() if layer not in present}


def _reckon(
    settings: RunSettings,
    downloads: dict[str, Download],
    disk: Disk | None,
    *,
    sizes_known: bool,
    notes: tuple[str, ...],
) -> Plan:
    versions = settings.versions
    left_out = {*settings.excluded, *(v for v, found in downloads.items() if found.missing)}
    untestable = {versions.index(version): Outcome.SKIP for version in left_out}
    paths = list(_paths(len(versions), untestable, sweep=settings.sweep)) or [[]]
    in_a_trial = 2 if settings.control_model else 1
    boots = [len(path) * in_a_trial for path in paths]
    sizes = [_bytes_of(downloads[versions[index]] for index in path) for path in paths]
    times = [
        number * BOOT_SECONDS + size / BYTES_PER_SECOND
        for number, size in zip(boots, sizes, strict=True)
    ]
    return Plan(
        versions=versions,
        testable=len(versions) - len(untestable),
        there=tuple(v for v, found in downloads.items() if found.there),
        missing=tuple(v for v, found in downloads.items() if found.missing),
        boots_worst=max(boots),
        boots_mean=round(mean(boots), 1),
        download_worst=max(sizes) if sizes_known else None,
        download_mean=int(mean(sizes)) if sizes_known else None,
        disk_worst=int(max(sizes) * USUAL_UNPACKED) if sizes_known else None,
        disk_free=disk.free if disk else None,
        disk_budget=settings.docker.disk_budget if settings.docker else None,
        seconds_worst=int(max(times)),
        seconds_mean=int(mean(times)),
        notes=notes,
    )


def _bytes_of(downloads: Iterable[Download]) -> int:
    """Compressed bytes of some candidates; what they share is counted once."""
    layers: dict[str, int] = {}
    for download in downloads:
        layers |= download.layers
    return sum(layers.values())


def _paths(count: int, untestable: dict[int, Outcome], *, sweep: bool) -> Iterable[Sequence[int]]:
    """What would be tested, for every place the change may be at, if nothing else is skipped."""
    testable = [index for index in range(count) if index not in untestable]
    for _, change in pairwise(testable):
        outcomes = dict(untestable)
        while (pick := next_pick(count, outcomes, sweep=sweep)) is not None:
            outcomes[pick] = Outcome.FAIL if pick < change else Outcome.PASS
        yield [index for index in outcomes if index not in untestable]
