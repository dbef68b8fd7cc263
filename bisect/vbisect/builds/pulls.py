"""Images fetched beside other work: the next ones at once, the needless given up, within the disk.

One thread for each image wanted; a scheduler admits them in the order they are wanted, as many at
a time as make the whole faster, and only what fits into the disk budget.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, takewhile
from typing import TYPE_CHECKING

from vbisect.builds.disk import DiskBudget, Shortfall, missing, taken
from vbisect.builds.image_store import ImageStore, LocalImage
from vbisect.builds.in_vain import pays
from vbisect.builds.pull import Pull, PullCancelled, PullFailed, PullStalled, Trouble
from vbisect.builds.pull_job import ImageRequest, PullJob, PullState
from vbisect.builds.pull_watch import PullWatch, gigabytes
from vbisect.errors import Cancelled, EngineLost, HostError
from vbisect.reasons import SkipReason, Untestable
from vbisect.registry import ImageReference, RemoteImage

if TYPE_CHECKING:
    from vbisect.engine.connection import Engine

_TICK_SECONDS = 0.25
_ATTEMPTS = 3
_LOOKUP_SECONDS = 2.0
"""How long those that are wanted less let one go first that is still being looked up."""

_HELD_SECONDS = 10.0
"""How long a server that is being stopped may hold an image; other containers hold it longer."""

_CLOSE_SECONDS = 10.0


Resolve = Callable[[ImageRequest, threading.Event], LocalImage | RemoteImage | str]
"""Finds an image on the engine, else its name by digest in its registry, and what it is made of
where that had to be known. Raises ``Untestable`` or ``HostError``."""

Describe = Callable[[ImageRequest, str], RemoteImage]
"""Asks the registry what an image is made of, by its name; raises ``Untestable``, ``HostError``."""


class Pulls:
    """The images of a run on their way to the engine."""

    def __init__(
        self,
        engine: Engine,
        store: ImageStore,
        resolve: Resolve,
        describe: Describe,
        budget: DiskBudget,
        *,
        stall_seconds: float,
        wait_turn: Callable[[str], object],
        say: Callable[[str], None],
    ) -> None:
        """``wait_turn`` is called with a name that a registry was too busy for, and returns when
        it may be asked again."""
        self._engine = engine
        self._store = store
        self._resolve = resolve
        self._describe = describe
        self._budget = budget
        self._stall_seconds = stall_seconds
        self._wait_turn = wait_turn
        self._say = say
        self._watch = PullWatch(stall_seconds, say)
        self._jobs: dict[ImageRequest, PullJob] = {}
        self._wanted: list[ImageRequest] = []
        self._awaited: Counter[ImageRequest] = Counter()
        self._keep: list[ImageRequest] = []
        self._of_use = 0
        self._used: set[ImageRequest] = set()
        self._come: Counter[ImageRequest] = Counter()  # bytes of each that came, also in vain
        self._sizes: dict[ImageRequest, int] = {}
        self._pulled: dict[ImageRequest, str] = {}
        self._held: dict[str, float] = {}  # since when containers are known to hold images
        self._threads: list[threading.Thread] = []
        self._change = threading.Condition()
        self._closed = False
        self._scheduler = threading.Thread(target=self._schedule, name="pulls", daemon=True)
        self._scheduler.start()

    def expect(
        self, requests: Sequence[ImageRequest], keep: Sequence[ImageRequest], of_use: int
    ) -> None:
        """Fetch ``requests`` in this order; what is on its way and not among them is given up.

        The first of them, or as many as are ``of_use`` whatever comes of trials, are fetched in any
        case, the others where not too much of all would come in vain.
        """
        with self._change:
            self._wanted, self._keep, self._of_use = list(requests), list(keep), of_use
            for request, job in list(self._jobs.items()):
                if request not in self._wanted and job.state is not PullState.OVER:
                    job.cancel()
                    del self._jobs[request]
            self._begin_wanted(again=True)
            self._change.notify_all()

    def get(self, request: ImageRequest, given_up: threading.Event) -> LocalImage:
        """The image, one of those expected, waiting for it until it is ``given_up``.

        Raises ``Untestable``, ``HostError`` or ``EngineLost``; asked again, it is tried again.
        Raises ``Cancelled`` when it is given up.
        """
        with self._change, self._awaiting(request):
            job = self._over(request, given_up)
            while isinstance(job.error, PullCancelled) and not self._closed:
                # it made way for what was needed sooner, and comes after that
                job = self._over(request, given_up)
            if job.error is not None:
                raise job.error
            self._used.add(request)
        assert job.image is not None
        return job.image

    def _over(self, request: ImageRequest, given_up: threading.Event) -> PullJob:
        """The job of ``request`` once it is over, one with an error forgotten; or ``Cancelled``."""
        job = self._jobs.get(request) or self._begin(request)
        self._change.notify_all()
        while job.state is not PullState.OVER:
            if given_up.is_set():
                raise Cancelled
            self._change.wait(_TICK_SECONDS)
        if job.error is not None and self._jobs.get(request) is job:
            del self._jobs[request]
        if isinstance(job.error, PullCancelled) and given_up.is_set():
            raise Cancelled
        return job

    @contextmanager
    def _awaiting(self, request: ImageRequest) -> Iterator[None]:
        self._awaited[request] += 1
        try:
            yield
        finally:
            self._awaited[request] -= 1

    def wait_for_turn(self, request: ImageRequest, given_up: threading.Event) -> None:
        """Wait until everything wanted before ``request`` is there: a build takes the whole host.

        Raises ``PullCancelled`` when it is given up.
        """
        with self._change:
            while any(
                (job := self._jobs.get(earlier)) is not None and job.state is not PullState.OVER
                for earlier in takewhile(request.__ne__, self._wanted)
            ):
                if given_up.is_set():
                    raise PullCancelled(request.reference)
                self._change.wait(_TICK_SECONDS)

    def pulled(self) -> dict[ImageRequest, str]:
        """The names of the images this run pulled and still has."""
        with self._change:
            return dict(self._pulled)

    def arrived(self) -> dict[ImageRequest, float]:
        """The share, in [0, 1], of each image on its way that is there."""
        with self._change:
            return {request: job.arrived for request, job in self._jobs.items()}

    def forget_missing(self) -> None:
        """Fetch again, when it is wanted again, what somebody removed from the engine.

        Raises ``EngineLost``.
        """
        with self._change:
            for request, job in list(self._jobs.items()):
                if job.image is not None and self._store.find(job.image.id) is None:
                    del self._jobs[request]

    def close(self) -> None:
        """Give up what is still on its way."""
        with self._change:
            self._closed = True
            for job in self._jobs.values():
                if job.state is not PullState.OVER:
                    job.cancel()
            self._change.notify_all()
        deadline = time.monotonic() + _CLOSE_SECONDS  # one that waits for a registry goes on
        for thread in (self._scheduler, *self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _begin_wanted(self, *, again: bool = False) -> None:
        """Begin with as many as may be pulled at once, one more being looked up meanwhile.

        Asking a registry about all that may be wanted could exhaust what it answers in an hour.
        ``again`` also begins with the first, and with what failed for a passing reason.
        """
        under_way = 0
        for place, request in enumerate(self._wanted):
            if again or (place and request not in self._jobs):
                self._begin(request)
            job = self._jobs.get(request)
            under_way += job is not None and job.to_come
            if under_way > self._watch.lanes.allowed:
                return

    def _begin(self, request: ImageRequest) -> PullJob:
        job = self._jobs.get(request)
        # what failed for a passing reason while it was not yet needed is tried again
        passing = job is not None and isinstance(job.error, HostError | PullCancelled)
        if job is None or (passing and job.state is PullState.OVER):
            job = self._jobs[request] = PullJob(request)
            thread = threading.Thread(
                target=self._carry_out, args=(job,), name=f"pull {request.version}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return job

    def _carry_out(self, job: PullJob) -> None:
        try:
            found = self._resolve(job.request, job.given_up)
            if isinstance(found, LocalImage):
                job.image = found
                pinned = ImageReference.parse(found.reference).with_digest(found.digest)
                job.name = str(pinned)
                self._budget.there(found.size)
            else:
                job.remote = found if isinstance(found, RemoteImage) else None
                job.name = _name(found)
                job.image = self._fetch(job)
        except Exception as error:  # raised again where the image is asked for
            job.error = error
        finally:
            with self._change:
                job.state = PullState.OVER
                self._change.notify_all()

    def _fetch(self, job: PullJob) -> LocalImage:
        assert job.name is not None
        for attempt in count(1):
            try:
                self._pull_once(job, job.name)
                break
            except (PullFailed, PullStalled, PullCancelled) as trouble:
                self._forget_unless_there(job, job.name)
                self._after(job, trouble, attempt)
        image = self._store.find(job.name)
        if image is None:
            raise Untestable(SkipReason.NOT_PULLABLE, f"{job.name} was pulled and is not there")
        with self._change:
            self._budget.there(image.size)
            if job.remote is not None:
                self._budget.unpacked(job.remote.size, image.size)
        return image.model_copy(update={"reference": job.request.reference})

    def _pull_once(self, job: PullJob, name: str) -> None:
        """Pull once admitted."""
        self._wait_for_admission(job)
        assert job.pull is not None
        try:
            self._store.ledger.enter(name, job.request.reference)
            with self._change:
                self._pulled[job.request] = name
            job.pull.run()
        finally:
            with self._change:
                job.come = job.pull.taken_bytes
                self._come[job.request] += job.come
                self._sizes[job.request] = job.come if job.pull.fetched else job.size
                job.state, job.pull = PullState.RESOLVING, None
                self._change.notify_all()

    def _forget_unless_there(self, job: PullJob, name: str) -> None:
        with suppress(EngineLost):
            if self._store.find(name) is not None:
                return
            with self._change:
                # given up and wanted again meanwhile, it may be on its way once more
                if all(other is job or other.name != name for other in self._active()):
                    self._store.ledger.strike(name)
                    self._forget(name)

    def _after(self, job: PullJob, trouble: Exception, attempt: int) -> None:
        """Wait until it may be tried again, or raise what the trouble comes to."""
        last = attempt >= _ATTEMPTS
        name = job.request.reference
        if isinstance(trouble, PullCancelled):
            raise trouble
        if isinstance(trouble, PullStalled):
            if last:
                raise HostError(
                    f"Nothing came of {name} for {self._stall_seconds:.0f} s, {attempt} times: "
                    "look after the registry, then resume the run."
                )
            self._say(f"{name}: nothing came for {self._stall_seconds:.0f} s; trying again")
            return
        assert isinstance(trouble, PullFailed)
        if trouble.trouble is Trouble.MISSING:
            raise Untestable(SkipReason.NOT_PUBLISHED, str(trouble))
        if last and trouble.trouble is Trouble.CORRUPT:
            raise Untestable(SkipReason.NOT_PULLABLE, f"{attempt} times: {trouble}")
        if last:
            raise HostError(
                f"{name} cannot be pulled: {trouble}. Look after the registry or the network, "
                "then resume the run."
            )
        self._say(f"{name}: {trouble}; trying again")
        if trouble.trouble is Trouble.BUSY and job.name is not None:
            self._wait_turn(job.name)
        if job.given_up.wait(2.0**attempt):
            raise PullCancelled(name)

    def _wait_for_admission(self, job: PullJob) -> None:
        while True:
            with self._change:
                job.state = PullState.WAITING
                self._change.notify_all()
                while job.state is PullState.WAITING:
                    if job.given_up.is_set():
                        raise PullCancelled(job.request.reference)
                    if job.error is not None:
                        raise job.error
                    if job.asks_more and job.remote is None:
                        job.state = PullState.RESOLVING
                        break
                    self._change.wait(_TICK_SECONDS)
                else:
                    return
            assert job.name is not None
            job.remote = self._describe(job.request, job.name)

    def _schedule(self) -> None:
        with self._change:
            while not self._closed:
                self._watch.look(self._active())
                self._begin_wanted()
                self._admit()
                hurry = self._watch.asking(self._active())
                self._change.wait(_TICK_SECONDS / 5 if hurry else _TICK_SECONDS)

    def _active(self) -> list[PullJob]:
        return [job for job in self._jobs.values() if job.state is PullState.PULLING]

    def _admit(self) -> None:
        for request in self._wanted:
            job = self._jobs.get(request)
            if job is None:
                continue
            new = time.monotonic() - job.begun < _LOOKUP_SECONDS
            if job.state is PullState.RESOLVING and new:
                return
            if job.state is not PullState.WAITING or job.error is not None:
                continue
            active = self._active()
            needed_now = request == self._wanted[0]
            if not needed_now and not self._pays(request):
                return
            full = sum(other.to_come for other in active) >= self._watch.lanes.allowed
            # beside a trial, another one is as good as begun: its image is not pulled ahead
            ahead = not needed_now and not self._awaited[request]
            if ahead and (full or self._watch.asking(active)):
                return
            try:
                if not self._make_room(job, active, needed_now=needed_now):
                    return
            except Exception as error:  # raised again where the image is asked for
                job.error = error
                self._change.notify_all()
                continue
            assert job.name is not None
            job.pull = Pull(self._engine, job.name)
            job.state = PullState.PULLING
            self._watch.begin_anew()
            self._change.notify_all()

    def _pays(self, request: ImageRequest) -> bool:
        """Whether an image may be pulled before it is known that a trial needs it."""
        usual, sizes = self._usual(), {**self._sizes}
        for each in self._wanted:
            job = self._jobs.get(each)
            if job is None or job.image is None:  # what was there before costs nothing
                sizes[each] = (job.size if job else sizes.get(each)) or usual
        return pays(
            request,
            wanted=self._wanted,
            of_use=max(self._of_use, 1),
            used=self._used,
            begun={*self._come, *(job.request for job in self._active())},
            come=self._come,
            sizes=sizes,
        )

    def _usual(self) -> int:
        """Compressed bytes of an image as large as those that came so far; 1 before any did."""
        on_their_way = (job.size for job in self._jobs.values())
        return max((*self._sizes.values(), *on_their_way), default=0) or 1

    def _make_room(self, job: PullJob, active: list[PullJob], *, needed_now: bool) -> bool:
        """Whether the image fits by now, after removing less useful ones.

        Raises ``HostError`` when the image that is needed now never will.
        """
        own = self._store.own()
        if job.remote is None:
            limit, ample = self._budget.limit, self._budget.ample
            if limit is None or taken(own) + self._reserved(active) + ample <= limit:
                job.usual = max(self._sizes.values(), default=0)
                return True
            job.asks_more = True
            self._change.notify_all()
            return False
        # what only vbisect's images have may go with them, all else stays
        others = self._store.present_layers() - {layer for it in own.values() for layer in it}
        others |= {layer for other in active for layer in other.layers}
        reserved = self._reserved(active)
        order = self._least_useful_first(own, job, needed_now=needed_now)
        held: list[str] = []
        while True:
            found = self._budget.room(job.layers, own, others, reserved, order)
            if isinstance(found, Shortfall):
                if needed_now and active:
                    active[-1].cancel()  # whatever else is coming has to make way
                elif needed_now:
                    raise self._too_small(job, found, held)
                return False
            stays = next((name for name in found.evict if not self._evict(name)), None)
            if stays is None:
                break
            now = time.monotonic()
            if now - self._held.setdefault(stays, now) < _HELD_SECONDS:
                return False
            held.append(stays)
            order.remove(stays)
            own = self._store.own()
        left = [layers for name, layers in own.items() if name not in found.evict]
        job.missing = missing(job.layers, others.union(*left))
        job.needed = found.needed
        return True

    def _reserved(self, active: Iterable[PullJob]) -> int:
        """Bytes on disk that pulls under way take, as far as they are known."""
        reserved = 0
        for job in active:
            measured = job.pull is not None and job.pull.measured
            unknown = self._budget.taken_by(job.size) if measured else self._budget.ample
            reserved += job.needed if job.remote else unknown
        return reserved

    def _evict(self, name: str) -> bool:
        """Remove an image for the sake of another; not one that a container holds."""
        if not self._store.remove(name):
            return False
        self._held.pop(name, None)
        self._forget(name)
        self._say(f"removed {name} to stay within the disk budget")
        return True

    def _too_small(self, job: PullJob, found: Shortfall, held: Sequence[str]) -> HostError:
        holds = f" Containers hold what could go otherwise: {', '.join(held)}." if held else ""
        return HostError(
            f"{job.request.reference} needs {gigabytes(found.needed)} of disk while it is pulled, "
            f"and {gigabytes(self._budget.limit or 0)} is the budget: pass --disk-budget "
            f"{gigabytes(found.limit, up=True)} or more, and free as much.{holds}"
        )

    def _least_useful_first(
        self, own: Iterable[str], job: PullJob, *, needed_now: bool
    ) -> list[str]:
        """What may be removed for the sake of ``job``.

        The longest there goes first, then what is worth keeping, and last, where ``needed_now``,
        what is wanted later.
        """
        pulled = {e.reference: name for name, e in self._store.ledger.entries().items()}
        names = pulled | {r.reference: j.name for r, j in self._jobs.items() if j.name is not None}
        wanted = [names.get(request.reference) for request in self._wanted]
        keep = [names.get(request.reference) for request in self._keep]
        others = [name for name in own if name not in wanted and name not in keep]
        kept = [name for name in own if name in keep and name not in wanted]
        later = [name for name in own if name in wanted and name != job.name]
        kept.sort(key=keep.index, reverse=True)
        later.sort(key=wanted.index, reverse=True)
        return [*others, *kept, *(later if needed_now else ())]

    def _forget(self, name: str) -> None:
        """``name`` is gone."""
        self._pulled = {r: pulled for r, pulled in self._pulled.items() if pulled != name}
        for request, job in list(self._jobs.items()):
            if job.state is PullState.OVER and job.name == name:
                del self._jobs[request]


def _name(found: RemoteImage | str) -> str:
    """What an image in a registry is called by digest."""
    if isinstance(found, str):
        return found
    return str(ImageReference.parse(found.reference).with_digest(found.digest))
