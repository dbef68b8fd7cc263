"""How many bytes may be fetched that no trial may come to need; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

MOST_IN_VAIN = 0.5
"""Of what is of use, the share of bytes that a run may fetch beside it for nothing."""

Build = TypeVar("Build")


def pays(
    build: Build,
    *,
    wanted: Sequence[Build],
    of_use: int,
    used: Collection[Build],
    begun: Collection[Build],
    come: Mapping[Build, int],
    sizes: Mapping[Build, int],
) -> bool:
    """Whether ``build`` may be fetched ahead without more than ``MOST_IN_VAIN`` coming of it all.

    The first ``of_use`` of what is ``wanted`` are sure to be used, of those that are ``used`` it is
    known. Those ``begun`` are on their way or there, ``come`` is what has come of each in this run,
    ``sizes`` what a whole one is taken for, in bytes.
    """
    sure = {*used, *wanted[:of_use]}
    if build in sure:
        return True
    ahead = {build, *(each for each in wanted if each in begun and each not in sure)}
    others = sum(size for each, size in come.items() if each not in sure | ahead)
    at_stake = others + sum(sizes[each] for each in ahead if each in sizes)
    useful = sum(size for each, size in sizes.items() if each in sure)
    return at_stake <= MOST_IN_VAIN * useful
