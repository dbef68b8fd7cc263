"""What a run in containers is told: which engine, which images, and what containers may use."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vbisect.amounts import Timeout
from vbisect.engine.product import Product
from vbisect.errors import UsageError
from vbisect.launch.arguments import Limited
from vbisect.releases import Device, Release

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE)
_SMALLEST_MEMORY = 6 * 2**20
"""The least memory an engine gives a container (docs.docker.com, resource constraints)."""
_CDI_NAME = re.compile(r"[a-z][\w.-]*/[a-z][\w-]*=[a-z0-9][\w.:-]*", re.IGNORECASE | re.ASCII)
"""Vendor, class and name of a device (https://github.com/cncf-tags/container-device-interface)."""

BuildMode = Literal["never", "auto", "always"]
BUILD_MODES = get_args(BuildMode)


def _limited(value: object) -> object:
    """The one variant for all versions that older runs have recorded."""
    return (Limited(text=value),) if isinstance(value, str) else value


class DockerSettings(BaseModel):
    """The settings of ``--runtime docker``; sizes in bytes, ``None`` for the default.

    Of ``image_variant`` the first one for a version counts; ``images`` names the image of single
    versions. ``product`` is whose engine it is. ``build`` is ``never``, ``auto`` (where the
    registry has no image of a release) or ``always``.
    """

    model_config = ConfigDict(frozen=True)

    host: str | None = None
    product: Product = Product.DOCKER
    image_repo: str
    image_variant: Annotated[tuple[Limited, ...], BeforeValidator(_limited)] = ()
    images: dict[str, str] = {}
    gpus: str
    memory: int | None = Field(None, ge=_SMALLEST_MEMORY, lt=2**63)
    build: BuildMode = "never"
    base_image: str | None = None
    disk_budget: int | None = Field(None, ge=0, lt=2**63)
    pull_timeout: Timeout = 300

    @model_validator(mode="after")
    def _names_are_names(self) -> Self:
        """Raises ``UsageError`` for what names no image, no GPU or no version."""
        from vbisect.registry.reference import ImageReference

        repository = ImageReference.parse(self.image_repo)
        for variant in self.image_variant:
            Limited.parse("--image-variant", str(variant))
            repository.with_tag(f"{variant.text}-nightly-{'0' * 40}")
        for version, image in self.images.items():
            parse_image(f"{version}={image}")
        if self.base_image:
            ImageReference.parse(self.base_image)
        parse_gpus(self.gpus)
        return self

    def variant_of(self, version: str) -> str | None:
        """The variant of the images that is taken for ``version``."""
        fitting = (limited.text for limited in self.image_variant if limited.applies_to(version))
        return next(fitting, None)

    def repository_named(self, version: str, device: Device) -> str | None:
        """The repository that the user named for ``version``, ``None`` for the official one."""
        from vbisect.registry.reference import ImageReference

        named = ImageReference.parse(self.images.get(version) or self.image_repo).name
        return None if named == default_image_repo(device) else named

    def takes_built(self, version: str, device: Device) -> bool:
        """Whether an image that vbisect built before may stand in for one that is not there."""
        return self.build != "never" or self.repository_named(version, device) is None

    @property
    def gpus_by_cdi(self) -> bool:
        """Whether the GPUs were asked for by names of CDI."""
        return "=" in self.gpus

    def image_of(self, release: Release) -> str:
        """The image of ``release``: its own where it is pinned to one, else by its moving tag."""
        variant = self.variant_of(release.version)
        suffix = f"-{variant}" if variant else ""
        tagged = f"{self.image_repo}:v{release.version}{suffix}"
        return release.image or self.images.get(release.version) or tagged


def default_image_repo(device: Device) -> str:
    """Where the official images are (docs.vllm.ai, "Using Docker")."""
    return "vllm/vllm-openai-cpu" if device is Device.CPU else "vllm/vllm-openai"


def parse_size(option: str, value: str) -> int:
    """Bytes of ``200GB``, ``1.5TiB`` or a plain number; raises ``UsageError`` naming ``option``."""
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise UsageError(f"{option} {value}: write a size like 200GB or 1.5TiB.")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def parse_memory(value: str) -> int:
    """Bytes of ``--memory``; raises ``UsageError`` for less than an engine accepts."""
    size = parse_size("--memory", value)
    if size < _SMALLEST_MEMORY:
        raise UsageError(f"--memory {value}: a container needs at least 6 MB.")
    return size


def parse_gpus(value: str) -> str:
    """``all``, ``none``, device ids or names of CDI with commas between; raises ``UsageError``."""
    words = value.replace(" ", "")
    names = words.split(",")
    if words in ("all", "none") or all(re.fullmatch(r"[\w-]+", name) for name in names):
        return words
    if all(_CDI_NAME.fullmatch(name) for name in names):
        return words
    raise UsageError(
        f"--gpus {value}: write all, none, ids like 0,1, or names like nvidia.com/gpu=0."
    )


def parse_image(value: str) -> tuple[str, str]:
    """Version and image of ``--image VERSION=REFERENCE``; raises ``UsageError``."""
    from vbisect.registry.reference import ImageReference
    from vbisect.releases.candidates import parse_version

    version, _, reference = value.partition("=")
    return str(parse_version(version)), str(ImageReference.parse(reference))
