"""The ways to install a wheel, tried in order until one resolves."""

from __future__ import annotations

from dataclasses import dataclass

from vbisect.releases import Device


@dataclass(frozen=True)
class Recipe:
    """``excludes`` are distributions left out of the resolution, ``beside`` what is added to it.

    ``where`` says in plain words which indexes are asked. ``needs_torchvision_shim`` when a
    torchvision of another torch build may come with it.
    """

    name: str
    where: str
    arguments: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    needs_torchvision_shim: bool = False


_SETUPTOOLS = "setuptools ; python_version < '3.12'"
"""``python -m venv`` brings it up to Python 3.11, and vLLM counts on that: its releases up to 0.8.5
ask for it from 3.12 on only, and the Triton 3.1 and 3.2 of their torch import it without asking
(https://github.com/triton-lang/triton/blob/release/3.2.x/python/triton/runtime/build.py)."""

_CONFIGURED_CPU = Recipe(
    name="configured-index",
    where="the configured package index",
    # without PyTorch's CPU index these come built for CUDA and fail to load beside a CPU torch
    excludes=("torchaudio", "torchcodec"),
    beside=(_SETUPTOOLS,),
    needs_torchvision_shim=True,
)
_PYTORCH_CPU = Recipe(
    name="pytorch-cpu-index",
    where="PyTorch's CPU index",
    arguments=("--torch-backend", "cpu"),  # uv knows that index's address
    beside=(_SETUPTOOLS,),
)
_CUDA = Recipe(name="configured-index", where="the configured package index", beside=(_SETUPTOOLS,))


def recipes_for(device: Device) -> tuple[Recipe, ...]:
    """What to try for ``device``: the user's own indexes first, then PyTorch's."""
    return (_CONFIGURED_CPU, _PYTORCH_CPU) if device is Device.CPU else (_CUDA,)
