"""What of a run its host cannot run, told before anything is fetched, and what it runs instead."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from vbisect.builds.uv import run_uv
from vbisect.engine import connect
from vbisect.engine.address import engine_address
from vbisect.engine.images import plain_http_registries, platform_of
from vbisect.errors import HostError
from vbisect.launch import Limited, effective_environment
from vbisect.reasons import SkipReason, Untestable
from vbisect.registry import ImageMissing, ImageReference, Registry, RemoteImage, known_image
from vbisect.registry.reference import DOCKER_HUB
from vbisect.registry.retry import Patience
from vbisect.releases import Device, Release
from vbisect.releases.fitness import (
    VARIANT,
    VARIANT_CUDA,
    VARIANT_SINCE,
    Host,
    Needs,
    Part,
    image_needs,
    official_needs,
    refusal,
    stretch,
    wheel_needs,
)
from vbisect.run.docker_settings import DockerSettings, default_image_repo
from vbisect.run.gpus import list_gpus
from vbisect.run.host import gpu_host, missing_parts
from vbisect.run.settings import RunSettings, Unfit
from vbisect.text import one_line

_AT_ONCE = 8

_PATIENCE = Patience(connect=5, read=10, attempts=1)
"""A registry that does not answer at once is not waited for: a run waits for it where it must."""

_Ask = Callable[[str], RemoteImage | None]
"""Asks a registry for an image by its reference; ``None`` where it cannot be told."""


def fitted(settings: RunSettings) -> RunSettings:
    """``settings`` with what the host cannot run, and with images that it can run instead.

    Raises ``HostError`` where it can run fewer than two of the candidates. Nothing is left out of
    what is to be tried all the same, nor where the host is another machine.
    """
    if settings.try_all:
        return settings
    host = host_of(settings)
    if settings.docker is None:
        found = _unfit_wheels(settings, host)
    elif (host.driver is None and not host.cards) or settings.docker.build == "always":
        return settings
    else:
        settings, found = _with_images(settings, settings.docker, host)
    left = [v for v in settings.versions if v not in found and v not in settings.excluded]
    if found and len(left) < 2:
        why = "; ".join(dict.fromkeys(str(refused) for refused in found.values()))
        raise HostError(
            f"This host can run {f'only {left[0]}' if left else 'none'} of the candidates: "
            f"{one_line(why, 1000)}. --try-all tries them all the same."
        )
    unfit = (Unfit(version=v, reason=w.reason, detail=w.detail) for v, w in found.items())
    return settings.model_copy(update={"unfit": tuple(unfit)})


def host_of(settings: RunSettings) -> Host:
    """The host of a run as far as it decides what can run; another machine is not known."""
    if settings.docker is not None and engine_address(settings.docker.host).remote:
        return Host()
    if settings.device is Device.CPU:
        return Host(machine=platform.machine())
    return gpu_host(list_gpus())


def image_refusal(
    settings: RunSettings, host: Host, version: str, image: RemoteImage
) -> Untestable | None:
    """Why ``host`` cannot run an image, by the image's own configuration."""
    if settings.try_all or settings.device is Device.CPU:
        return None
    given = effective_environment(settings.variables, version)
    return refusal(image_needs(version, image.variables, given), host)


def tells_by_itself(settings: RunSettings, host: Host, version: str, image: str) -> bool:
    """Whether only an image's own configuration tells if ``host`` can run it."""
    if settings.try_all or settings.device is Device.CPU or not (host.driver or host.cards):
        return False
    return _official(settings, version, image) is None


def _unfit_wheels(settings: RunSettings, host: Host) -> dict[str, Untestable]:
    given = {v: effective_environment(settings.variables, v) for v in settings.versions}
    models = [settings.model_env, *([settings.control_env] if settings.control_model else [])]
    needs = [
        wheel_needs(v, settings.device, {**own, **given[v]})
        for own in models
        for v in settings.versions
    ]
    pythons = pythons_here(need.python for need in needs)
    lacks = missing_parts() if settings.device is Device.CPU else frozenset[Part]()
    host = replace(host, pythons=pythons, lacks=lacks)
    return {need.version: why for need in needs if (why := refusal(need, host))}


def pythons_here(wanted: Iterable[str | None]) -> tuple[str, ...] | None:
    """The Pythons that uv finds here; ``None`` where it may download others, or need not look."""
    own = platform.python_version()
    if all(own in SpecifierSet(python or "") for python in wanted):
        return None
    if os.environ.get("UV_PYTHON_DOWNLOADS") not in ("never", "manual"):
        return None
    words = ["python", "list", "--only-installed", "--output-format", "json"]
    listed = run_uv(words, directory=Path("/"))
    text = listed.output[max(0, listed.output.find("[{")) :]  # warnings come first
    try:
        found = json.JSONDecoder().raw_decode(text)[0]
        return tuple(dict.fromkeys([own, *(str(Version(p["version"])) for p in found)]))
    except (ValueError, TypeError, KeyError):
        return None


