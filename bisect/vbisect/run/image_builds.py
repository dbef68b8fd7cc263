"""Images of releases that no registry has, built from their wheels."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

from vbisect.builds.image_build import BuiltImage, ImageBuildRequest, build_image
from vbisect.engine import Engine
from vbisect.reasons import SkipReason, Untestable
from vbisect.releases import Device, IndexUnavailable, Release, Wheel, catalogue
from vbisect.releases.nightly_wheel import wheel_of_commit
from vbisect.run.settings import RunSettings


class ImageBuilds:
    """Builds for the candidates of one run; the engine's words go into their trials' folders."""

    def __init__(self, engine: Engine, settings: RunSettings, run_dir: Path) -> None:
        self._engine = engine
        self._settings = settings
        self._run_dir = run_dir
        self._releases = {release.version: release for release in settings.candidates}

    def build(self, version: str, given_up: threading.Event) -> BuiltImage:
        """The image of a candidate, built now unless that has been done.

        Raises ``Untestable`` when it cannot be built, ``HostError`` when none can.
        """
        docker, release = self._settings.docker, self._releases[version]
        assert docker is not None
        entry = catalogue().get(version)
        request = ImageBuildRequest(
            version=version,
            device=self._settings.device,
            wheel=self._wheel(release),
            commit=release.commit,
            base_image=docker.base_image,
            released=datetime.fromisoformat(entry.uploaded) if entry else None,
            latest_deps=self._settings.latest_deps,
        )
        directory = self._run_dir / "trials" / version
        directory.mkdir(parents=True, exist_ok=True)
        return build_image(self._engine.client, request, directory / "build.log", cancel=given_up)

    def _wheel(self, release: Release) -> Wheel:
        device = self._settings.device
        if release.commit is not None:
            return _wheel_of_commit(release.commit, device)
        wheel = release.wheels.get(device)
        if wheel is None:
            raise Untestable(
                SkipReason.NOT_PUBLISHED,
                f"neither an image nor a {device.distribution} wheel of {release.version}",
            )
        return wheel


def _wheel_of_commit(commit: str, device: Device) -> Wheel:
    """The wheel vLLM keeps of every commit (docs.vllm.ai, installation)."""
    try:
        return wheel_of_commit(commit, device)
    except IndexUnavailable as error:
        raise Untestable(
            SkipReason.NOT_PUBLISHED, f"neither an image nor a wheel of {commit}: {error}"
        ) from None
