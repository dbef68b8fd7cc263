"""Try the recipes of a device in order, and see only what existed on a release's day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from vbisect.builds.recipes import Recipe, recipes_for
from vbisect.builds.uv import UvResult, failure
from vbisect.reasons import SkipReason, Untestable
from vbisect.releases import Device, Wheel

T = TypeVar("T")

_out_of_reach: set[str] = set()
"""Recipes whose index did not answer once, all retries included; later it is asked just once."""


def first_that_resolves(
    device: Device, attempt: Callable[[Recipe, bool], tuple[UvResult, T]]
) -> tuple[Recipe, T]:
    """The first recipe with which ``attempt`` succeeds, and what that gave.

    ``attempt`` takes a recipe and whether to ask an index again that does not answer. Raises
    ``Untestable`` with every recipe's reason, ``HostError`` when no index answers or the disk is
    full.
    """
    reasons: list[str] = []
    for recipe in recipes_for(device):
        result, found = attempt(recipe, recipe.name not in _out_of_reach)
        if result.network_failed:
            _out_of_reach.add(recipe.name)
        if not result.returncode:
            return recipe, found
        if result.disk_full or (result.network_failed and not reasons):
            raise failure(result, recipe.where)
        where = f"{recipe.where} could not be reached" if result.network_failed else recipe.where
        reasons.append(f"{where}: {result.reason}")
    raise Untestable(SkipReason.NOT_INSTALLABLE, reasons[0], tuple(reasons[1:]))


def notes_on(recipe: Recipe, *, dated: bool, latest_deps: bool) -> tuple[str, ...]:
    """What has to be known of an installation by ``recipe``; ``dated`` if the wheel's day is."""
    notes = []
    if not dated and not latest_deps:
        notes.append("The index gives no upload date: today's dependencies were taken.")
    if recipe.excludes:
        notes.append(f"Not installed: {', '.join(recipe.excludes)}.")
    return tuple(notes)


def never_built(wheel: Wheel) -> list[str]:
    """uv's options to take vLLM as a wheel or not at all.

    Its source distribution is on the index too, and has a wheel been made for other machines only,
    uv would build it: for hours, where it succeeds at all.
    """
    return ["--only-binary", wheel.distribution]


def as_of(wheel: Wheel, uploaded: datetime, released: datetime | None) -> list[str]:
    """uv's options to see only what existed on a release's day (old wheels pin too little).

    A rebuilt wheel came later than its release (the CPU wheels of 0.8.5 seven months later, when
    the dependencies of that day no longer suited it), so the wheel itself has a limit of its own.
    """
    moment = min(uploaded, released or uploaded)
    return until(moment, wheel.distribution, just_after(uploaded))


def until(moment: datetime, distribution: str, own: str) -> list[str]:
    """uv's options for everything up to ``moment``, but for ``distribution`` up to ``own``."""
    package = f"{distribution}={own}"
    return ["--exclude-newer", just_after(moment), "--exclude-newer-package", package]


def just_after(moment: datetime) -> str:
    """``moment`` for uv, one second on, since uv leaves out what came at the limit itself."""
    return (moment + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
