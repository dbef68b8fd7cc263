"""Where servers run side by side: on which GPUs, and with how much of their memory."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from vbisect.engine.gpus import CDI_KIND
from vbisect.errors import Cancelled, HostError, UsageError
from vbisect.run.gpus import OUTSIDE, Gpu

_WITHIN_SHARE = 0.95
"""How much of its part of a GPU a server is told to use: what CUDA itself takes for each process
(about half a GB) is only partly counted by vLLM."""

_LEAST_SHARE = 0.01

_GLANCE_SECONDS = 0.25


@dataclass(frozen=True)
class Slot:
    """Where one server runs at a time.

    ``gpus`` are ids of GPUs as Docker and ``CUDA_VISIBLE_DEVICES`` take them, or names of CDI; none
    for a server that computes on processors, and where GPUs cannot be listed. ``memory_share`` is
    the fraction of the GPU's memory the server may use, ``None`` (vLLM's own default) where the
    server has its GPUs for itself. ``together`` where the server is to use all of its GPUs, not
    those of them that it needs.
    """

    number: int
    gpus: tuple[str, ...] = ()
    memory_share: float | None = None
    together: bool = True

    @property
    def arguments(self) -> tuple[str, ...]:
        """What ``vllm serve`` is told, before what the user adds."""
        words: tuple[str, ...] = ()
        if self.together and len(self.gpus) > 1:
            words += ("--tensor-parallel-size", str(len(self.gpus)))
        if self.memory_share is not None:
            words += ("--gpu-memory-utilization", f"{self.memory_share:.2f}")
        return words


def plan_slots(
    gpus: Sequence[Gpu],
    *,
    jobs: int | None,
    tensor_parallel: int = 1,
    slots_per_gpu: int = 1,
    asked: str = "all",
    memory_share: float = 0.9,
) -> tuple[Slot, ...]:
    """The slots of a run: ``jobs`` of them, or with ``None`` as many as there are.

    ``asked`` is ``all``, ``none`` (slots without GPUs, as many as wanted, one if ``jobs`` is
    ``None``), or numbers or UUIDs of GPUs with commas between; MIG instances are taken only when
    named. Busy GPUs are left alone. ``memory_share`` is the fraction of a GPU's memory that all
    servers on it may use together. Slots of the same GPU are as far apart as possible, so that few
    jobs each have a GPU. Raises ``UsageError`` for what cannot be asked for, and for more jobs than
    slots; ``HostError`` when too few GPUs are free for one server.
    """
    _check(jobs, tensor_parallel, slots_per_gpu, memory_share)
    if asked == "none":
        if tensor_parallel > 1 or slots_per_gpu > 1:
            raise UsageError(
                "Without GPUs, --jobs alone counts: leave --tp and --slots-per-gpu away."
            )
        return tuple(Slot(number) for number in range(jobs or 1))
    chosen = _chosen(gpus, asked)
    if tensor_parallel > 1 and any(gpu.instance for gpu in chosen):
        raise UsageError("MIG instances cannot work together: leave --tp away.")
    if 0 < len(chosen) < tensor_parallel:
        raise UsageError(f"--tp {tensor_parallel}: there {_are(len(chosen), 'GPU')} to use.")
    free = [gpu.id for gpu in chosen if gpu.busy is None]
    if len(free) < tensor_parallel:
        raise HostError(_too_few(chosen, len(free), tensor_parallel))
    return place_on(
        free,
        jobs=jobs,
        tensor_parallel=tensor_parallel,
        slots_per_gpu=slots_per_gpu,
        memory_share=memory_share,
    )


def place_on(
    ids: Sequence[str],
    *,
    jobs: int | None,
    tensor_parallel: int = 1,
    slots_per_gpu: int = 1,
    memory_share: float = 0.9,
) -> tuple[Slot, ...]:
    """As ``plan_slots``, on the GPUs of these ids, of which nothing else has to be known."""
    _check(jobs, tensor_parallel, slots_per_gpu, memory_share)
    groups = [
        tuple(ids[start : start + tensor_parallel])
        for start in range(0, len(ids) - tensor_parallel + 1, tensor_parallel)
    ]
    share = _share(memory_share, slots_per_gpu)
    places = [group for _ in range(slots_per_gpu) for group in groups]
    slots = tuple(Slot(number, place, share) for number, place in enumerate(places))
    if max(jobs or 1, 1) > len(slots):
        raise UsageError(
            f"--jobs {jobs}: there is room for {_count(len(slots), 'server')} at once, on "
            f"{_count(len(ids), 'free GPU')} with {tensor_parallel} for each server."
            + (" Smaller servers can share GPUs: --slots-per-gpu." if tensor_parallel == 1 else "")
        )
    return slots[:jobs]


def any_free(gpus: Sequence[Gpu], asked: str = "all") -> Slot:
    """The slot of a run's only server: of the GPUs asked for those that are free.

    Where all are busy it may see them, and so it does where it is to have all there are: it names
    none then. Never does it see what ``CUDA_VISIBLE_DEVICES`` left to others, unless asked for by
    name. ``asked`` is as for ``plan_slots``, and so is what is raised.
    """
    chosen = [] if asked == "none" else _chosen(gpus, asked)
    free = [gpu for gpu in chosen if gpu.busy is None]
    mine = [gpu for gpu in chosen if gpu.busy != OUTSIDE]
    if asked == "all" and chosen and not mine:
        raise HostError(
            "CUDA_VISIBLE_DEVICES hides every GPU: change it, or name GPUs with --gpus; without "
            "any, use --device cpu."
        )
    others = any(gpu.busy == OUTSIDE for gpu in gpus)
    named = free or (mine if others else [])
    return Slot(0, tuple(gpu.id for gpu in named), together=False)


def left_alone(gpus: Sequence[Gpu], asked: str = "all") -> tuple[str, ...]:
    """Which of the GPUs asked for are left alone, and why. Raises as ``plan_slots``."""
    chosen = [] if asked == "none" else _chosen(gpus, asked)
    notes = []
    for reason in dict.fromkeys(gpu.busy for gpu in chosen if gpu.busy):
        alike = [gpu for gpu in chosen if gpu.busy == reason]
        are = "is" if len(alike) == 1 else "are"
        notes.append(f"{_names(alike)} {are} left alone: {reason}.")
    return tuple(notes)


def gpu_notes(gpus: Sequence[Gpu], asked: str = "all") -> tuple[str, ...]:
    """What a user should know of the GPUs asked for: which are left alone and why, unlike ones.

    Raises ``UsageError`` as ``plan_slots`` does.
    """
    notes = left_alone(gpus, asked)
    chosen = [] if asked == "none" else _chosen(gpus, asked)
    models = dict.fromkeys(gpu.name for gpu in chosen if gpu.busy is None)
    if len(models) > 1:
        notes += (
            f"The GPUs are not alike ({', '.join(models)}): a release may fit on one and not on "
            "another. --gpus chooses.",
        )
    return notes


@dataclass(eq=False)
class Place:
    """A slot while it is taken; ``shared`` once any other of the pool was taken meanwhile."""

    slot: Slot
    shared: bool = False


class SlotPool:
    """Slots, taken and given back by several threads."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._free = [(slot.number, slot) for slot in slots]
        heapq.heapify(self._free)
        self.size = len(self._free)
        self._taken: list[Place] = []
        self._to_be_alone = 0
        shared = dict.fromkeys(slot.gpus for _, slot in self._free if slot.memory_share)
        self._turns = {gpus: threading.Lock() for gpus in shared}
        self._given_back = threading.Condition()

    @contextmanager
    def taken(self, given_up: threading.Event) -> Iterator[Place]:
        """The free slot of the lowest number, waited for, until the block ends.

        Raises ``Cancelled`` when ``given_up`` is set before there is one.
        """
        with self._when(lambda: bool(self._free) and not self._to_be_alone, given_up) as place:
            yield place

    @contextmanager
    def taken_alone(self, given_up: threading.Event) -> Iterator[Place]:
        """The same once no other is taken; none is then until the block ends.

        Whoever waits for this must have given back what it had.
        """
        with self._given_back:
            self._to_be_alone += 1
        try:
            with self._when(lambda: not self._taken, given_up) as place:
                yield place
        finally:
            with self._given_back:
                self._to_be_alone -= 1
                self._given_back.notify_all()

    @contextmanager
    def _when(self, ready: Callable[[], bool], given_up: threading.Event) -> Iterator[Place]:
        with self._given_back:
            while not ready():
                if given_up.is_set():
                    raise Cancelled
                self._given_back.wait(_GLANCE_SECONDS)
            number, slot = heapq.heappop(self._free)
            place = Place(slot, shared=bool(self._taken))
            for other in self._taken:
                other.shared = True
            self._taken.append(place)
        try:
            yield place
        finally:
            with self._given_back:
                self._taken.remove(place)
                heapq.heappush(self._free, (number, slot))
                self._given_back.notify_all()

    @contextmanager
    def boot_turn(self, slot: Slot, given_up: threading.Event) -> Iterator[None]:
        """While the block runs, no other server boots on the same GPU.

        A booting vLLM takes for its own what others on the GPU allocate meanwhile
        (https://github.com/vllm-project/vllm/issues/55827). Raises ``Cancelled`` when ``given_up``
        is set while it waits for its turn.
        """
        turn = self._turns.get(slot.gpus)
        if turn is None:
            yield
            return
        while not turn.acquire(timeout=_GLANCE_SECONDS):
            if given_up.is_set():
                raise Cancelled
        try:
            yield
        finally:
            turn.release()


