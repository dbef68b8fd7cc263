"""What an image is to be built of, what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from vbisect.builds.image_template import (
    TemplateVariables,
    default_base_image,
    default_system_packages,
    entrypoint,
)
from vbisect.releases import Device, Wheel


class ImageBuildRequest(BaseModel):
    """What is to be installed, on what.

    ``commit`` is given for the wheel of a commit, which ``wheel.index`` has. A ``base_image`` is
    taken to have all that ``system_packages`` would add, unless these are given too; ``None``
    stands for vbisect's own choice of either. ``released`` is when the release itself came out.
    ``latest_deps`` takes today's dependencies instead of those of that day.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    device: Device
    wheel: Wheel
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    base_image: Annotated[str, Field(pattern=r"^\S+$")] | None = None
    system_packages: tuple[str, ...] | None = None
    released: datetime | None = None
    latest_deps: bool = False

    @property
    def template(self) -> str:
        """The name of the Dockerfile template for it."""
        return "commit-wheel" if self.commit else f"{self.device}-wheel"

    @property
    def base(self) -> str:
        """The image that it is built on."""
        return self.base_image or default_base_image(self.version, self.device)

    def variables(
        self, *, torchvision_shim: bool = False, labels: Mapping[str, str] | None = None
    ) -> TemplateVariables:
        """What its template is rendered with; the arguments are known only after a while."""
        system_packages = self.system_packages
        if system_packages is None:
            system_packages = () if self.base_image else default_system_packages(self.device)
        return TemplateVariables(
            version=self.version,
            device=self.device,
            wheel_version=self.wheel.version,
            commit=self.commit,
            base_image=self.base,
            system_packages=system_packages,
            entrypoint=entrypoint(self.version),
            torchvision_shim=torchvision_shim,
            labels=dict(labels or {}),
        )

    def tag(self, inputs: str) -> str:
        """The image's name, where ``inputs`` is the digest (hex) of all that goes into it."""
        repository = "vllm-openai-cpu" if self.device is Device.CPU else "vllm-openai"
        version = re.sub(r"[^\w.-]", "-", self.version)  # no plus sign is allowed in a tag
        return f"vbisect/{repository}:v{version}-{inputs[:12]}"


class BuiltImage(BaseModel):
    """A finished image. ``id`` is ``sha256:…``, ``seconds`` what it took, ``packages`` all that is
    installed in it, as ``name==version``. ``reused`` when it had been built before."""

    model_config = ConfigDict(frozen=True)

    id: str
    tag: str
    reused: bool
    seconds: float
    packages: tuple[str, ...]
    notes: tuple[str, ...] = ()
