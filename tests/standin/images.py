"""The stand-in images: vLLM's own releases, in a registry, with the server inside."""

from __future__ import annotations

import gzip
import hashlib
import io
import platform
import random
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from packaging.version import Version

from .base import base_layer
from .behaviour import Behaviour
from .family import behaviour_of, releases
from .registry import Layer, LocalRegistry
from .wheels import package_files

REPOSITORY = "vllm/vllm-openai"
CPU_REPOSITORY = "vllm/vllm-openai-cpu"
CPU_SINCE = Version("0.19.0")
SERVE_SINCE = Version("0.11.1")  # the first whose entry point is `vllm serve`
LABELS_SINCE = Version("0.21.0")
MODULE = ["python3", "-m", "vllm.entrypoints.openai.api_server"]
SERVE = ["vllm", "serve"]
REVISION = "org.opencontainers.image.revision"
NIGHTLY_VERSION = "0.33.1.dev12"
LIFE_SECONDS = 900.0  # longer than a wheel's server: pulls and faults of the engine lie between

PACKAGES = "usr/lib/python3/dist-packages"
COMMAND = "#!/usr/bin/python3\nfrom vllm.standin_server import main\n\nmain()\n"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class ImageFamily:
    """The images that were pushed, in one repository of a registry."""

    registry: LocalRegistry
    repository: str
    digests: dict[str, str] = field(default_factory=dict)
    """Per tag: the digest of its image."""

    def reference(self, tag: str, host: str | None = None) -> str:
        """What to pull; `host` is that of a proxy in front of the registry."""
        return f"{host or self.registry.host}/{self.repository}:{tag}"

    def push(
        self,
        version: str,
        behaviour: Behaviour,
        tags: Iterable[str] = (),
        *,
        revision: str | None = None,
        created: datetime = datetime(2026, 11, 20, tzinfo=UTC),
        padding_bytes: int = 0,
        beside: Sequence[Layer] = (),
        variables: Sequence[str] = (),
    ) -> str:
        """Push one image, under `v<version>` unless `tags` are given; its digest.

        `beside` are layers of what is installed in it beside vLLM, `variables` further ones of its
        configuration, `NAME=VALUE`.
        The server inside honours --host and ends itself after `LIFE_SECONDS` at the soonest.
        """
        seconds = max(behaviour.max_seconds, LIFE_SECONDS)
        inside = replace(behaviour, honours_host=True, max_seconds=seconds)
        number = Version(version)
        labels = {REVISION: revision or revision_of(version)} if number >= LABELS_SINCE else {}
        names = tuple(tags) or (f"v{version}",)
        digest = self.registry.push_image(
            self.repository,
            names,
            [base_layer(), *beside, _layer(version, inside, padding_bytes)],
            {
                "Entrypoint": SERVE if number >= SERVE_SINCE else MODULE,
                "Env": [f"PATH={PATH}", "VLLM_USAGE_SOURCE=production-docker-image", *variables],
                "WorkingDir": "/vllm-workspace",
                "Labels": labels,
            },
            created=created.isoformat().replace("+00:00", "Z"),
            architecture=ARCHITECTURES[platform.machine()],
        )
        self.digests.update(dict.fromkeys(names, digest))
        return digest

    def push_nightly(
        self, commit: str, behaviour: Behaviour | None = None, *, moving: bool = True
    ) -> str:
        """Push the development build of a commit (40 hex digits) as `nightly-<commit>`; its digest.

        `nightly` moves there too unless `moving` is false. The server reports
        `0.33.1.dev12+g<first 9 digits>`.
        """
        version = f"{NIGHTLY_VERSION}+g{commit[:9]}"
        tags = [f"nightly-{commit}", *(["nightly"] if moving else [])]
        return self.push(
            version, behaviour or behaviour_of("vllm", version, 0.0), tags, revision=commit
        )


def image_family(
    registry: LocalRegistry,
    repository: str | None = None,
    *,
    cpu: bool = False,
    versions: Collection[str] | None = None,
    boot_seconds: float = 0.2,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
    change: Callable[[str, Behaviour], Behaviour] | None = None,
    untestable: Collection[str] = (),
    padding_bytes: int = 0,
) -> ImageFamily:
    """Push an image `v<version>` of each release; `latest` names the newest.

    `versions` leaves the others out of the registry; `overrides` replaces fields of the behaviour
    by version ("0.28.0": {"reported_version": "0.27.1"}); `change` gets version and behaviour of
    each and returns the behaviour to use; servers of `untestable` versions end before they are
    ready; `padding_bytes` makes each image that much bigger, by bytes that do not compress and that
    no other image has. `cpu` is for the images of vLLM's CPU builds, which exist since 0.19.0.
    """
    overrides = overrides or {}
    known = {
        release.version: release.uploaded
        for release in releases()
        if release.distribution == "vllm" and (not cpu or Version(release.version) >= CPU_SINCE)
    }
    wanted = list(known) if versions is None else sorted(versions, key=Version)
    if unknown := {*wanted, *overrides, *untestable} - set(known):
        raise ValueError(f"releases that do not exist: {sorted(unknown)}")
    family = ImageFamily(registry, repository or (CPU_REPOSITORY if cpu else REPOSITORY))
    for version in wanted:
        behaviour = behaviour_of("vllm", version, boot_seconds)
        if version in untestable:
            behaviour = replace(behaviour, fault="exit_before_ready")
        behaviour = replace(behaviour, **overrides.get(version, {}))  # type: ignore[arg-type]
        if cpu and behaviour.reported_version is None:
            behaviour = replace(behaviour, reported_version=f"{version}+cpu")
        if change is not None:
            behaviour = change(version, behaviour)
        tags = [f"v{version}", *(["latest"] if version == wanted[-1] else [])]
        family.push(version, behaviour, tags, created=known[version], padding_bytes=padding_bytes)
    return family


def revision_of(version: str) -> str:
    """The commit that a stand-in release claims to be built from: 40 hex digits."""
    return hashlib.sha1(f"vllm {version}".encode(), usedforsecurity=False).hexdigest()


def _layer(version: str, behaviour: Behaviour, padding_bytes: int) -> Layer:
    files = {
        f"{PACKAGES}/{name}": text.encode()
        for name, text in package_files(version, behaviour).items()
    }
    files["usr/local/bin/vllm"] = COMMAND.encode()
    if padding_bytes:
        files["vllm-workspace/padding"] = random.Random(version).randbytes(padding_bytes)
    return _packed(files)


def installed_layer(wheels: Path) -> Layer:
    """A layer with what is in the wheels of a folder, where Python finds it."""
    files = {}
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            files |= {f"{PACKAGES}/{name}": archive.read(name) for name in archive.namelist()}
    return _packed(files)


def _packed(files: Mapping[str, bytes]) -> Layer:
    packed = io.BytesIO()
    # Stored, not compressed: the padding would cost much time and get no smaller.
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=0, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        # Docker makes directories that a layer does not mention unreadable for all but root.
        for folder in sorted(
            {str(p) for name in files for p in PurePosixPath(name).parents} - {"."}
        ):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return Layer(packed.getvalue())
