"""Whether the repositories that a run takes its images from are there, before it begins."""

from __future__ import annotations

from vbisect.engine import connect
from vbisect.engine.images import plain_http_registries
from vbisect.errors import UsageError
from vbisect.registry import ImageReference, Registry
from vbisect.registry.retry import Patience
from vbisect.run.settings import RunSettings

_PATIENCE = Patience(connect=5, read=10, attempts=1)
"""A registry that does not answer at once is not waited for: a run waits for it where it must."""


def check_repositories(settings: RunSettings) -> None:
    """Raise ``UsageError`` for one that its registry does not have.

    Not where images are built instead; the official one is known to be there.
    """
    docker = settings.docker
    if docker is None or docker.build != "never":
        return
    tested = [r for r in settings.candidates if r.version not in settings.excluded]
    named = {
        docker.repository_named(release.version, settings.device)
        for release in tested
        if release.image is None
    }
    repositories = [ImageReference.parse(name) for name in named if name is not None]
    if not repositories:
        return
    with (
        connect(docker.host) as engine,
        Registry(plain_http=plain_http_registries(engine), patience=_PATIENCE) as registry,
    ):
        missing = [repository for repository in repositories if not registry.has(repository)]
    if missing:
        raise UsageError(
            f"{missing[0].registry} has no repository {missing[0].repository}; see --image-repo "
            "and --image."
        )
