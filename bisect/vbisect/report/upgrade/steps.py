"""What else changes on the way from one release to another, of what a run used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from packaging.version import Version

from vbisect.releases import CatalogueEntry, Device, catalogue
from vbisect.releases.changes import Changes, Setting, changes
from vbisect.releases.cuda import driver_of
from vbisect.report.upgrade.used import used_arguments, used_variables
from vbisect.run.state import RunState

_MOST_CHOICES = 16384
"""VLLM_MAX_N_SEQUENCES: https://github.com/vllm-project/vllm/releases/tag/v0.19.0"""

_ENGINES = {"0.0": "V0", "0.8.0": "V1, V0 for some flags and hardware", "0.11.0": "V1"}
"""The default engine from each release on:
https://github.com/vllm-project/vllm/releases/tag/v0.8.0 and …/v0.11.0"""


class StepKind(StrEnum):
    """What a step is about."""

    ENGINE = "engine"
    PLATFORM = "platform"
    ARGUMENT = "argument"
    VARIABLE = "environment variable"
    REQUEST = "request"


@dataclass(frozen=True)
class Step:
    """Something that is different from release ``since`` on; ``source`` is an address.

    ``beyond`` when it only comes after the recommended release, on the way to the newest.
    """

    kind: StepKind
    name: str
    since: str
    text: str
    source: str | None = None
    beyond: bool = False


def steps_between(state: RunState, low: str, recommended: str, newest: str) -> tuple[Step, ...]:
    """The steps after ``low`` up to ``recommended``, then those beyond it up to ``newest``."""
    way = _steps(state, Stretch(low, recommended))
    beyond = _steps(state, Stretch(recommended, newest))
    return (*way, *(replace(step, beyond=True) for step in beyond))


@dataclass(frozen=True)
class Stretch:
    """The way from release ``low``, which one is on, to ``until``."""

    low: str
    until: str

    def crosses(self, since: str) -> bool:
        """Whether what holds from ``since`` on is new on the way."""
        return Version(self.low) < Version(since) <= Version(self.until)


def _steps(state: RunState, stretch: Stretch) -> Iterator[Step]:
    yield from _engine(state, stretch)
    yield from _platform(state, stretch)
    yield from _settings(state, stretch)
    yield from _requests(state, stretch)


def not_looked_up(low: str, until: str) -> str | None:
    """Which part of the way is outside the releases whose arguments vbisect knows."""
    first, last = changes().read[0], changes().read[-1]
    if Version(first) <= Version(low) and Version(until) <= Version(last):
        return None
    return f"Arguments and variables are known for {first} to {last}; for others nothing is said."


def _engine(state: RunState, stretch: Stretch) -> Iterator[Step]:
    """Which engine ran, where both logs tell; else which one is the default."""
    ran = [state.records[v].engine for v in (stretch.low, stretch.until) if v in state.records]
    if len(ran) == 2 and all(ran):
        if ran[0] != ran[1]:
            told = f"{ran[0]} ran in {stretch.low}, {ran[1]} in {stretch.until}"
            yield Step(StepKind.ENGINE, "engine", stretch.until, told)
        return
    for (_, before), (since, after) in pairwise(_ENGINES.items()):
        if stretch.crosses(since):
            told = f"{before} → {after}"
            yield Step(StepKind.ENGINE, "engine", since, told, release_notes(since))


def _platform(state: RunState, stretch: Stretch) -> Iterator[Step]:
    """CUDA, driver, torch and Python, each with all its changes on the way in one step."""
    low, until = Version(stretch.low), Version(stretch.until)
    entries = [e for e in catalogue().values() if low <= Version(e.version) <= until]
    usual_cuda = _has_the_usual_cuda(state, [entry.version for entry in entries])
    for name, value in _VALUES.items():
        if name in _CUDA_ONLY and not usual_cuda:
            continue
        told, since = "", ""
        for before, after in pairwise(entries):
            if value(before) != value(after):
                told = told or value(before)
                told += f" → {value(after)} ({after.version})"
                since = after.version
        if told:
            yield Step(StepKind.PLATFORM, name, since, told)


def _has_the_usual_cuda(state: RunState, versions: list[str]) -> bool:
    """Whether each release came with the CUDA that it has by default.

    An image's variant has one CUDA for all, and what is in an image of the user's own is not known.
    """
    docker = state.settings.docker
    if docker is not None and (
        any(map(docker.variant_of, versions)) or not docker.images.keys().isdisjoint(versions)
    ):
        return False
    return state.settings.device is Device.CUDA


_VALUES: dict[str, Callable[[CatalogueEntry], str]] = {
    "CUDA": lambda entry: entry.cuda,
    "GPU driver, as CUDA's": lambda entry: driver_of(entry.cuda),
    "torch": lambda entry: entry.torch,
    "Python": lambda entry: entry.requires_python,
}
_CUDA_ONLY = ("CUDA", "GPU driver, as CUDA's")


def _settings(state: RunState, stretch: Stretch) -> Iterator[Step]:
    known = changes()
    arguments = used_arguments(state.settings, known)
    for name, limited in arguments.items():
        told = _history(known.arguments.get(name), known.read, limited)
        yield from _of_setting(StepKind.ARGUMENT, name, told, known, stretch)
    for name, limited in used_variables(state.settings).items():
        told = _history(known.variables.get(name), known.read, limited)
        yield from _of_setting(StepKind.VARIABLE, name, told, known, stretch)


def _of_setting(
    kind: StepKind, name: str, told: dict[str, str], known: Changes, stretch: Stretch
) -> Iterator[Step]:
    """What happened to a setting on the way, with the notes there are."""
    notes = {note.since: note for note in known.notes.get(name, ())}
    for since in sorted({*told, *notes}, key=Version):
        if stretch.crosses(since):
            note = notes.get(since)
            texts = [told.get(since, ""), note.text if note else ""]
            source = note.source if note else release_notes(since)
            yield Step(kind, name, since, " ".join(filter(None, texts)), source)


def _history(setting: Setting | None, read: tuple[str, ...], limited: bool) -> dict[str, str]:
    """What happened to a setting, by the release from which on it holds."""
    told: dict[str, str] = {}
    if setting is None:
        return told
    by_itself = " The run limited it to some versions." if limited else ""
    for first, last in setting.spans:
        if first != read[0]:
            told[first] = f"Known from here on, not to older releases.{by_itself}"
        if last is not None:
            gone = read[read.index(last) + 1]
            told[gone] = f"Gone: no longer known.{by_itself}"
    values = list(setting.defaults.items())
    for (_, old), (since, new) in pairwise(values):
        told.setdefault(since, f"Its default changed from {old} to {new}; the run sets it.")
    return told


def _requests(state: RunState, stretch: Stretch) -> Iterator[Step]:
    asked, since = state.settings.n_choices, "0.19.0"
    if asked is not None and max(asked.n) > _MOST_CHOICES and stretch.crosses(since):
        text = f"More than {_MOST_CHOICES} choices are refused."
        yield Step(StepKind.REQUEST, "n", since, text, release_notes(since))


def release_notes(version: str) -> str:
    """Where vLLM tells what is new in a release."""
    return f"https://github.com/vllm-project/vllm/releases/tag/v{version}"
