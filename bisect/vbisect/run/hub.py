"""The one file of a hub model that vbisect itself reads: its configuration."""

from __future__ import annotations

import os

import httpx

from vbisect.errors import UsageError
from vbisect.text import one_line

_HUB = "https://huggingface.co"


def hub_config(model: str, timeout: float = 30) -> dict[str, object]:
    """``config.json`` of a Hugging Face model (``HF_ENDPOINT`` and ``HF_TOKEN`` are honoured).

    ``timeout`` in seconds. Raises ``UsageError`` when it cannot be had or is none.
    """
    endpoint = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")
    token = os.environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        response = httpx.get(
            f"{endpoint}/{model}/resolve/main/config.json",
            headers=headers,
            follow_redirects=True,
            timeout=timeout,
        )
        config = response.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise UsageError(
            f"--skeleton needs config.json of {model}, which cannot be had: {one_line(str(error))}"
        ) from None
    if not isinstance(config, dict):
        raise UsageError(f"--skeleton: config.json of {model} is not a model's configuration.")
    return config
