"""What vbisect itself reads of a hub: the configuration of a model, and the token for it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from vbisect.connections import (
    TooLarge,
    TooLate,
    closed_after,
    fault_of,
    following,
    new_client,
    read_whole,
)
from vbisect.errors import UsageError
from vbisect.hour_cache import keep, recall
from vbisect.launch.hub_cache import folder_of, hub_cache, hub_home, whole

HUB = "https://huggingface.co"
_LONGEST_TOKEN = 1000
_LARGEST_CONFIG = 4 << 20
"""Bytes; most have a few thousand, the largest list every layer of a quantized model."""


def hub_config(model: str, timeout: float = 30) -> dict[str, object]:
    """``config.json`` of a Hugging Face model, of its cache or as its client would ask for it.

    A hub's answer holds for an hour. ``timeout`` in seconds. Raises ``UsageError`` when it cannot
    be had or is none, ``HostError`` for proxy or certificate settings that cannot be used.
    """
    if (cached := _cached_config(model)) is not None:
        return cached
    endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    token = hub_token(os.environ)
    question = ("configuration", endpoint, model, token)
    if isinstance(known := recall(question), dict):
        return known
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with (
            new_client(direct=False, connect=timeout, read=timeout) as client,
            closed_after(client, 2 * timeout),
        ):
            address = f"{endpoint}/{model}/resolve/main/config.json"
            request = client.build_request("GET", address, headers=headers)
            with following(client, request) as response:
                response.raise_for_status()
                config = json.loads(
                    read_whole(response, _LARGEST_CONFIG, time.monotonic() + timeout)
                )
    except (TooLarge, TooLate, httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as e:
        raise UsageError(
            f"--skeleton needs config.json of {model}, which cannot be had: {_told(e, timeout)}"
        ) from None
    if not isinstance(config, dict):
        raise UsageError(f"--skeleton: config.json of {model} is not a model's configuration.")
    keep(question, config)
    return config


def hub_token(environment: Mapping[str, str]) -> str:
    """The token that huggingface_hub sends: of the environment, else that of ``hf auth login``.

    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := environment.get(name, "").strip():
            return token
    home = str(Path.home())
    named = environment.get("HF_TOKEN_PATH")
    found = whole(named, environment, home) if named else hub_home(environment, home) / "token"
    try:
        with Path(found).open(encoding="utf-8") as file:
            return file.read(_LONGEST_TOKEN).strip()
    except (OSError, ValueError):
        return ""


def _cached_config(model: str) -> dict[str, object] | None:
    """What the hub's cache has as the configuration of a model: an offline server has no other."""
    folder = folder_of(model, Path(hub_cache(os.environ, str(Path.home()))))
    try:
        commit = (folder / "refs" / "main").read_text(encoding="ascii").strip()
        with (folder / "snapshots" / commit / "config.json").open("rb") as file:
            config = json.loads(file.read(_LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def _told(error: Exception, timeout: float) -> str:
    """What is wrong, without what was sent, which httpx quotes."""
    if isinstance(error, TooLarge):
        return f"it has more than {_LARGEST_CONFIG >> 20} MiB."
    if isinstance(error, TooLate):
        return f"it did not come within {timeout:g} s."
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code}."
    if isinstance(error, httpx.HTTPError):
        return f"{fault_of(error, timeout, timeout)}."
    if isinstance(error, (httpx.InvalidURL, UnicodeEncodeError)):
        return "HF_ENDPOINT or HF_TOKEN holds something that cannot be sent."
    return "it is not JSON."
