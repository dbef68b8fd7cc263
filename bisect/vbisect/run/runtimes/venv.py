"""The runtime that installs wheels into virtual environments and runs servers as processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

from vbisect.builds import Environment, EnvironmentRequest, Prefetcher, held_environment
from vbisect.builds.environment import finished_environment, in_use
from vbisect.launch import LaunchSpec, Server, launch_process
from vbisect.launch.inherited import own_names
from vbisect.launch.process import run_python
from vbisect.paths import with_tilde
from vbisect.processes import end_orphans
from vbisect.reasons import SkipReason, Untestable
from vbisect.releases import Device, Release, catalogue
from vbisect.releases.pythons import pythons_of
from vbisect.run.capacity import Capacity, host_capacity
from vbisect.run.host import host_facts
from vbisect.run.records import Build
from vbisect.run.runtimes.interface import Fetched, Poll, from_environment
from vbisect.run.settings import RunSettings


class VenvRuntime:
    """Environments below the user's cache directory, made while other servers boot."""

    lookahead = 1

    def __init__(self, settings: RunSettings, run_dir: Path) -> None:
        self._settings = settings
        self._run_dir = run_dir
        # on a GPU the next server needs the memory of the last one
        self.stops_beside = settings.device is Device.CPU
        self._prefetcher = Prefetcher(self._install)
        self._held = ExitStack()
        self._expected: list[Release] = []

    def expect(self, releases: Sequence[Release], keep: Sequence[Release], *, of_use: int) -> None:
        """Environments are not counted against a disk budget, so all are kept."""
        self._expected = list(releases)

    def fetch(self, release: Release, given_up: threading.Event) -> Fetched:
        request = self._request(release)
        if request is None:
            raise Untestable(
                SkipReason.NOT_PUBLISHED,
                f"no {self._settings.device.distribution} wheel of {release.version} in the "
                "package index",
            )
        environment = self._prefetcher.get(request, given_up)
        # only now: two installations at once would both be slower
        requests = (self._request(expected) for expected in self._expected)
        self._prefetcher.expect([expected for expected in requests if expected is not None])
        return Fetched(
            build=Build(kind="venv", ref=with_tilde(environment.path), digest=environment.digest),
            evidence={
                "build": environment.model_dump(mode="json"),
                "host": host_facts(),
                "from_environment": from_environment(self._settings, own_names()),
            },
            launch=partial(_launch, environment),
            python=partial(_python, environment),
            notes=environment.notes,
            size_bytes=environment.size_bytes,
        )

    def arrived(self, releases: Sequence[Release]) -> dict[str, float]:
        return dict.fromkeys(installed(self._settings, releases), 1.0)

    def digest(self, release: Release) -> str | None:
        request = self._request(release)
        environment = finished_environment(request) if request else None
        return environment.digest if environment else None

    def recover(self) -> None:
        """Environments that are gone are made again; for that nobody may hold them."""
        self._prefetcher.forget()
        self._held.close()

    def capacity(self) -> Capacity:
        return host_capacity()

    def end_orphans(self) -> int:
        return len(end_orphans(self._run_dir))

    def close(self, needless: Sequence[Release]) -> None:
        self._prefetcher.close()
        self._held.close()

    def _install(self, request: EnvironmentRequest, over: threading.Event) -> Environment:
        """Held from now on, for the run will launch servers from it."""
        with ExitStack() as held:
            environment = held.enter_context(held_environment(request, cancel=over))
            self._held.push(held.pop_all())
            return environment

    def _request(self, release: Release) -> EnvironmentRequest | None:
        return _request(self._settings, release)


def installed(settings: RunSettings, releases: Sequence[Release]) -> frozenset[str]:
    """The versions of ``releases`` whose environments are there."""
    requests = {release.version: _request(settings, release) for release in releases}
    return frozenset(
        version
        for version, request in requests.items()
        if request and finished_environment(request)
    )


def _request(settings: RunSettings, release: Release) -> EnvironmentRequest | None:
    wheel = release.wheels.get(settings.device)
    if wheel is None:
        return None
    entry = catalogue().get(release.version)
    return EnvironmentRequest(
        device=settings.device,
        wheel=wheel,
        requires_python=pythons_of(entry.version, entry.requires_python) if entry else None,
        released=datetime.fromisoformat(entry.uploaded) if entry else None,
        latest_deps=settings.latest_deps,
    )


@contextmanager
def _launch(
    environment: Environment, spec: LaunchSpec, given_up: threading.Event
) -> Iterator[Server]:
    """Nobody may remove the environment while its server runs."""
    with (
        in_use(environment),
        launch_process(spec, environment.vllm, environment.wheel.version, given_up) as server,
    ):
        yield server


@contextmanager
def _python(environment: Environment, spec: LaunchSpec, words: Sequence[str]) -> Iterator[Poll]:
    with in_use(environment), run_python(spec, environment.vllm, words) as poll:
        yield poll