def _check(jobs: int | None, tensor_parallel: int, slots_per_gpu: int, memory_share: float) -> None:
    asked = {"--jobs": jobs, "--tp": tensor_parallel, "--slots-per-gpu": slots_per_gpu}
    for option, value in asked.items():
        if value is not None and value < 1:
            raise UsageError(f"{option} {value}: it must be at least 1.")
    if not 0 < memory_share <= 1:
        raise UsageError(f"A share of {memory_share} of a GPU's memory: it must be from 0 to 1.")
    if slots_per_gpu > 1 and tensor_parallel > 1:
        raise UsageError(
            f"--slots-per-gpu {slots_per_gpu} with --tp {tensor_parallel}: a server that needs "
            "several GPUs does not share them."
        )


def _chosen(gpus: Sequence[Gpu], asked: str) -> list[Gpu]:
    """The GPUs asked for, in NVML's order for ``all``, else in the order they are named.

    MIG instances are among all only where ``CUDA_VISIBLE_DEVICES`` names them.
    """
    if asked == "all":
        given = {gpu.index for gpu in gpus if not gpu.instance and gpu.busy != OUTSIDE}
        parts = [gpu for gpu in gpus if gpu.instance and gpu.index not in given]
        named = [gpu for gpu in parts if gpu.busy != OUTSIDE]
        return [gpu for gpu in gpus if not gpu.instance or gpu in named]
    chosen: list[Gpu] = []
    for name in (word.strip() for word in asked.split(",")):
        matching = [gpu for gpu in gpus if _is_called(gpu, name)]
        if len(matching) != 1:
            known = ", ".join(gpu.id for gpu in gpus) or "none"
            what = "several GPUs begin so" if matching else f"there is no such GPU, only {known}"
            raise UsageError(f"--gpus {asked}: '{name}': {what}.")
        if matching[0] in chosen:
            raise UsageError(f"--gpus {asked} names GPU {name} twice.")
        chosen += matching
    return chosen


