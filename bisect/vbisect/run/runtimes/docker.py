"""The runtime that pulls images into a Docker engine and runs servers in containers.

An engine that stops answering is waited for: ``VBISECT_ENGINE_WAIT`` seconds, 120 without it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from vbisect.builds.disk import DiskBudget, taken
from vbisect.builds.image_store import ImageStore, LocalImage
from vbisect.builds.pull_job import ImageRequest
from vbisect.builds.pulls import Pulls
from vbisect.engine import GpuAccess, connect
from vbisect.engine.gpus import NO_GPUS_FROM_PODMAN
from vbisect.engine.images import plain_http_registries, platform_of
from vbisect.engine.leftovers import owner_labels, remove_leftovers
from vbisect.engine.product import Product
from vbisect.errors import EngineLost, HostError, UsageError
from vbisect.launch import LaunchSpec, Server
from vbisect.launch.container import launch_container, run_python_in_container
from vbisect.launch.container_settings import ContainerImage, ContainerOptions, token_variables
from vbisect.launch.inherited import (
    mounts_for_containers,
    takes_from_modelscope,
    variables_for_containers,
)
from vbisect.processes import end_orphans
from vbisect.reasons import SkipReason, Untestable
from vbisect.registry import ImageMissing, ImageReference, Registry, RemoteImage, known_image
from vbisect.releases import Device, Release
from vbisect.run.capacity import Capacity, engine_capacity
from vbisect.run.fit import host_of, image_refusal, tells_by_itself
from vbisect.run.host import host_facts
from vbisect.run.image_builds import ImageBuilds
from vbisect.run.records import Build
from vbisect.run.runtimes.interface import Fetched, Poll, Say, from_environment
from vbisect.run.settings import RunSettings

_SHARED_MEMORY = 16 * 2**30
"""A limit, not a reservation: tensor-parallel workers talk through shared memory."""

_ENGINE_WAIT = "VBISECT_ENGINE_WAIT"
_COMES_BACK_SECONDS = 120.0
_STEADY_SECONDS = 3.0
"""How long an engine has to answer before it counts as back: one that ends answers for a while."""

_KEPT_FREE = 0.1

_LARGE = {Device.CUDA: 15 * 10**9, Device.CPU: 25 * 10**8}
"""Compressed bytes of a large image before any was seen: vLLM's for CUDA have 9 to 12 GB."""


