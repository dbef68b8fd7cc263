"""The one file of a hub model that vbisect itself reads: its configuration."""

from __future__ import annotations

import json
import os
import time

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

_HUB = "https://huggingface.co"
_LARGEST_CONFIG = 4 << 20
"""Bytes; most have a few thousand, the largest list every layer of a quantized model."""


def hub_config(model: str, timeout: float = 30) -> dict[str, object]:
    """``config.json`` of a Hugging Face model (``HF_ENDPOINT`` and ``HF_TOKEN`` are honoured).

    ``timeout`` in seconds. Raises ``UsageError`` when it cannot be had or is none, ``HostError``
    for proxy or certificate settings that cannot be used.
    """
    endpoint = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")
    token = os.environ.get("HF_TOKEN")
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
    return config


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
