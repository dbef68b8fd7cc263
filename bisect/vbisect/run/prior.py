"""How likely the change came with each release, before anything was tested."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import fmean

from vbisect.releases.commits import commits_between

_BY_COMMITS = 0.5
"""Part of the weight that goes by commits; the other part is the same for every release."""


@cache
def prior_weights(versions: tuple[str, ...], hint: str | None = None) -> tuple[float, ...]:
    """The weight of each of ``versions``, oldest first, on average about 1.

    Half of it is the same for all and half goes by the number of commits. One that was hinted at is
    as likely to be the one as all others together. Weights shift what is tested first; an answer
    and its confidence never rest on them.
    """
    weights = _by_size(versions)
    if hint is None:
        return weights
    others = sum(w for v, w in zip(versions[1:], weights[1:], strict=True) if v != hint)
    return tuple(others if v == hint else w for v, w in zip(versions, weights, strict=True))


def _by_size(versions: Sequence[str]) -> tuple[float, ...]:
    """Of the oldest nothing is asked: the change came after it."""
    commits = commits_between(versions)
    usual = fmean(commits[1:]) if len(commits) > 1 else 1.0
    return tuple(1 - _BY_COMMITS + _BY_COMMITS * number / usual for number in commits)