class DockerRuntime:
    """One engine and its images, for one run."""

    lookahead = 2

    def __init__(self, settings: RunSettings, run_dir: Path, say: Say) -> None:
        assert settings.docker is not None
        self._settings = settings
        self._docker = settings.docker
        self._run_dir = run_dir
        self._say = say
        self.stops_beside = settings.device is Device.CPU
        self._host = host_of(settings)
        self._lost: dict[str, HostError] = {}
        self._there: dict[str, bool] = {}
        self._stack = ExitStack()
        self._patience = _engine_wait()
        self._orphans = len(end_orphans(run_dir))  # before this run has processes of its own
        with self._stack:
            self.engine = self._stack.enter_context(connect(self._docker.host, owner=run_dir))
            self._check_gpus()
            plain = plain_http_registries(self.engine)
            self._registry = self._stack.enter_context(
                Registry(
                    plain_http=plain,
                    on_wait=lambda text, seconds: say(f"{text} in {seconds:.0f} s"),
                )
            )
            self._own = variables_for_containers(
                remote=self.engine.remote, proxies=not self.engine.own_proxies
            )
            self._store = ImageStore(self.engine)
            self._platform = platform_of(self.engine)
            self._builds = ImageBuilds(self.engine, settings, run_dir)
            self._pulls = self._stack.enter_context(self._open_pulls())
            self._stack = self._stack.pop_all()

    def expect(self, releases: Sequence[Release], keep: Sequence[Release], *, of_use: int) -> None:
        self._pulls.expect(
            [self._request(release) for release in releases],
            [self._request(release) for release in keep],
            of_use,
        )

    def fetch(self, release: Release, given_up: threading.Event) -> Fetched:
        image = self._pulls.get(self._request(release), given_up)
        notes = []
        if "vbisect.built" in image.labels:
            notes.append(f"Built by vbisect: {image.reference}.")
        if image.unchecked:
            notes.append("The registry could not be asked whether its tag still means this image.")
        evidence = {
            "image": image.model_dump(mode="json", exclude={"labels"}),
            "engine": self.engine.facts(),
            **({} if self.engine.remote else {"host": host_facts()}),
            "from_environment": from_environment(self._settings, self._own),
        }
        return Fetched(
            build=Build(kind="image", ref=image.reference, digest=image.digest),
            evidence=evidence,
            launch=partial(self._launch, release, image),
            python=partial(self._python, image),
            notes=tuple(notes),
            size_bytes=image.size or None,
        )

    def arrived(self, releases: Sequence[Release]) -> dict[str, float]:
        """By the names that images had when they were pulled: a tag may have moved since."""
        requests = {release.version: self._request(release) for release in releases}
        try:
            names = self._store.names()
        except EngineLost:  # whoever needs the engine next says so
            return {}
        there = {v: 1.0 for v, request in requests.items() if request.reference in names}
        coming = self._pulls.arrived()
        return there | {v: coming[r] for v, r in requests.items() if r in coming and v not in there}

    def digest(self, release: Release) -> str | None:
        if self._docker.build == "always":
            return None
        reference = ImageReference.parse(self._request(release).reference)
        try:
            found = reference.digest or self._registry.digest(reference)
            if found is not None:
                return found
            built = self._built_before(release.version)
        except HostError:  # whoever needs the image next says so
            return None
        return built.digest if built else None

    def recover(self) -> None:
        """Wait for the engine; what it left of the lost trial is removed."""
        began = since = time.monotonic()
        while time.monotonic() - since < _STEADY_SECONDS:
            trouble = self._trouble()
            if trouble is not None:
                since = time.monotonic()
            if since - began > self._patience:
                raise HostError(
                    f"{self.engine.title} did not come back within "
                    f"{self._patience:.0f} s: start it, then resume the run. ({trouble})"
                )
            time.sleep(0.5)
        self._say("the engine is back")

    def capacity(self) -> Capacity:
        return engine_capacity(self.engine)

    def end_orphans(self) -> int:
        return self._orphans + remove_leftovers(self.engine, self._run_dir)

    def close(self, needless: Sequence[Release]) -> None:
        with self._stack:
            self._pulls.close()
            try:
                remove_leftovers(self.engine, self._run_dir)
                requests = {self._request(release) for release in needless}
                for request, name in self._pulls.pulled().items():
                    if request in requests:
                        self._store.remove(name)
            except HostError as lost:
                self._say(f"{lost} The next run removes what this one may have left there.")

    def _trouble(self) -> HostError | None:
        """Why the engine is not yet of use again."""
        try:
            if not self.engine.answers():
                self.engine.reconnect()
            remove_leftovers(self.engine, self._run_dir)
            self._pulls.forget_missing()
        except HostError as trouble:
            return trouble
        return None

    @contextmanager
    def _open_pulls(self) -> Iterator[Pulls]:
        pulls = Pulls(
            self.engine,
            self._store,
            self._resolve,
            self._describe,
            DiskBudget(self._budget(), _LARGE[self._settings.device]),
            stall_seconds=self._docker.pull_timeout,
            wait_turn=lambda name: self._registry.digest(ImageReference.parse(name)),
            say=self._say,
        )
        try:
            yield pulls
        finally:
            pulls.close()

    def _budget(self) -> int | None:
        """The budget asked for, else what keeps a tenth of the disk free."""
        if self._docker.disk_budget is not None:
            return self._docker.disk_budget
        disk = self.engine.disk()
        if disk is None:
            self._say("the engine's disk cannot be looked at: pass --disk-budget to limit images")
            return None
        return max(0, taken(self._store.own()) + disk.free - int(disk.total * _KEPT_FREE))

    def _check_gpus(self) -> None:
        """Raises ``HostError`` where Podman would start servers without the GPUs asked for.

        Those that are named in the way of CDI it looks up itself.
        """
        if self._docker.gpus == "none" or self._docker.gpus_by_cdi:
            return
        if self.engine.product is Product.PODMAN and self.engine.gpu_access is None:
            raise HostError(NO_GPUS_FROM_PODMAN)

    def _request(self, release: Release) -> ImageRequest:
        return ImageRequest(version=release.version, reference=self._docker.image_of(release))

    def _resolve(
        self, request: ImageRequest, given_up: threading.Event
    ) -> LocalImage | RemoteImage | str:
        """The image by what its tag points at now; built where that was asked for."""
        if self._docker.build == "always":
            return self._built(request, given_up)
        reference = ImageReference.parse(request.reference)
        if lost := self._lost.get(reference.registry):  # each try takes its time
            local = self._without_registry(request, lost)
            if local is not None:
                return local
        try:
            digest = reference.digest or self._registry.digest(reference)
        except HostError as error:
            local = self._without_registry(request, error)
            if local is None:
                raise
            self._lost[reference.registry] = error
            return local
        if digest is None:
            return self._not_published(request, given_up)
        pinned = reference.with_digest(digest)
        local = self._store.find(str(pinned))
        if local is not None:
            return local.model_copy(update={"reference": request.reference})
        if tells_by_itself(self._settings, self._host, request.version, request.reference):
            return self._describe(request, str(pinned))
        return str(pinned)

    def _describe(self, request: ImageRequest, name: str) -> RemoteImage:
        """What an image is made of, by its name; each answer may count as a pull, like its own."""
        try:
            remote = known_image(self._registry, ImageReference.parse(name), self._platform)
        except ImageMissing as missing:
            raise Untestable(SkipReason.NOT_PUBLISHED, str(missing)) from None
        refused = image_refusal(self._settings, self._host, request.version, remote)
        if refused is not None:
            raise refused
        return remote

    def _without_registry(self, request: ImageRequest, lost: HostError) -> LocalImage | None:
        """What the engine has of it, when the registry does not say what the tag points at."""
        local = (
            self._store.find(request.reference)
            or self._store.pulled_as(request.reference)
            or self._built_before(request.version)
        )
        if local is None:
            return None
        self._say(f"{request.reference}: the local image is used, for the registry said: {lost}")
        return local.model_copy(update={"unchecked": True})

    def _not_published(self, request: ImageRequest, given_up: threading.Event) -> LocalImage:
        if self._docker.build == "auto":
            return self._built(request, given_up)
        built = self._built_before(request.version)
        if built is not None:
            return built
        if not self._is_there(ImageReference.parse(request.reference)):
            raise HostError(
                f"The repository of {request.reference} is not there any more: see --image-repo "
                "and --image."
            )
        raise Untestable(
            SkipReason.NOT_PUBLISHED, f"the registry has no {request.reference} (see --build auto)"
        )

    def _is_there(self, repository: ImageReference) -> bool:
        """Asked once for each: most releases that are missing are missing from one."""
        if repository.name not in self._there:
            self._there[repository.name] = self._registry.has(repository)
        return self._there[repository.name]

    def _built_before(self, version: str) -> LocalImage | None:
        device = self._settings.device
        takes = self._docker.takes_built(version, device)
        return self._store.built(version, device) if takes else None

    def _built(self, request: ImageRequest, given_up: threading.Event) -> LocalImage:
        self._pulls.wait_for_turn(request, given_up)
        self._say(f"{request.version}: building the image")
        built = self._builds.build(request.version, given_up)
        image = self._store.find(built.tag)
        if image is None:
            raise Untestable(SkipReason.BUILD_FAILED, f"{built.tag} was built and is not there")
        return image

    @contextmanager
    def _launch(
        self, release: Release, image: LocalImage, spec: LaunchSpec, given_up: threading.Event
    ) -> Iterator[Server]:
        container = ContainerImage(image.id, image.entrypoint)
        options = self._options(image)
        known = release.image is None or release.commit is not None
        with launch_container(
            spec, self.engine, container, options, given_up, version_known=known
        ) as server:
            yield server

    @contextmanager
    def _python(self, image: LocalImage, spec: LaunchSpec, words: Sequence[str]) -> Iterator[Poll]:
        container = ContainerImage(image.id, image.entrypoint)
        options = self._options(image)
        with run_python_in_container(spec, self.engine, container, options, words) as poll:
            yield poll

    def _options(self, image: LocalImage) -> ContainerOptions:
        gpus = self._docker.gpus
        by_cdi = gpus != "none" and self.engine.gpu_access is GpuAccess.CDI
        return ContainerOptions(
            gpus=gpus,
            cdi=self._docker.gpus_by_cdi or by_cdi,
            memory=self._docker.memory,
            shared_memory=_SHARED_MEMORY,
            mounts=self._mounts(image),
            secrets={**token_variables(), **self._own},
            labels=owner_labels(self._run_dir),
        )

    def _mounts(self, image: LocalImage) -> dict[str, str]:
        """The user's folders of models, and a volume for what this image compiles."""
        compiled = f"vbisect-vllm-{image.id.removeprefix('sha256:')[:12]}"
        folders = mounts_for_containers(
            self.engine.home(),
            remote=self.engine.remote,
            modelscope=takes_from_modelscope(self._settings.variables),
        )
        return {compiled: "/root/.cache/vllm", **folders}


def _engine_wait() -> float:
    """Seconds that a lost engine is waited for."""
    asked = os.environ.get(_ENGINE_WAIT)
    try:
        return float(asked) if asked else _COMES_BACK_SECONDS
    except ValueError:
        raise UsageError(f"{_ENGINE_WAIT}={asked}: it is no number of seconds.") from None
