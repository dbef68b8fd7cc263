"""What a booting server wants of the hub, and what it dies with where it does not get it."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path


def refusal(model: str) -> str:
    """The last words of a server whose model is not to be had; empty where it is."""
    if Path(model).is_dir():
        return ""
    endpoint = os.environ.get("HF_ENDPOINT", "http://127.0.0.1:9").rstrip("/")
    address = f"{endpoint}/{model}/resolve/main/config.json"
    token = os.environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    asked = urllib.request.Request(address, headers=headers, method="HEAD")
    try:
        urllib.request.urlopen(asked, timeout=10).close()
    except urllib.error.HTTPError as error:
        return _told(model, address, error)
    except OSError:
        home = Path(os.environ.get("HF_HOME", "/nowhere"))
        if any(home.glob(f"hub/models--{model.replace('/', '--')}/snapshots/*/config.json")):
            return ""
        return (
            f"OSError: We couldn't connect to '{endpoint}' to load the files, and couldn't find "
            "them in the cached files."
        )
    return ""


def _told(model: str, address: str, error: urllib.error.HTTPError) -> str:
    code = error.headers.get("X-Error-Code")
    if code in ("EntryNotFound", "RevisionNotFound"):
        return ""
    if code == "GatedRepo":
        return f"huggingface_hub.errors.GatedRepoError: {error.code} Client Error."
    if code == "RepoNotFound":
        return (
            f"OSError: {model} is not a local folder and is not a valid model identifier listed on "
            "'https://huggingface.co/models'"
        )
    kind = "Client" if error.code < 500 else "Server"
    return f"huggingface_hub.errors.HfHubHTTPError: {error.code} {kind} Error: for url: {address}"
