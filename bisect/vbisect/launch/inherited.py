"""What servers take from the user's own environment.

Variables of vLLM, and those that keep torch from compiling, decide what a server does: they are
recorded with their values, so that a run that is gone on with elsewhere, or repeated, has the
same. Those that say where models are and how the network is reached belong to a host and may hold
secrets: their names are recorded, no values.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from vbisect.launch.arguments import Limited
from vbisect.releases.fitness import NO_COMPILE, NO_DYNAMO
from vbisect.text import is_secret_name, without_secrets

DECIDING = ("VLLM_", NO_DYNAMO, NO_COMPILE)
"""How the names of variables begin that decide what a server does."""

_MODELSCOPE = "VLLM_USE_MODELSCOPE"
_NEVER = ("VLLM_PORT", "VLLM_API_KEY", "VLLM_NO_USAGE_STATS")
"""Those are vbisect's own to say."""

_HUB = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_HUB_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
_FOLDERS = ("HF_HOME", *_HUB_CACHES, "MODELSCOPE_CACHE")
_PROXIES = tuple(
    spelt for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for spelt in (name, name.lower())
)
_NO_PROXY = ("NO_PROXY", "no_proxy")
_DIRECT = ("localhost", "127.0.0.1", "::1")
"""What servers reach without a proxy: their own processes talk over it."""

_INSIDE_HUB, _INSIDE_HUB_CACHE = "/root/.cache/huggingface", "/vbisect/hub"
_INSIDE_MODELSCOPE, _INSIDE_MODELSCOPE_CACHE = "/root/.cache/modelscope", "/vbisect/modelscope"


def variables_of_vllm(
    *, containers: bool, besides: Collection[str] = (), environ: Mapping[str, str] = os.environ
) -> tuple[Limited, ...]:
    """The variables of vLLM that servers take from the environment, by name alone where secret.

    Containers take none but what says which hub models are from. ``besides`` are names that the
    run itself gives.
    """
    names = [
        name
        for name in sorted(environ)
        if name.startswith(DECIDING) and name.isidentifier() and name not in (*_NEVER, *besides)
    ]
    taken = (name for name in names if name == _MODELSCOPE or not containers)
    return tuple(Limited(text=_recorded(name, environ[name])) for name in taken)


def _recorded(name: str, value: str) -> str:
    text = f"{name}={value}"
    by_name = is_secret_name(name) or without_secrets(text) != text or not text.isprintable()
    return name if by_name else text


def own_names(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The names of the other settings that reach servers, as far as they are set."""
    exceptions = _NO_PROXY if any(environ.get(name) for name in _PROXIES) else ()
    names = (*_HUB, *_FOLDERS, *_PROXIES, *exceptions)
    return tuple(name for name in names if environ.get(name))


def with_loopback_direct(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ``, with loopback out of the way of its proxies if it has any.

    The lower-case name counts where both are set, as for Python and curl.
    """
    found = dict(environ)
    if any(found.get(name) for name in _PROXIES):
        given = next((found[name] for name in reversed(_NO_PROXY) if found.get(name)), "")
        named = [word.strip() for word in given.split(",") if word.strip()]
        direct = ",".join([*named, *(host for host in _DIRECT if host not in named)])
        found |= dict.fromkeys(_NO_PROXY, direct)
    return found


def with_whole_folders(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ``, with its folders of models as seen from here: servers run in other places."""
    found = {name: _whole(environ[name]) for name in _FOLDERS if environ.get(name)}
    return {**environ, **found}


def variables_for_containers(
    *, remote: bool, proxies: bool, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The user's other settings as containers are given them; what is recorded are their names.

    Folders are those that ``mounts_for_containers`` mounts, which needs the engine on this machine.
    Without ``proxies`` there are none: Docker's own configuration names those of containers. Nor is
    there what only this machine reaches (see ``unreachable``).
    """
    left = set(unreachable(environ))
    names = [name for name in own_names(environ) if name not in (*_FOLDERS, *left)]
    hub = {name: environ[name] for name in names if name in _HUB}
    network = {name: environ[name] for name in names if name not in _HUB} if proxies else {}
    folders: dict[str, str] = {}
    if not remote:
        if _hub_cache(environ):
            folders |= dict.fromkeys(_HUB_CACHES, _INSIDE_HUB_CACHE)
        if environ.get("HF_HOME"):
            folders["HF_HOME"] = _INSIDE_HUB
        if environ.get("MODELSCOPE_CACHE"):
            folders["MODELSCOPE_CACHE"] = _INSIDE_MODELSCOPE_CACHE
    return {**hub, **with_loopback_direct(network), **folders}


def mounts_for_containers(
    home: str | None, *, remote: bool, modelscope: bool, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Folders of models on the engine's host, by where servers in containers look for them.

    ``home`` is the user's there; what the environment names is on this machine, and so is of no use
    to a ``remote`` engine. ``modelscope``: servers take models from that hub.
    """
    own = {} if remote else environ
    caches = own.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else None)
    hub = own.get("HF_HOME") or (f"{caches}/huggingface" if caches else None)
    mounts = {_whole(hub): _INSIDE_HUB} if hub else {}
    if cache := _hub_cache(own):
        mounts[_whole(cache)] = _INSIDE_HUB_CACHE
    if named := own.get("MODELSCOPE_CACHE"):
        mounts[_whole(named)] = _INSIDE_MODELSCOPE_CACHE
    elif modelscope and caches:
        mounts[_whole(f"{caches}/modelscope")] = _INSIDE_MODELSCOPE
    return mounts


def takes_from_modelscope(variables: Iterable[Limited]) -> bool:
    """Whether any of the variables of servers has them take models from ModelScope."""
    return any(v.text.partition("=")[0] == _MODELSCOPE for v in variables)


def unreachable(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The names of settings that name this machine's loopback, which containers have not."""
    addresses = ("HF_ENDPOINT", *_PROXIES)
    return tuple(name for name in addresses if _is_loopback(environ.get(name, "")))


def _hub_cache(environ: Mapping[str, str]) -> str | None:
    return next((environ[name] for name in _HUB_CACHES if environ.get(name)), None)


def _whole(folder: str) -> str:
    """As the hubs' clients read it."""
    expanded = os.path.expandvars(os.path.expanduser(folder))  # noqa: PTH111 - any ~ may be a name
    return str(Path(expanded).absolute())


def _is_loopback(address: str) -> bool:
    """Whether it is on this machine's loopback; a proxy may be written without a scheme."""
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError:  # no address at all
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:  # a name
        return False
    return found.is_loopback or found.is_unspecified
