"""What a run would do: how many boots, what it would download, and how much disk that takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from vbisect.builds.disk import USUAL_UNPACKED
from vbisect.builds.image_store import ImageStore
from vbisect.engine import Disk, connect
from vbisect.engine.images import plain_http_registries, platform_of
from vbisect.errors import HostError
from vbisect.launch.engine_version import engines_of
from vbisect.registry import (
    ImageMissing,
    ImageReference,
    Registry,
    RemoteImage,
    known_image,
)
from vbisect.registry.reference import DOCKER_HUB
from vbisect.releases.image_tags import listed
from vbisect.run.earlier import EarlierTrials
from vbisect.run.engine_choice import is_chosen
from vbisect.run.fit import host_of, image_refusal
from vbisect.run.forecast import foresee
from vbisect.run.rehearsal import Stage, rehearse
from vbisect.run.runtimes.venv import installed
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState
from vbisect.run.times import Times, learn
from vbisect.search import Outcome

if TYPE_CHECKING:
    from vbisect.engine.connection import Engine

_AT_ONCE = 8


class Download(BaseModel):
    """What one candidate would fetch: ``layers`` maps what is missing to its compressed bytes.

    ``share`` of the build, in [0, 1], is on the host; ``missing`` when there is no such build,
    ``unfit`` why the host cannot run it.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    share: float = 0.0
    missing: bool = False
    unfit: str | None = None
    layers: dict[str, int] = {}

    @property
    def there(self) -> bool:
        """Whether nothing needs to be fetched."""
        return self.share == 1


class Plan(BaseModel):
    """What a run over ``versions`` would do at most, and on average over where the change may be.

    Sizes in bytes, times in seconds; ``None`` where nobody can tell beforehand. ``missing`` were
    never published, ``unfit`` says which cannot run here and why, ``counted`` count as earlier runs
    tested them and need no boot then. ``download_…`` hold what may come in vain, and
    ``allowance`` is what the registry still allows, where it tells. ``fetch``,
    ``boot`` (with a control model: of both servers) and ``request`` are reckoned with, and
    ``learnt_from`` is the number of trials on this host that tell so.
    """

    model_config = ConfigDict(frozen=True)

    versions: tuple[str, ...]
    testable: int
    jobs: int
    there: tuple[str, ...]
    missing: tuple[str, ...]
    unfit: dict[str, str]
    counted: tuple[str, ...]
    boots_worst: int
    boots_mean: float
    download_worst: int | None
    download_mean: int | None
    in_vain_worst: int | None
    pulls_worst: int
    disk_worst: int | None
    disk_free: int | None
    disk_budget: int | None
    seconds_worst: int
    seconds_mean: int
    fetch: float
    boot: float
    request: float
    learnt_from: int
    allowance: str | None = None
    notes: tuple[str, ...] = ()


def make_plan(settings: RunSettings, results: Path) -> Plan:
    """Ask where the builds are; starts and fetches nothing.

    The times are those of the runs below ``results``. Raises ``HostError`` when no engine answers.
    """
    times = learn(results, settings, RunState(settings))
    counted = _counted(settings, results)
    unfit = {u.version: f"{u.reason}: {u.detail}" for u in settings.unfit}
    unfit = {v: why for v, why in unfit.items() if v not in (*settings.excluded, *counted)}
    if settings.docker is None:
        there = installed(settings, settings.candidates)
        downloads = {
            release.version: Download(
                version=release.version,
                share=float(release.version in there),
                missing=settings.device not in release.wheels,
                unfit=unfit.get(release.version),
            )
            for release in settings.candidates
        }
        unknown = ("How much a wheel with its dependencies takes is known once it is resolved.",)
        return _reckon(
            settings, times, downloads, None, counted=counted, sizes_known=False, notes=unknown
        )
    with connect(settings.docker.host) as engine:
        notes: tuple[str, ...] = ()
        allowance = None
        try:
            downloads, allowance = _downloads(settings, engine, unfit)
            sizes_known = settings.docker.build != "always"
        except HostError as error:
            downloads = {v: Download(version=v, unfit=unfit.get(v)) for v in settings.versions}
            notes, sizes_known = (f"The registry could not be asked: {error}",), False
        disk = engine.disk()
    plan = _reckon(
        settings, times, downloads, disk, counted=counted, sizes_known=sizes_known, notes=notes
    )
    return plan.model_copy(update={"allowance": allowance})


def _counted(settings: RunSettings, results: Path) -> tuple[str, ...]:
    """What earlier runs tested as this one would; it counts again while the build is the same."""
    if settings.fresh:
        return ()
    earlier = EarlierTrials(results, settings, results / settings.run_id)
    return tuple(
        version for version in settings.versions if earlier.may_find(version, settings.engine.only)
    )


