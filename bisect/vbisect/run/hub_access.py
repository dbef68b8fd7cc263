"""Whether the hub lets a run have its models, asked before anything is fetched or installed.

One HEAD request for a model's ``config.json``, read as huggingface_hub does: why it refuses is in
``X-Error-Code``
(https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/utils/_http.py,
``hf_raise_for_status``). It is not asked where servers would not ask, or ask somebody else: for a
model that is a folder or in the hub's cache, offline, with ModelScope, or where ``--env`` decides
for some versions only, or on the way there; nor again within an hour of a yes. What servers may not
meet – a mirror's own answers, another network than that of containers, an engine elsewhere with its
own cache and token – is told and stops nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from vbisect.connections import (
    TooLate,
    can_be_token,
    closed_after,
    fault_of,
    following,
    is_momentary,
    new_client,
)
from vbisect.engine.address import engine_address
from vbisect.errors import HostError
from vbisect.hour_cache import keep, recall
from vbisect.launch import effective_environment
from vbisect.launch.hub_cache import folder_of, hub_cache
from vbisect.run.hub import HUB, hub_token
from vbisect.run.settings import RunSettings

_SECONDS = 10.0
_TRIES = 2

_THE_HUBS = re.compile(
    r"HF_\w+|HUGGING_?FACE\w*|TRANSFORMERS_\w+|XDG_CACHE_HOME|VLLM_USE_MODELSCOPE"
)
_THE_WAY = re.compile(r"(?:https?|all|no)_proxy|SSL_CERT_\w+|\w+_CA_BUNDLE", re.IGNORECASE)
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_USE_MODELSCOPE")
_OFF = ("", "0", "no", "off", "false")

_THERE = ("EntryNotFound", "RevisionNotFound")
"""Codes that speak of a part of a model that is there: some have another file for config.json."""


def see_to_access(settings: RunSettings, *, begins: bool) -> RunSettings:
    """``settings``, with notes of what there is to say of the way to their models.

    The run ``begins``, or is only planned. Raises ``HostError`` for a model that the hub
    refuses, and where the servers of a run that begins could not reach it.
    """
    environment = _environment(settings)
    if environment is None:
        return settings
    remote = settings.docker is not None and engine_address(settings.docker.host).remote
    notes = []
    for option, model in (
        ("--model", settings.model_path),
        ("--control-model", settings.control_path),
    ):
        if model is None or model.startswith(("/", "~")) or _is_cached(model, environment):
            continue
        try:
            refused, told = _ask(model, environment)
        except _Unreachable as error:
            told = f"{option} {model}: {error} Check the network, HF_ENDPOINT and the proxies."
            if begins and settings.docker is None:
                raise HostError(told) from None
            notes.append(told)
            continue
        if told and refused and not remote:
            raise HostError(f"{option} {model}: {told}")
        if told:
            notes.append(f"{option} {model}: {told}")
    return settings.model_copy(update={"notes": (*settings.notes, *notes)})


class _Unreachable(Exception):
    """Nothing answers for the hub; the message says so in a sentence."""


@dataclass(frozen=True)
class _Answer:
    status: int
    code: str
    message: str


def _environment(settings: RunSettings) -> Mapping[str, str] | None:
    """The variables of the run's servers; ``None`` where there is nobody to ask by them."""
    for variable in settings.env:
        name = variable.text.partition("=")[0]
        if _THE_WAY.fullmatch(name) or (variable.specifier and _THE_HUBS.fullmatch(name)):
            return None
    unlimited = [variable for variable in settings.env if not variable.specifier]
    given = effective_environment(unlimited, settings.versions[0])
    environment = {**os.environ, **given}
    if any(environment.get(name, "").strip().lower() not in _OFF for name in _OFFLINE):
        return None
    return environment


def _ask(model: str, environment: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the hub refuses the model for good, and what there is to say of it, if anything."""
    endpoint = (environment.get("HF_ENDPOINT") or HUB).rstrip("/")
    token = hub_token(environment)
    if token and not can_be_token(token):
        return False, ""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    question = ("hub access", endpoint, model, token)
    if recall(question) is not None:
        return False, ""
    try:
        host = urlsplit(endpoint).hostname or endpoint
        answer = _head(f"{endpoint}/{model}/resolve/main/config.json", headers, host)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
        return False, "HF_ENDPOINT is no address, so that the hub was not asked for it."
    if answer.status < 400 or answer.code in _THERE:
        keep(question, True)
        return False, ""
    if answer.code == "GatedRepo":
        lacking = "your token has no access to it" if token else "no HF_TOKEN is set"
        return True, (
            f"it is gated at {host}, and {lacking}. Ask for access on its page there and set "
            "HF_TOKEN."
        )
    if answer.code == "RepoNotFound":
        lacking = "your token does not see it" if token else "needs HF_TOKEN"
        return True, f"{host} has no such model, or it is private and {lacking}. Check its name."
    if answer.message == "Invalid credentials in Authorization header":
        return True, f"{host} does not know your token. Check HF_TOKEN."
    if answer.message == "Access to this resource is disabled.":
        return True, f"{host} has disabled it. Choose another model."
    said = f"answers HTTP {answer.status}" if answer.status else "does not answer as a hub does"
    return False, f"{host} {said} when asked for it; the first boots will tell if servers get it."


def _head(address: str, headers: Mapping[str, str], host: str) -> _Answer:
    """The answer at the end of all redirects. Raises ``_Unreachable``, and ``httpx.InvalidURL``."""
    for tries in range(1, _TRIES + 1):
        try:
            with (
                new_client(direct=False, connect=_SECONDS, read=_SECONDS) as client,
                closed_after(client, 2 * _SECONDS),
            ):
                request = client.build_request("HEAD", address, headers=headers)
                with following(client, request) as response:
                    code = response.headers.get("X-Error-Code", "")
                    message = response.headers.get("X-Error-Message", "")
                    return _Answer(response.status_code, code, message)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            raise
        except TooLate:
            if tries == _TRIES:
                told = f"no whole answer within {2 * _SECONDS:g} s"
                raise _Unreachable(f"the hub {host} cannot be reached: {told}.") from None
        except httpx.HTTPError as error:
            if not is_momentary(error):  # a certificate that servers may trust, for one
                return _Answer(0, "", "")
            if tries == _TRIES:
                told = fault_of(error, _SECONDS, _SECONDS)
                raise _Unreachable(f"the hub {host} cannot be reached: {told}.") from None
    raise AssertionError


def _is_cached(model: str, environment: Mapping[str, str]) -> bool:
    """Whether anything of the model is in the hub's cache, so that servers may do without a hub."""
    folder = folder_of(model, Path(hub_cache(environment, str(Path.home()))))
    try:
        return any(True for _ in folder.glob("snapshots/*/*"))
    except OSError:
        return False
