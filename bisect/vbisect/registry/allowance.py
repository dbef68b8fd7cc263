"""How many pulls a registry still allows, as it says with each answer about an image."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vbisect.registry.answer import Answer

_COUNT = re.compile(r"([0-9]{1,9})(?:;w=([0-9]{1,9}))?")


@dataclass(frozen=True)
class Allowance:
    """``left`` of ``limit`` pulls within ``seconds``, where the registry tells these two."""

    left: int
    limit: int | None = None
    seconds: int | None = None

    def __str__(self) -> str:
        """``76 of 100 pulls in 6 h left``."""
        whole = f" of {self.limit}" if self.limit is not None else ""
        window = f" in {self.seconds / 3600:.2g} h" if self.seconds else ""
        return f"{self.left}{whole} pulls{window} left"


def allowance_in(answer: Answer) -> Allowance | None:
    """What the headers of an answer tell, ``None`` where that is nothing.

    Docker Hub sends ``ratelimit-limit: 100;w=21600`` and ``ratelimit-remaining: 76;w=21600``, also
    with the answer to a HEAD, which it does not count
    (https://docs.docker.com/docker-hub/usage/pulls/).
    """
    left = _COUNT.fullmatch(answer.headers.get("ratelimit-remaining", "").strip())
    if left is None:
        return None
    limit = _COUNT.fullmatch(answer.headers.get("ratelimit-limit", "").strip())
    window = left[2] or (limit and limit[2])
    return Allowance(
        left=int(left[1]),
        limit=int(limit[1]) if limit else None,
        seconds=int(window) if window else None,
    )