def _downloads(
    settings: RunSettings, engine: Engine, unfit: Mapping[str, str]
) -> tuple[dict[str, Download], str | None]:
    """What each candidate would fetch, and what is left of the pulls its registry allows."""
    assert settings.docker is not None
    docker, host = settings.docker, host_of(settings)
    build = docker.build
    store = ImageStore(engine)
    present, platform = store.present_layers(), platform_of(engine)
    with Registry(plain_http=plain_http_registries(engine)) as registry:
        references = {
            release.version: ImageReference.parse(docker.image_of(release))
            for release in settings.candidates
        }
        listed = _hub_sizes(references.values())

        def ask(version: str) -> Download:
            if version in unfit:
                return Download(version=version, unfit=unfit[version])
            if build == "always":
                return Download(version=version)
            reference = references[version]
            digest = reference.digest or registry.digest(reference)
            if digest is None:
                takes = docker.takes_built(version, settings.device)
                built = takes and store.built(version, settings.device) is not None
                return Download(
                    version=version, share=float(built), missing=not built and build == "never"
                )
            if store.find(str(reference.with_digest(digest))) is not None:
                return Download(version=version, share=1)
            if str(reference) in listed:
                return Download(version=version, layers={digest: listed[str(reference)]})
            try:
                image = known_image(registry, reference.with_digest(digest), platform)
            except ImageMissing:
                return Download(version=version, missing=True)
            if refused := image_refusal(settings, host, version, image):
                return Download(version=version, unfit=str(refused))
            layers = _missing_layers(image, present)
            whole = sum(image.layer_sizes.values())
            share = 1 - sum(layers.values()) / whole if whole else 0.0
            return Download(version=version, share=min(share, 0.99), layers=layers)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = {download.version: download for download in pool.map(ask, settings.versions)}
        asked = ImageReference.parse(settings.docker.image_repo).registry
        left = registry.allowance(asked)
        return found, f"{left} at {asked}" if left else None


def _hub_sizes(references: Iterable[ImageReference]) -> dict[str, int]:
    """Sizes from Docker Hub's own listing, which does not count as pulling every manifest."""
    repositories = {r.name: r for r in references if r.registry == DOCKER_HUB}
    sizes: dict[str, int] = {}
    for name, repository in repositories.items():
        with suppress(HostError, ImageMissing):  # each image can be asked for instead
            sizes |= {f"{name}:{tag.name}": tag.size for tag in listed(repository)}
    return sizes


def _missing_layers(image: RemoteImage, present: frozenset[str]) -> dict[str, int]:
    return {layer: size for layer, size in image.layer_sizes.items() if layer not in present}


def _reckon(
    settings: RunSettings,
    times: Times,
    downloads: dict[str, Download],
    disk: Disk | None,
    *,
    counted: tuple[str, ...],
    sizes_known: bool,
    notes: tuple[str, ...],
) -> Plan:
    versions = settings.versions
    tried = [v for v in versions if v not in settings.excluded]
    unfit = {v: why for v in tried if (why := downloads[v].unfit)}
    missing = [v for v in tried if downloads[v].missing and v not in unfit]
    in_a_trial = 2 if settings.control_model else 1
    stage = Stage(
        aim=RunState(settings).aim,
        costs=times.costs(settings.candidates, {v: found.share for v, found in downloads.items()}),
        excluded=frozenset(map(versions.index, settings.excluded)),
        missing=frozenset(map(versions.index, (*missing, *unfit))),
        jobs=settings.jobs,
    )
    sight = foresee(stage, lambda booted: _bytes_of(downloads[versions[i]] for i in booted))
    more = _for_the_other_engine(settings, stage)
    worst = int(sight.bytes_most + sight.vain_most)
    return Plan(
        versions=versions,
        testable=len(stage.testable),
        jobs=settings.jobs,
        there=tuple(v for v in versions if downloads[v].there),
        missing=tuple(missing),
        unfit=unfit,
        boots_worst=(sight.boots_most + more.boots) * in_a_trial,
        boots_mean=round(sight.boots_mean * in_a_trial, 1),
        download_worst=worst if sizes_known else None,
        download_mean=int(sight.bytes_mean + sight.vain_mean) if sizes_known else None,
        pulls_worst=sight.builds_most,
        in_vain_worst=int(sight.vain_most) if sizes_known else None,
        disk_worst=int(worst * USUAL_UNPACKED) if sizes_known else None,
        disk_free=disk.free if disk else None,
        disk_budget=settings.docker.disk_budget if settings.docker else None,
        seconds_worst=int(sight.seconds_most + more.seconds),
        seconds_mean=int(sight.seconds_mean),
        fetch=times.fetch,
        boot=times.boot,
        request=times.request,
        learnt_from=sum(spent.boot is not None for spent in times.earlier),
        notes=(*notes, *more.notes),
        counted=counted,
    )


@dataclass(frozen=True)
class _More:
    """What a run may take beyond the search for one engine."""

    boots: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def _for_the_other_engine(settings: RunSettings, stage: Stage) -> _More:
    """All that a search without a change takes, and the older end once more."""
    if settings.engine.only is not None or not stage.testable:
        return _More()
    oldest = settings.versions[stage.testable[0]]
    if len(engines_of(oldest)) == 1 or is_chosen(settings.variables, oldest):
        return _More()
    alike = rehearse(stage, dict.fromkeys(stage.testable, Outcome.PASS))
    note = (
        f"{oldest} has two engines: where the ends do not run the same, or all passes, it is "
        f"booted with the other one too, and the search goes on with the one that fails. At most "
        f"{alike.boots + 1} of the boots are for that."
    )
    return _More(alike.boots + 1, alike.seconds + stage.costs.boot, (note,))


def _bytes_of(downloads: Iterable[Download]) -> int:
    """Compressed bytes of some candidates; what they share is counted once."""
    layers: dict[str, int] = {}
    for download in downloads:
        layers |= download.layers
    return sum(layers.values())
