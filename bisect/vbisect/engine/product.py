"""Whose engine it is that speaks Docker's API: Docker's own, or Podman."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from vbisect.text import one_line

_PODMAN = "Podman Engine"
"""How Podman names itself among the components of its ``/version`` (seen with 4.3)."""


class Product(StrEnum):
    """What an engine is called."""

    DOCKER = "Docker"
    PODMAN = "Podman"


def product_of(version: Mapping[str, Any]) -> Product:
    """What the engine is that says ``version`` of itself."""
    components = version.get("Components") or ()
    podman = any(component.get("Name") == _PODMAN for component in components)
    return Product.PODMAN if podman else Product.DOCKER


def title(product: Product, where: str) -> str:
    """An engine and its address, as a sentence begins."""
    return f"Podman at {where}" if product is Product.PODMAN else f"The Docker engine at {where}"


def identity_of(product: Product, where: str, info: Mapping[str, Any]) -> str:
    """A name for an engine that is the same whenever it is asked, and no other's.

    Docker has an ID that it keeps. That in Podman's ``/info`` is another at every call: it is known
    by its address, its host and the place of its images.
    """
    if product is Product.DOCKER:
        return str(info.get("ID") or where)
    return one_line(f"{where} {info.get('Name')} {info.get('DockerRootDir')}")
