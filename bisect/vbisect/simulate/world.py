"""A declared world: what every candidate would come to if it were tested, and what testing costs.

Candidates are indices, oldest first. In a world without a change the bug is in none of them, so
that each fails at ``false_fail_rate``.
"""

from __future__ import annotations

import json
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vbisect.errors import UsageError
from vbisect.search import Change

_LARGEST = 16 * 2**20
"""Bytes; a million candidates on disk, named one by one, have half of it."""

Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
"""At most 30 years: a clock that has gone too far no longer counts seconds."""

Rate = Annotated[float, Field(ge=0, le=1)]


class Declared(BaseModel):
    """Read as written: no unknown key, no text where a number belongs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DeclaredChange(Declared):
    """A change; ``at`` is the index of the first candidate after it.

    At each index of ``again`` it is undone or comes back, in turn.
    """

    kind: Change
    at: int
    again: tuple[int, ...] = ()


class World(Declared):
    """What is true, and what it costs to find out.

    ``fail_rate`` is per request on the failing side of the change, falling linearly to
    ``rate_at_change`` there, and ``false_fail_rate`` on the passing side. Per boot: ``sticky`` is
    the share of a bad release's boots that show the bug, ``false_sticky`` that of a good release's
    boots which fail throughout; ``crash_rate`` of all boots die at their first request, and
    ``skip_rate`` cannot be tested by chance. ``other_rate`` is that of unrelated failures per
    request. ``confidence`` is what an answer needs. ``untestable`` are stretches of indices, first
    and last included; ``cached`` are the indices whose build is on disk; ``jobs`` is how many
    servers fit at once. ``fetch_s``,
    ``boot_s`` and ``request_s`` are in seconds.
    """

    candidates: int = Field(ge=2, le=1_000_000)
    change: DeclaredChange | None
    fail_rate: Rate = 1.0
    false_fail_rate: Rate = 0.0
    untestable: tuple[tuple[int, int], ...] = ()
    cached: tuple[int, ...] = ()
    fetch_s: Seconds = 480
    boot_s: Seconds = 150
    request_s: Seconds = 2
    jobs: int = Field(1, ge=1, le=1000)
    seed: int = 7
    sticky: Rate = 1.0
    false_sticky: Rate = 0.0
    other_rate: Rate = 0.0
    crash_rate: Rate = 0.0
    skip_rate: Rate = 0.0
    rate_at_change: Rate | None = None
    confidence: float = Field(0.95, ge=0.5, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        newest = self.candidates - 1
        if self.change is not None:
            if not 1 <= self.change.at <= newest:
                raise ValueError(
                    f"change.at is {self.change.at}, and the first candidate after the change is "
                    f"one of 1 to {newest}"
                )
            for before, after in pairwise((self.change.at, *self.change.again)):
                if not before < after <= newest:
                    raise ValueError(f"change.again {after} is not one of {before + 1} to {newest}")
            rates = {"fail_rate": self.fail_rate, "rate_at_change": self.rate_at_change}
            for name, rate in rates.items():
                if rate is not None and self.false_fail_rate >= rate:
                    raise ValueError(
                        f"false_fail_rate {self.false_fail_rate:g} is not below {name} {rate:g}, "
                        "so that nothing changes"
                    )
            if self.false_sticky >= self.sticky:
                raise ValueError(
                    f"false_sticky {self.false_sticky:g} is not below sticky {self.sticky:g}, so "
                    "that nothing changes"
                )
        for first, last in self.untestable:
            if not 0 <= first <= last <= newest:
                raise ValueError(
                    f"untestable [{first}, {last}] is not a first and a last index out of "
                    f"0 to {newest}"
                )
        for index in self.cached:
            if not 0 <= index <= newest:
                raise ValueError(f"cached {index} is not an index out of 0 to {newest}")
        return self

    @cached_property
    def skipped(self) -> frozenset[int]:
        """The indices that cannot be tested."""
        return frozenset(i for first, last in self.untestable for i in range(first, last + 1))

    @cached_property
    def visible_changes(self) -> tuple[DeclaredChange, ...]:
        """The changes as far as testing can show them, each without ``again``, oldest first.

        Those with a testable release on each side. An answer is held against them, since "no change
        in range" speaks of testable releases.
        """
        if self.change is None:
            return ()
        kinds = (self.change.kind, *(kind for kind in Change if kind is not self.change.kind))
        edges = (0, *self._places, self.candidates)
        testable = [
            any(index not in self.skipped for index in range(first, beyond))
            for first, beyond in pairwise(edges)
        ]
        return tuple(
            DeclaredChange(kind=kinds[number % 2], at=at)
            for number, at in enumerate(self._places)
            if testable[number] and testable[number + 1]
        )

    @property
    def _places(self) -> tuple[int, ...]:
        return (self.change.at, *self.change.again) if self.change else ()

    def is_bad(self, index: int) -> bool:
        """Whether candidate ``index`` has the bug."""
        if self.change is None:
            return False
        as_at_first = sum(at <= index for at in self._places) % 2 == 0
        return as_at_first == (self.change.kind is Change.FIX)

    def failure_rate(self, index: int) -> float:
        """The chance that a request to candidate ``index`` fails, in a boot that shows the bug."""
        if not self.is_bad(index):
            return self.false_fail_rate
        if self.rate_at_change is None:
            return self.fail_rate
        edges = (0, *self._places, self.candidates)
        first, beyond = next((a, b) for a, b in pairwise(edges) if a <= index < b)
        to_changes = [index - first] * (first > 0) + [beyond - 1 - index] * (
            beyond < self.candidates
        )
        far = (beyond - first - 1) / len(to_changes)
        share = min(to_changes) / far if far else 0.0
        return self.rate_at_change + (self.fail_rate - self.rate_at_change) * min(share, 1.0)

    def crashes(self, index: int) -> float:
        """The chance that a boot of candidate ``index`` dies at its first request."""
        return self.crash_rate


class _KeyTwice(Exception):
    """Two keys of one object are the same, so that one of the values would count for nothing."""


def read_world(path: Path) -> World:
    """Read a world from a JSON file; raises ``UsageError`` with what is wrong with it."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise UsageError(f"{path} is not a world: it has more than {_LARGEST // 2**20} MiB.")
        world = World.model_validate_json(text)
        json.loads(text, object_pairs_hook=_unlike)
        return world
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except _KeyTwice as error:
        raise UsageError(f"{path} is not a world: the key {str(error)!r} is there twice.") from None
    except ValidationError as error:
        raise UsageError(f"{path} is not a world: {_first_fault(error)}.") from None


def _unlike(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON as it is; raises ``_KeyTwice`` for two keys of it that are the same."""
    known: dict[str, object] = {}
    for key, value in pairs:
        if key in known:
            raise _KeyTwice(key)
        known[key] = value
    return known


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where!r}: there is no such key"
    if first["type"] == "missing":
        return f"{where} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
