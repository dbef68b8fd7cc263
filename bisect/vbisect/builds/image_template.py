"""The Dockerfile of a release, rendered from the templates in ``images/``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from packaging.version import Version
from pydantic import BaseModel, ConfigDict

from vbisect.errors import HostError
from vbisect.releases import Device, catalogue

LAYER_LABEL = "vbisect.layer"
"""Carried by every layer made from these templates."""

_SERVE_SINCE = Version("0.11.1")
"""The first whose official image starts ``vllm serve`` (vLLM's docker/Dockerfile)."""

_SYSTEM_PACKAGES = {
    # the compiler is for kernels that are made when a server starts, headers included
    Device.CUDA: ("ca-certificates", "g++", "python3", "python3-dev"),
    Device.CPU: ("ca-certificates", "g++", "libnuma1", "python3", "python3-dev"),
}
_CPU_BASE = "ubuntu:24.04"  # glibc 2.39: the CPU wheels of 0.11 need 2.38
_CUDA_BASES = {
    # those of CUDA 12.1 and 12.4 come with Python 3.10, which suits the releases that want them
    "12.1": "nvidia/cuda:12.1.1-base-ubuntu22.04",
    "12.4": "nvidia/cuda:12.4.1-base-ubuntu22.04",
    "12.8": "nvidia/cuda:12.8.1-base-ubuntu24.04",
    "12.9": "nvidia/cuda:12.9.1-base-ubuntu24.04",
    "13.0": "nvidia/cuda:13.0.2-base-ubuntu24.04",
}


class TemplateVariables(BaseModel):
    """Everything a template can refer to; one that is unknown to it is an error.

    ``wheel_version`` is the version of the wheel, ``torchvision_shim`` whether PyPI's torchvision
    comes with a CPU torch.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    device: Device
    wheel_version: str
    commit: str | None
    base_image: str
    system_packages: tuple[str, ...]
    entrypoint: tuple[str, ...]
    torchvision_shim: bool
    labels: dict[str, str]


def default_base_image(version: str, device: Device) -> str:
    """The public image to build on: Ubuntu's for a CPU, NVIDIA's with the release's CUDA else."""
    if device is Device.CPU:
        return _CPU_BASE
    known = [entry for entry in catalogue().values() if Version(entry.version) <= Version(version)]
    return _CUDA_BASES[known[-1].cuda if known else next(iter(_CUDA_BASES))]


def default_system_packages(device: Device) -> tuple[str, ...]:
    """The Debian packages that a server on ``device`` needs beside its wheels."""
    return _SYSTEM_PACKAGES[device]


def entrypoint(version: str) -> tuple[str, ...]:
    """What the official image of ``version`` starts."""
    if Version(version) < _SERVE_SINCE:
        return ("python3", "-m", "vllm.entrypoints.openai.api_server")
    return ("vllm", "serve")


def render(template: str, variables: TemplateVariables) -> str:
    """The Dockerfile from ``images/<template>.Dockerfile.j2``."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # a Dockerfile is no HTML: nothing is to be escaped
        loader=FileSystemLoader(_folder()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _quoted
    found = environment.get_template(f"{template}.Dockerfile.j2")
    return found.render(variables.model_dump(mode="json")).strip() + "\n"


def _quoted(value: str) -> str:
    """``value`` as a word of a Dockerfile's instruction, where a dollar would name a variable."""
    escaped = re.sub(r'(["\\$])', r"\\\1", value)
    return f'"{escaped}"'


def inside_files() -> dict[str, bytes]:
    """What goes into the image beside packages: path in the build context → content."""
    inside = _folder() / "inside"
    shim = files("vbisect.builds.shim")
    found = {
        "foundation/system-packages.sh": (inside / "system-packages.sh").read_bytes(),
        "install.py": (inside / "install.py").read_bytes(),
        "finish/finish.py": (inside / "finish.py").read_bytes(),
    }
    for name in ("__init__.py", "torchvision_operators.py"):
        found[f"finish/shim/{name}"] = shim.joinpath(name).read_bytes()
    return found


def template_digest(template: str) -> str:
    """A SHA-256 (hex) that changes whenever an image made from ``template`` could."""
    folder = _folder()
    parts: Mapping[str, bytes] = {
        "layers": (folder / "layers.j2").read_bytes(),
        "template": (folder / f"{template}.Dockerfile.j2").read_bytes(),
        **inside_files(),
    }
    digest = hashlib.sha256()
    for name, content in sorted(parts.items()):
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _folder() -> Path:
    """``images/``: inside the installed package, or at the root of the repository."""
    package = Path(str(files("vbisect")))
    for folder in (package / "images", package.parents[1] / "images"):
        if (folder / "layers.j2").is_file():
            return folder
    raise HostError(f"The image templates of vbisect are missing from {package}; install it again.")
