"""Room for the servers of a run: the slots that its host has for them."""

from __future__ import annotations

from vbisect.engine.address import engine_address
from vbisect.errors import HostError, UsageError
from vbisect.releases import Device
from vbisect.run.gpus import Gpu, list_gpus
from vbisect.run.settings import RunSettings
from vbisect.run.slots import Slot, any_free, gpu_notes, plan_slots


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
    if set(sizes.values()) == {1}:
        return _room_for_one(settings, asked)
    gpus = _gpus(settings, asked)
    return plan_slots(gpus, asked=asked, **sizes), gpu_notes(gpus, asked)


def _room_for_one(settings: RunSettings, asked: str) -> tuple[tuple[Slot, ...], tuple[str, ...]]:
    """What can be told of the GPUs is of use, and nothing has to be known of them."""
    if _is_remote(settings):
        return (Slot(0),), ()
    listing = list_gpus()
    if listing.problem is not None:
        return (Slot(0),), ()
    slot = any_free(listing.gpus, asked)
    return (slot,), gpu_notes(listing.gpus, asked) if slot.gpus else ()


def _is_remote(settings: RunSettings) -> bool:
    return settings.docker is not None and engine_address(settings.docker.host).remote


def _gpus(settings: RunSettings, asked: str) -> tuple[Gpu, ...]:
    if _is_remote(settings):
        if not asked.replace(",", "").isdecimal():
            raise UsageError(
                "Which GPUs of a remote host are free cannot be seen from here: name them with "
                "--gpus 0,1,…"
            )
        return tuple(
            Gpu(int(number), "", "", None, None) for number in dict.fromkeys(asked.split(","))
        )
    listing = list_gpus()
    if listing.problem is not None:
        raise HostError(f"The GPUs cannot be listed: {listing.problem}.")
    return listing.gpus
