"""Slots: which GPUs each server gets, and that no two threads have the same slot."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

import made
from vbisect.errors import Cancelled, HostError, UsageError
from vbisect.releases import Device
from vbisect.run.capacity import Capacity
from vbisect.run.docker_settings import DockerSettings
from vbisect.run.gpus import OUTSIDE, Gpu
from vbisect.run.room import find_room
from vbisect.run.slots import (
    Slot,
    SlotPool,
    any_free,
    gpu_notes,
    left_alone,
    place_on,
    plan_slots,
)

GIB = 2**30
NEVER = threading.Event()


def gpus(*busy: str | None, name: str = "NVIDIA H20") -> list[Gpu]:
    """GPUs, each busy for the reason given or free."""
    return [
        Gpu(index, f"GPU-{index:04d}", name, 96 * GIB, 0, reason)
        for index, reason in enumerate(busy)
    ]


def free(count: int) -> list[Gpu]:
    """So many free GPUs."""
    return gpus(*[None] * count)


INSTANCES = [
    Gpu(0, "GPU-0000", "NVIDIA H100", 80 * GIB, 0, "split by MIG"),
    Gpu(0, "MIG-aa", "NVIDIA H100 MIG 3g.40gb", 40 * GIB, 0, None, instance=True),
    Gpu(0, "MIG-ab", "NVIDIA H100 MIG 3g.40gb", 40 * GIB, 0, "1 compute process", instance=True),
]


def test_a_server_with_a_gpu_for_itself() -> None:
    """It is told its GPU and no more."""
    slots = plan_slots(free(2), jobs=None)
    assert slots == (Slot(0, ("0",)), Slot(1, ("1",)))
    assert slots[1].arguments == ()
    assert slots[1].gpus == ("1",)


def test_servers_with_groups_of_gpus() -> None:
    """A server gets neighbours among the free ones; a GPU too many stays idle."""
    slots = plan_slots(gpus(None, "busy", None, None, None, None), jobs=2, tensor_parallel=2)
    assert [slot.gpus for slot in slots] == [("0", "2"), ("3", "4")]
    assert slots[0].arguments == ("--tensor-parallel-size", "2")
    assert slots[0].gpus == ("0", "2")


def test_several_servers_on_a_gpu() -> None:
    """They divide its memory; the first ones are on different GPUs."""
    slots = plan_slots(free(2), jobs=3, slots_per_gpu=2)
    assert [slot.gpus for slot in slots] == [("0",), ("1",), ("0",)]
    assert slots[0].memory_share == 0.42
    assert slots[0].arguments == ("--gpu-memory-utilization", "0.42")


def test_without_gpus() -> None:
    """On processors any number of servers, and nothing to tell them."""
    slots = plan_slots((), jobs=3, asked="none")
    assert slots == (Slot(0), Slot(1), Slot(2))
    assert (slots[0].arguments, slots[0].gpus) == ((), ())
    assert len(plan_slots((), jobs=None, asked="none")) == 1
    assert gpu_notes(free(1), "none") == ()
    with pytest.raises(UsageError, match="Without GPUs"):
        plan_slots((), jobs=1, slots_per_gpu=2, asked="none")


def test_the_only_server_of_a_run_gets_the_gpus_that_are_free() -> None:
    """It may use as many as it is told to of those that are free, and sees no other."""
    slot = any_free(gpus("1 compute process", None, None))
    assert (slot.gpus, slot.arguments) == (("1", "2"), ())
    assert any_free(free(2)).gpus == ("0", "1")
    assert any_free(gpus("1 compute process", None, None), "2").gpus == ("2",)
    assert any_free(gpus("1 compute process", None, None), "0,2").gpus == ("2",)


@pytest.mark.parametrize("there", [[], gpus("busy", "busy"), INSTANCES[:1]])
def test_the_only_server_of_a_run_sees_all_gpus_where_none_is_free(there: list[Gpu]) -> None:
    """What keeps them busy may be a screen, which vLLM can live with."""
    assert any_free(there) == Slot(0, together=False)
    assert any_free(there, "none") == Slot(0, together=False)


def test_gpus_that_were_left_to_others_are_never_given() -> None:
    """As CUDA_VISIBLE_DEVICES=6,7 says, busy or not; without any there is nothing to run on."""
    others = [OUTSIDE] * 6
    assert any_free(gpus(*others, None, None)).gpus == ("6", "7")
    assert any_free(gpus(*others, None, "busy")).gpus == ("6",)
    assert any_free(gpus(*others, "busy", "busy")).gpus == ("6", "7")
    [slot] = plan_slots(gpus(*others, None, None), jobs=1, tensor_parallel=2)
    assert slot.gpus == ("6", "7")
    with pytest.raises(HostError, match="CUDA_VISIBLE_DEVICES hides every GPU"):
        any_free(gpus(OUTSIDE, OUTSIDE))
    assert any_free(gpus(OUTSIDE, None), "0").gpus == (), "as it was asked for"
    assert left_alone(gpus(*others, None, None)) == (
        "GPUs 0, 1, 2, 3, 4 and 5 are left alone: outside CUDA_VISIBLE_DEVICES.",
    )


def test_the_instance_that_cuda_visible_devices_names() -> None:
    """It is meant by all, and the GPU that it is part of is not."""
    there = [
        *gpus(OUTSIDE),
        Gpu(0, "MIG-aa", "NVIDIA H100 MIG 3g.40gb", 40 * GIB, 0, OUTSIDE, instance=True),
        Gpu(0, "MIG-ab", "NVIDIA H100 MIG 3g.40gb", 40 * GIB, 0, None, instance=True),
    ]
    assert any_free(there).gpus == ("MIG-ab",)
    assert [slot.gpus for slot in plan_slots(there, jobs=None)] == [("MIG-ab",)]


def test_gpus_by_their_names_in_cdi() -> None:
    """Those that NVML knows are looked at like others."""
    there = gpus(None, "busy", None)
    named = "nvidia.com/gpu=1,nvidia.com/gpu=GPU-0002"
    assert any_free(there, named).gpus == ("2",)
    assert [slot.gpus for slot in plan_slots(there, jobs=None, asked=named)] == [("2",)]


def test_gpus_of_which_nothing_is_known() -> None:
    """They are given as they are named."""
    slots = place_on(["example.com/h20=a", "example.com/h20=b"], jobs=1, tensor_parallel=2)
    assert [slot.gpus for slot in slots] == [("example.com/h20=a", "example.com/h20=b")]
    with pytest.raises(UsageError, match="room for 0 servers at once, on 1 free GPU with 2"):
        place_on(["0"], jobs=1, tensor_parallel=2)


@pytest.mark.parametrize(
    ("gpus", "sizes", "given"),
    [
        ("all", {}, [()]),
        ("0,1", {}, [()]),
        ("2,1", {"jobs": 2}, [("2",), ("1",)]),
        ("GPU-8f,MIG-7", {"jobs": 2}, [("GPU-8f",), ("MIG-7",)]),
        (
            "nvidia.com/gpu=0,nvidia.com/gpu=1",
            {"tensor_parallel": 2},
            [("nvidia.com/gpu=0", "nvidia.com/gpu=1")],
        ),
    ],
)
def test_gpus_of_a_remote_engine_are_as_they_are_asked_for(
    gpus: str, sizes: dict[str, int], given: list[tuple[str, ...]]
) -> None:
    """They cannot be listed from here; with one server, all that is asked for is its own."""
    docker = DockerSettings(host="ssh://gpu01", image_repo="a/b", gpus=gpus)
    slots, notes = find_room(
        made.settings(device=Device.CUDA, docker=docker, **sizes), Capacity(1, None)
    )
    assert ([slot.gpus for slot in slots], notes) == (given, ())


@pytest.mark.parametrize("gpus", ["all", "nvidia.com/gpu=all"])
def test_several_servers_need_gpus_that_are_listed_or_named(gpus: str) -> None:
    docker = DockerSettings(host="ssh://gpu01", image_repo="a/b", gpus=gpus)
    with pytest.raises(UsageError, match="name them with --gpus"):
        find_room(made.settings(device=Device.CUDA, docker=docker, jobs=2), Capacity(1, None))


def test_more_gpus_than_there_are() -> None:
    """Waiting brings none: a plan refuses it too."""
    with pytest.raises(UsageError, match=r"^--tp 16: there are 8 GPUs to use\.$"):
        plan_slots(free(8), jobs=1, tensor_parallel=16)


def test_gpus_asked_for() -> None:
    """By number or by how a UUID begins, in the order they are named."""
    assert [slot.gpus for slot in plan_slots(free(3), jobs=None, asked="2, GPU-0000")] == [
        ("2",),
        ("0",),
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("7", r"'7': there is no such GPU, only 0, 1\."),
        ("0,0", "names GPU 0 twice"),
        ("0,GPU-0000", "names GPU GPU-0000 twice"),
        ("GPU-00", "several GPUs begin so"),
        ("", "'': there is no such GPU"),
        ("0,", "'': there is no such GPU"),
        ("-1", "'-1': there is no such GPU"),
        ("none,0", "'none': there is no such GPU"),
    ],
)
def test_gpus_that_cannot_be_asked_for(asked: str, message: str) -> None:
    """Each is one clear line, from the notes too."""
    with pytest.raises(UsageError, match=message):
        plan_slots(free(2), jobs=None, asked=asked)
    with pytest.raises(UsageError, match=message):
        gpu_notes(free(2), asked)


def test_instances_only_when_named() -> None:
    """An instance has no number, and cannot be one of several for a server."""
    with pytest.raises(HostError, match="GPU 0: split by MIG"):
        plan_slots(INSTANCES, jobs=None)
    [slot] = plan_slots(INSTANCES, jobs=None, asked="MIG-aa,MIG-ab")
    assert slot.gpus == ("MIG-aa",)
    assert gpu_notes(INSTANCES, "MIG-ab") == ("GPU MIG-ab is left alone: 1 compute process.",)
    with pytest.raises(UsageError, match="MIG instances cannot work together"):
        plan_slots(INSTANCES, jobs=None, asked="MIG-aa", tensor_parallel=2)


def test_too_few_free_gpus() -> None:
    """The host cannot do it, and the line says which GPUs are busy and why."""
    with pytest.raises(HostError) as few:
        plan_slots(gpus("2 compute processes", None), jobs=1, tensor_parallel=2)
    assert str(few.value) == (
        "A server needs 2 free GPUs, and there is 1 (GPU 0: 2 compute processes)."
    )
    with pytest.raises(HostError) as none:
        plan_slots(gpus("60.0 of 96.0 GiB taken"), jobs=1)
    assert str(none.value) == (
        "A server needs 1 free GPU, and there are none (GPU 0: 60.0 of 96.0 GiB taken)."
    )
    with pytest.raises(HostError, match="No NVIDIA GPU was found"):
        plan_slots((), jobs=1)


def test_more_jobs_than_slots() -> None:
    """Wrong usage, with how many there can be."""
    with pytest.raises(UsageError, match=r"room for 3 servers at once, on 3 free GPUs with 1 for"):
        plan_slots(gpus(None, "busy", None, None), jobs=4)
    with pytest.raises(UsageError, match="room for 1 server at once, on 3 free GPUs with 2 for"):
        plan_slots(free(3), jobs=2, tensor_parallel=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "--jobs 0"),
        ({"jobs": 1, "tensor_parallel": 0}, "--tp 0"),
        ({"jobs": 1, "slots_per_gpu": -1}, "--slots-per-gpu -1"),
        ({"jobs": 1, "slots_per_gpu": 2, "tensor_parallel": 2}, "does not share them"),
        ({"jobs": 1, "slots_per_gpu": 90}, "nothing is left for each server"),
        ({"jobs": 1, "memory_share": 0.0}, "share of 0.0"),
    ],
)
def test_what_cannot_be_planned(options: dict[str, int], message: str) -> None:
    """Wrong usage, each with its own line."""
    with pytest.raises(UsageError, match=message):
        plan_slots(free(4), **options)  # type: ignore[arg-type]


def test_notes() -> None:
    """GPUs left alone for the same reason are named together; unlike GPUs are pointed out."""
    some = [*gpus("1 compute process", None, "1 compute process", "60.0 of 96.0 GiB taken")]
    assert gpu_notes(some) == (
        "GPUs 0 and 2 are left alone: 1 compute process.",
        "GPU 3 is left alone: 60.0 of 96.0 GiB taken.",
    )
    assert gpu_notes(some, "1") == ()
    unlike = [*free(1), Gpu(1, "GPU-0001", "NVIDIA L40S", 48 * GIB, 0)]
    [note] = gpu_notes(unlike)
    assert note.startswith("The GPUs are not alike (NVIDIA H20, NVIDIA L40S)")


@given(
    busy=st.lists(st.booleans(), max_size=16),
    jobs=st.none() | st.integers(1, 40),
    tensor_parallel=st.integers(1, 8),
    slots_per_gpu=st.integers(1, 9),
    memory_share=st.floats(0.2, 1),
)
def test_any_plan(
    busy: list[bool],
    jobs: int | None,
    tensor_parallel: int,
    slots_per_gpu: int,
    memory_share: float,
) -> None:
    """Never a busy GPU, never shared unless asked, never more memory than allowed."""
    there = gpus(*("busy" if is_busy else None for is_busy in busy))
    room = busy.count(False) // tensor_parallel * slots_per_gpu
    try:
        slots = plan_slots(
            there,
            jobs=jobs,
            tensor_parallel=tensor_parallel,
            slots_per_gpu=slots_per_gpu,
            memory_share=memory_share,
        )
    except UsageError:
        at_odds = slots_per_gpu > 1 and tensor_parallel > 1
        assert at_odds or (jobs is not None and jobs > room) or 0 < len(busy) < tensor_parallel
        return
    except HostError:
        assert busy.count(False) < tensor_parallel
        return
    assert [slot.number for slot in slots] == list(range(room if jobs is None else jobs))
    uses = Counter(gpu for slot in slots for gpu in slot.gpus)
    assert not {gpu.id for gpu in there if gpu.busy} & set(uses)
    assert all(count <= slots_per_gpu for count in uses.values())
    assert max(uses.values()) - min(uses.values()) <= 1
    for slot in slots:
        assert len(set(slot.gpus)) == len(slot.gpus) == tensor_parallel
        assert (slot.memory_share is None) == (slots_per_gpu == 1)
    for gpu in uses:
        told = [float(s.arguments[-1]) for s in slots if gpu in s.gpus and s.memory_share]
        assert sum(told) <= memory_share
        assert all(share > 0 for share in told)


def test_the_lowest_free_slot_is_taken() -> None:
    """Whatever was given back when, and after an error too."""
    pool = SlotPool(reversed(plan_slots((), jobs=3, asked="none")))
    with pool.taken(NEVER) as first, pool.taken(NEVER) as second:
        assert (first.slot.number, second.slot.number) == (0, 1)
    with pool.taken(NEVER) as again:
        assert again.slot.number == 0
    with pytest.raises(HostError), pool.taken(NEVER):
        raise HostError
    with pool.taken(NEVER) as first, pool.taken(NEVER), pool.taken(NEVER) as third:
        assert (first.slot.number, third.slot.number) == (0, 2)


def test_no_slot_is_taken_twice() -> None:
    """Many threads over few slots: each waits for its own, all have their turn."""
    pool = SlotPool(plan_slots((), jobs=3, asked="none"))
    held: list[int] = []
    most = 0

    def work(_: int) -> int:
        nonlocal most
        with pool.taken(NEVER) as place:
            slot = place.slot
            assert slot.number not in held
            held.append(slot.number)
            most = max(most, len(held))
            time.sleep(0.001)
            held.remove(slot.number)
        return slot.number

    with ThreadPoolExecutor(12) as threads:
        used = Counter(threads.map(work, range(200)))
    assert sum(used.values()) == 200
    assert most == 3


def test_waiting_ends_when_given_up() -> None:
    """A trial that became needless does not wait for a slot, nor to boot."""
    [slot] = plan_slots(free(1), jobs=1, slots_per_gpu=2)
    pool = SlotPool([slot])
    given_up = threading.Event()
    threading.Timer(0.05, given_up.set).start()
    with pool.taken(NEVER), pytest.raises(Cancelled), pool.taken(given_up):
        pass
    with pool.boot_turn(slot, NEVER), pytest.raises(Cancelled), pool.boot_turn(slot, given_up):
        pass
    with pool.boot_turn(slot, given_up):  # free again, nothing to wait for
        pass


def test_servers_on_one_gpu_boot_one_after_the_other() -> None:
    """Those on different GPUs, or with one for themselves, need not wait."""
    shared = plan_slots(free(2), jobs=4, slots_per_gpu=2)
    pool = SlotPool(shared)
    booting: Counter[tuple[str, ...]] = Counter()
    together = threading.Barrier(2)

    def boot(slot: Slot) -> None:
        with pool.boot_turn(slot, NEVER):
            booting[slot.gpus] += 1
            assert booting[slot.gpus] == 1
            together.wait(timeout=10)  # one of each GPU boots at the same time
            booting[slot.gpus] -= 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(boot, shared))
    alone = plan_slots((), jobs=2, asked="none")
    pool = SlotPool(alone)
    with pool.boot_turn(alone[0], NEVER), pool.boot_turn(alone[1], NEVER):
        pass
