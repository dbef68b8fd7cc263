"""Room for the servers of a run: the slots that its host has for them."""

from __future__ import annotations

import re

from vbisect.engine.address import engine_address
from vbisect.engine.gpus import CDI_KIND
from vbisect.errors import HostError, UsageError
from vbisect.releases import Device
from vbisect.run.gpus import list_gpus
from vbisect.run.settings import RunSettings
from vbisect.run.slots import Slot, any_free, gpu_notes, left_alone, place_on, plan_slots


def find_room(settings: RunSettings) -> tuple[tuple[Slot, ...], tuple[str, ...]]:
    """A slot for each of ``settings.jobs`` servers, and what to say of the GPUs.

    A run with one server at a time that names no number of GPUs leaves the choice to vLLM, among
    those that are free. Call it when no server of the run is there: that would make its GPU busy.
    Raises ``UsageError`` for more than there is room for, ``HostError`` when too few GPUs are free.
    """
    sizes = {
        "jobs": settings.jobs,
        "tensor_parallel": settings.tensor_parallel,
        "slots_per_gpu": settings.slots_per_gpu,
    }
    if settings.device is Device.CPU:
        return plan_slots((), asked="none", **sizes), ()
    asked = settings.docker.gpus if settings.docker else "all"
    one = set(sizes.values()) == {1}
    if _is_remote(settings) or not _can_be_listed(asked):
        return ((Slot(0),) if one else place_on(_named(asked), **sizes)), ()
    listing = list_gpus()
    if one:  # what can be told of the GPUs is of use, and nothing has to be known of them
        if listing.problem is not None:
            return (Slot(0),), ()
        return (any_free(listing.gpus, asked),), left_alone(listing.gpus, asked)
    if listing.problem is not None:
        raise HostError(f"The GPUs cannot be listed: {listing.problem}.")
    return plan_slots(listing.gpus, asked=asked, **sizes), gpu_notes(listing.gpus, asked)


def _is_remote(settings: RunSettings) -> bool:
    return settings.docker is not None and engine_address(settings.docker.host).remote


def _can_be_listed(asked: str) -> bool:
    """Whether NVML knows what is asked for: CDI may call devices otherwise than by their ids."""
    ids = (name.removeprefix(f"{CDI_KIND}=") for name in asked.split(",") if "=" in name)
    return all(re.fullmatch(r"\d+|(?:GPU|MIG)-[\w-]+", id, re.ASCII) for id in ids)


def _named(asked: str) -> list[str]:
    """The GPUs that are asked for by name, as they are of a host that does not list them."""
    names = list(dict.fromkeys(asked.split(",")))
    if {*names, *(name.partition("=")[2] for name in names)} & {"all", "none"}:
        raise UsageError(
            "Which GPUs there are free cannot be seen from here: name them with --gpus 0,1,…"
        )
    return names
