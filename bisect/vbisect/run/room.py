"""Room for the servers of a run: the slots that its host has for them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from vbisect.amounts import sized
from vbisect.engine.address import engine_address
from vbisect.engine.gpus import CDI_KIND
from vbisect.errors import HostError, UsageError
from vbisect.releases import Device
from vbisect.run.capacity import Capacity
from vbisect.run.gpus import list_gpus
from vbisect.run.settings import AUTO, RunSettings
from vbisect.run.slots import Slot, any_free, gpu_notes, left_alone, place_on, plan_slots
from vbisect.text import one_line

_TINY_SERVER = 3 * 2**30
"""Bytes that a server of a tiny model takes on a CPU, with 1 GiB for its KV cache.

vLLM 0.27.1 and 0.32.0 took 2.4 GiB at their peak, shared pages divided among who shares them: 0.4
for the front end, 0.4 for the engine, 1.4 for the worker. A boot took 30 s of processor time, one
process after the other, so one processor is enough for each.
"""

_KV_CACHE = "VLLM_CPU_KVCACHE_SPACE"
"""The variable with the GiB that a server on a CPU takes for its KV cache."""

_OWN_CHOICE = re.compile(
    r"--(?:(?:tensor|pipeline|data|decode-context|prefill-context)[-_]parallel[-_]|config\b)"
    r"|-(?:tp|pp|dp|dcp|pcp)\b"
)
"""Arguments by which the user says how many GPUs a server takes, or may say so
(https://docs.vllm.ai/en/stable/cli/serve/)."""


@dataclass(frozen=True)
class Room:
    """How many servers there is room for at once, and why, in a few words."""

    servers: int
    why: str


def room_on(settings: RunSettings, capacity: Capacity) -> Room:
    """How many servers of a run its host carries at once, by what is free there now.

    One where that is not known, and where a second one may change what is seen. Raises
    ``UsageError`` for what cannot be asked for.
    """
    if settings.command is not None:
        return Room(1, "a command may not be made to run beside itself")
    if settings.device is Device.CPU:
        return _on_processors(settings, capacity)
    return _on_gpus(settings, capacity)


def _on_processors(settings: RunSettings, capacity: Capacity) -> Room:
    large = [m for m in (settings.model, settings.control_model) if m and not m.startswith("tiny:")]
    if large:
        return Room(1, f"how much memory a server of {one_line(large[0])} takes is not known")
    processors = capacity.processors or 1
    each = _TINY_SERVER + int(max(_kv_caches(settings), default=0) * 2**30)
    fit = processors if capacity.memory is None else capacity.memory // each
    if fit < processors:
        told = f"{sized(capacity.memory or 0)} of memory are free, and each takes {sized(each)}"
        return Room(max(1, fit), told)
    return Room(processors, f"{_count(processors, 'processor')} can be used, and each takes one")


def _kv_caches(settings: RunSettings) -> Iterator[float]:
    """GiB of KV caches beyond the usual one, as far as the user says so."""
    for variable in settings.variables:
        name, _, value = variable.text.partition("=")
        if name == _KV_CACHE and re.fullmatch(r"\d{1,6}(\.\d+)?", value.strip(), re.ASCII):
            yield max(0.0, float(value) - 1)


def _on_gpus(settings: RunSettings, capacity: Capacity) -> Room:
    asked = settings.docker.gpus if settings.docker else "all"
    words = [word for argument in settings.serve_args for word in shlex.split(argument.text)]
    names = [variable.text.partition("=")[0] for variable in settings.variables]
    if "CUDA_VISIBLE_DEVICES" in names or any(map(_OWN_CHOICE.match, words)):
        return Room(1, "the options say themselves which GPUs a server has")
    if _is_remote(settings) or not _can_be_listed(asked):
        return Room(1, "which of its GPUs are free is not known")
    listing = list_gpus()
    if listing.problem is not None:
        return Room(1, f"the GPUs cannot be listed: {listing.problem}")
    try:
        slots = plan_slots(
            listing.gpus,
            asked=asked,
            jobs=None,
            tensor_parallel=settings.tensor_parallel,
            slots_per_gpu=settings.slots_per_gpu,
        )
    except HostError:
        return Room(1, "too few GPUs are free")
    free = {id for slot in slots for id in slot.gpus}
    if len({gpu.name for gpu in listing.gpus if gpu.id in free}) > 1:
        return Room(1, "the GPUs are not alike, so that releases would be tested unlike")
    if capacity.processors is not None and capacity.processors < len(slots):
        return Room(capacity.processors, f"{_count(capacity.processors, 'processor')} can be used")
    return Room(len(slots), f"{_count(len(free), 'GPU')} can be used")


def find_room(
    settings: RunSettings, capacity: Capacity
) -> tuple[tuple[Slot, ...], tuple[str, ...]]:
    """A slot for each of ``settings.jobs`` servers, and what to say of the GPUs.

    Where vbisect itself settled on that number, they are no more than there is room for now. A run
    with one server at a time that names no number of GPUs leaves the choice to vLLM, among
    those that are free. Call it when no server of the run is there: that would make its GPU busy.
    Raises ``UsageError`` for more than there is room for, ``HostError`` when too few GPUs are free.
    """
    if settings.jobs_asked != AUTO or settings.jobs == 1:
        return _slots(settings, settings.jobs)
    room = room_on(settings, capacity)
    jobs = min(settings.jobs, room.servers)
    slots, notes = _slots(settings, jobs)
    if jobs < settings.jobs:
        notes += (f"{servers_at_once(jobs)}, not {settings.jobs}, for now {room.why}.",)
    return slots, notes


def servers_at_once(number: int) -> str:
    """So many servers, in words."""
    return f"{_count(number, 'server')} at once"


def _slots(settings: RunSettings, jobs: int) -> tuple[tuple[Slot, ...], tuple[str, ...]]:
    sizes = {
        "jobs": jobs,
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


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