def _is_called(gpu: Gpu, name: str) -> bool:
    name = name.removeprefix(f"{CDI_KIND}=")
    if name.isdecimal():
        return not gpu.instance and int(name) == gpu.index
    return name.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(name)


def _share(memory_share: float, slots_per_gpu: int) -> float | None:
    """Each server's fraction of the memory, rounded down so that all fit."""
    if slots_per_gpu == 1:
        return None
    share = int(memory_share * _WITHIN_SHARE / slots_per_gpu * 100) / 100
    if share < _LEAST_SHARE:
        raise UsageError(f"--slots-per-gpu {slots_per_gpu}: nothing is left for each server.")
    return share


def _too_few(chosen: list[Gpu], free: int, needed: int) -> str:
    if not chosen:
        return "No NVIDIA GPU was found; use --device cpu where there is none."
    text = f"A server needs {_count(needed, 'free GPU')}, and there {'is' if free == 1 else 'are'} "
    busy = "; ".join(f"GPU {gpu.id}: {gpu.busy}" for gpu in chosen if gpu.busy)
    return f"{text}{free or 'none'}{f' ({busy})' if busy else ''}."


def _names(gpus: list[Gpu]) -> str:
    ids = [gpu.id for gpu in gpus]
    return f"GPU {ids[0]}" if len(ids) == 1 else f"GPUs {', '.join(ids[:-1])} and {ids[-1]}"


def _are(number: int, thing: str) -> str:
    return f"{'is' if number == 1 else 'are'} {_count(number, thing)}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
