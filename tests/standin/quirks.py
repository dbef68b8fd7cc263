"""What a stand-in release does with single kinds of requests, whatever it does with all others."""

from __future__ import annotations

import json
from typing import Any

QUIRKS = ("500", "400", "crash", "answered", "fewer", "bare")


def kinds(raw: bytes) -> set[str]:
    """The kinds that a request is of: "stream", "seed", "logprobs", "greedy" and "n=8", say."""
    try:
        body = json.loads(raw)
        asked: dict[str, Any] = body | (body.get("sampling_params") or {})
    except (ValueError, TypeError):
        return set()
    found = {name for name in ("stream", "seed", "logprobs") if asked.get(name)}
    if asked.get("temperature") == 0 and asked.get("n") != 1:
        found.add("greedy")
    return found or {f"n={asked.get('n')}"}


def harmless(raw: bytes) -> bytes:
    """The request with values that are never refused."""
    body = json.loads(raw)
    asked = body.get("sampling_params", body)
    asked |= {"n": 1, "temperature": 0.7}
    return json.dumps(body).encode()
