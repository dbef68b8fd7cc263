"""How many servers a run has at once where nobody says so: as many as there is room for and pay."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from vbisect.run.capacity import Capacity
from vbisect.run.forecast import seconds_on_average
from vbisect.run.rehearsal import Stage
from vbisect.run.room import Room, room_on, servers_at_once
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState
from vbisect.run.times import learn

_NUMBERS = (1, 2, 3, 4, 6, 8, 12, 16)
"""How many servers are reckoned with, besides as many as there is room for: a search for one change
gains little by more than the last, and each takes a tenth of a second to reckon with."""

_PAYS = 0.8
"""Part of the time with one server that a run with several may take, so that they are worth it.
They boot and fetch more releases; and in a rehearsal one server waits for each build in full,
whereas a run fetches the next one while it boots."""

_ALIKE = 0.95
"""Part of the time with fewer servers that makes more of them worth it."""


def settled(
    settings: RunSettings, capacity: Capacity, there: Collection[str], results: Path
) -> RunSettings:
    """``settings`` with a number of servers at once, and a word on it.

    It is the least that ends the run about as soon as any, by what trials took in the runs below
    ``results``; ``there`` are the versions whose builds are on the host.
    """
    room = room_on(settings, capacity)
    jobs = _soonest(settings, room, there, results)
    why = room.why
    if jobs < room.servers:
        why = f"{servers_at_once(room.servers)} have room, and would hardly end it sooner"
    note = f"{servers_at_once(jobs)} (--jobs auto): {why}."
    return settings.model_copy(update={"jobs": jobs, "notes": (*settings.notes, note)})


def _soonest(settings: RunSettings, room: Room, there: Collection[str], results: Path) -> int:
    if room.servers == 1:
        return 1
    versions, state = settings.versions, RunState(settings)
    unfit = {each.version for each in settings.unfit}
    wheels = settings.docker is None
    stage = Stage(
        aim=state.aim,
        costs=learn(results, settings, state).costs(settings.candidates, dict.fromkeys(there, 1.0)),
        excluded=frozenset(map(versions.index, settings.excluded)),
        missing=frozenset(
            index
            for index, release in enumerate(settings.candidates)
            if release.version not in settings.excluded
            and (release.version in unfit or (wheels and settings.device not in release.wheels))
        ),
    )
    most = max(1, min(room.servers, len(stage.testable), _NUMBERS[-1]))
    numbers = sorted({most, *(number for number in _NUMBERS if number < most)})
    seconds = {number: seconds_on_average(stage, number) for number in numbers}
    best = min(seconds.values())
    if best > seconds[1] * _PAYS:
        return 1
    return next(number for number in numbers if seconds[number] * _ALIKE <= best)