def _with_images(
    settings: RunSettings, docker: DockerSettings, host: Host
) -> tuple[RunSettings, dict[str, Untestable]]:
    """With images that the host runs instead of others, and why it does not run the rest."""
    found: dict[str, Untestable] = {}
    instead: dict[str, str] = {}
    with _asking(docker) as ask, ThreadPoolExecutor(_AT_ONCE) as pool:

        def judged(release: Release) -> tuple[Untestable | None, str | None]:
            image = docker.image_of(release)
            at_end = release in (settings.candidates[0], settings.candidates[-1])
            needs = _needs(settings, release, image, ask if at_end else _sparing(docker, ask))
            why = refusal(needs, host) if needs else None
            if why is None or why.reason is not SkipReason.DRIVER_TOO_OLD:
                return why, None
            other = _variant_of(docker, release, ask)
            needs = _needs(settings, release, other, ask) if other else None
            return why, other if needs and refusal(needs, host) is None else None

        for release, (why, other) in zip(
            settings.candidates, pool.map(judged, settings.candidates), strict=True
        ):
            if other is not None:
                instead[release.version] = other
            elif why is not None:
                found[release.version] = why
    return (_taking(settings, docker, instead, host) if instead else settings), found


def _needs(settings: RunSettings, release: Release, image: str, ask: _Ask) -> Needs | None:
    """What an image asks: by the catalogue where it is official, else by its configuration."""
    known = _official(settings, release.version, image)
    found = ask(image) if known is None else None
    given = effective_environment(settings.variables, release.version)
    return image_needs(release.version, found.variables, given) if found else known


def _official(settings: RunSettings, version: str, image: str) -> Needs | None:
    """What an official image asks by the catalogue, ``None`` for any other."""
    reference, usual = ImageReference.parse(image), f"v{version}"
    if reference.name != default_image_repo(Device.CUDA):
        return None
    if not (reference.tag or "").startswith(usual):
        return None
    variant = str(reference.tag).removeprefix(usual).removeprefix("-")
    return official_needs(version, variant, effective_environment(settings.variables, version))


def _variant_of(docker: DockerSettings, release: Release, ask: _Ask) -> str | None:
    """The image of a release that has an older CUDA, by its name; a nightly's is pinned."""
    if docker.variant_of(release.version) or release.version in docker.images:
        return None
    if release.image is None:
        newer = Version(release.version) >= VARIANT_SINCE
        return f"{docker.image_repo}:v{release.version}-{VARIANT}" if newer else None
    found = ask(f"{docker.image_repo}:{VARIANT}-nightly-{release.commit}")
    return f"{docker.image_repo}@{found.digest}" if found else None


def _taking(
    settings: RunSettings, docker: DockerSettings, instead: dict[str, str], host: Host
) -> RunSettings:
    """``settings`` with other images for some releases, and a word on it."""
    newer = Limited(text=VARIANT, specifier=f">={VARIANT_SINCE}")
    note = (
        f"Driver {host.driver} does not run the usual images of {stretch(list(instead))}: taking "
        f"their {VARIANT} variant, which has CUDA {VARIANT_CUDA} (--image-variant '{newer}')."
    )
    return settings.model_copy(
        update={
            "docker": docker.model_copy(update={"image_variant": (*docker.image_variant, newer)}),
            "candidates": tuple(
                r.model_copy(update={"image": instead[r.version]})
                if r.version in instead and r.image is not None  # pinned, as a nightly is
                else r
                for r in settings.candidates
            ),
            "notes": (*settings.notes, note),
        }
    )


@contextmanager
def _asking(docker: DockerSettings) -> Iterator[_Ask]:
    """Asks registries; what they do not say is told by the trial that needs it."""
    silent: set[str] = set()
    with (
        connect(docker.host) as engine,
        Registry(plain_http=plain_http_registries(engine), patience=_PATIENCE) as registry,
    ):
        wanted = platform_of(engine)

        def ask(image: str) -> RemoteImage | None:
            reference = ImageReference.parse(image)
            if reference.registry in silent:
                return None
            try:
                return known_image(registry, reference, wanted)
            except ImageMissing:
                return None
            except HostError:
                silent.add(reference.registry)
                return None

        yield ask


def _sparing(docker: DockerSettings, ask: _Ask) -> _Ask:
    """Leaves Docker Hub alone, which counts each answer as a pull, but for images named singly."""

    def sparing(image: str) -> RemoteImage | None:
        named = image in docker.images.values()
        hub = ImageReference.parse(image).registry == DOCKER_HUB
        return None if hub and not named else ask(image)

    return sparing
