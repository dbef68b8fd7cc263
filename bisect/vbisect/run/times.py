"""How long fetching, booting and asking take on this host, learnt from trials that took place.

Where nothing is known yet, a boot is reckoned with 150 s (vLLM with a 7B model on a GPU), a request
with 2 s, and a fetch with what ``USUAL_FETCH`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean, median

from vbisect.releases import Device, Release
from vbisect.run.earlier import earlier_runs
from vbisect.run.records import Seconds, TrialRecord
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState
from vbisect.search import Costs

USUAL_BOOT = 150.0
USUAL_REQUEST = 2.0
USUAL_FETCH = {
    ("docker", Device.CUDA): 480.0,
    ("docker", Device.CPU): 90.0,
    ("venv", Device.CUDA): 180.0,
    ("venv", Device.CPU): 60.0,
}
"""Seconds, by runtime and device.

CUDA images are 9–12 GB to download and unpack to three times that; those for a CPU leave out CUDA
and its libraries and are about a fifth. Wheels come without an operating system, are installed
without a second unpacking, and share with other releases the packages that are the same.
"""

_USUAL_FETCH_ELSE = 180.0

_ENOUGH = 9
"""Measurements that a median is taken of, as long as this run has fewer of its own."""

_MOST_RUNS = 20
"""How many runs alike are read; over more of them, a host changes."""

_REALLY_FETCHED = 1.0
"""Seconds; a build that was there takes less, where it was not recorded whether it was."""

_NEGLIGIBLE = 5.0
"""Seconds; a shorter fetch is not worth another order of trials."""

_LEAST = 0.001
"""Seconds; what takes no time at all cannot be weighed against other things."""


@dataclass(frozen=True)
class Spent:
    """What one trial took, in seconds; ``None`` for what it did not come to."""

    fetch: float | None = None
    boot: float | None = None
    request: float | None = None


@dataclass(frozen=True)
class Times:
    """What one of each usually takes, in seconds, and the earlier runs' part in knowing it."""

    fetch: float
    boot: float
    request: float
    earlier: tuple[Spent, ...] = ()

    def costs(self, candidates: Sequence[Release], arrived: Mapping[str, float]) -> Costs:
        """What testing each of ``candidates`` costs.

        ``arrived`` is the share, in [0, 1], of their builds that is on the host; not named is 0.
        Where a fetch takes no time to speak of, none is counted.
        """
        if self.fetch < _NEGLIGIBLE:
            return Costs(fetch=[0.0] * len(candidates), boot=self.boot, request=self.request)
        fetch = [self.fetch * (1 - arrived.get(r.version, 0.0)) for r in candidates]
        return Costs(fetch=fetch, boot=self.boot, request=self.request)

    def after(self, state: RunState) -> Times:
        """The same with this run's trials as they are in ``state`` by now; reads no file."""
        return _times(self.earlier, state)


def learn(results: Path, settings: RunSettings, state: RunState) -> Times:
    """What testing takes here, by this run's trials and by earlier ones below ``results``.

    Those count that had the same host, runtime, device and model. Each time is a median: of this
    run's own trials once there are nine, filled up with the latest of earlier runs before. Runs
    that are damaged or still at work are left out; nothing is raised about them.
    """
    return _times(tuple(_earlier(results, settings)), state)


def _earlier(results: Path, settings: RunSettings) -> Iterable[Spent]:
    """The latest trials of other runs alike, no more than are of use."""
    alike = (
        run
        for run in earlier_runs(results)
        if run.settings is not None
        and run.settings.run_id != settings.run_id
        and run.settings.host == settings.host is not None
        and _kind(run.settings) == _kind(settings)
    )
    had = {"fetch": 0, "boot": 0, "request": 0}
    for run in islice(alike, _MOST_RUNS):
        for trial in reversed(run.trials):
            spent = _spent(trial.record)
            for what in had:
                had[what] += getattr(spent, what) is not None
            yield spent
        if min(had.values()) >= _ENOUGH:
            return


def _kind(settings: RunSettings) -> tuple[object, ...]:
    """What times are only comparable within."""
    return (
        *(settings.runtime, settings.device, settings.model, settings.control_model),
        _requests_at_once(settings),
    )


def _requests_at_once(settings: RunSettings) -> int:
    """Requests in one observation: one for each n, or for each variation of a suite."""
    if settings.suite is not None:
        return len(settings.suite.variations)
    return len(settings.n_choices.n) if settings.n_choices and not settings.command else 1


def _times(earlier: tuple[Spent, ...], state: RunState) -> Times:
    own = [_spent(record) for record in state.records.values()]
    settings = state.settings
    return Times(
        fetch=_usual(
            [spent.fetch for spent in own],
            [spent.fetch for spent in earlier],
            USUAL_FETCH.get((settings.runtime, settings.device), _USUAL_FETCH_ELSE),
            mean,  # some builds are waited for in full, others have come meanwhile
        ),
        boot=_usual(
            [spent.boot for spent in own],
            [spent.boot for spent in earlier],
            USUAL_BOOT * (2 if settings.control_model else 1),
        ),
        request=_usual(
            [spent.request for spent in own],
            [spent.request for spent in earlier],
            USUAL_REQUEST * _requests_at_once(settings),
        ),
        earlier=earlier,
    )


def _usual(
    own: Iterable[float | None],
    earlier: Iterable[float | None],
    otherwise: float,
    middle: Callable[[Sequence[float]], float] = median,
) -> float:
    """The middle of this run's measurements, filled up with earlier ones, the latest first."""
    known = [seconds for seconds in own if seconds is not None]
    fill = (seconds for seconds in earlier if seconds is not None)
    known += islice(fill, max(0, _ENOUGH - len(known)))
    return max(_LEAST, middle(known)) if known else otherwise


def _spent(record: TrialRecord) -> Spent:
    """What a trial took; one that another run carried out took nothing here.

    The first request to a server can take as long as a boot, so what probing took beyond the usual
    length of an observation counts as part of the boot: without that, requests would look dear.
    """
    if record.earlier_run is not None:
        return Spent()
    seconds, asked = record.seconds, record.observations.total
    there = record.was_there
    if there is None:
        there = seconds.fetch <= _REALLY_FETCHED
    fetch = seconds.fetch if record.build is not None and not there else None
    if not asked or not seconds.boot:
        return Spent(fetch=fetch)
    length = record.measured.get("observation_median", record.measured.get("latency_median"))
    request = length if isinstance(length, float) else seconds.probe / asked
    first = max(0.0, seconds.probe - asked * request)
    boots = sum(1 for boot in record.boots if boot.total) or 1
    # the control is booted and asked in the same trial, so a trial takes that much longer
    control = record.control.seconds if record.control else Seconds()
    boot = (seconds.boot + first) / boots + control.boot + control.probe
    return Spent(fetch=fetch, boot=boot, request=request)
