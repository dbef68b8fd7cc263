"""Errors of a Docker engine, told apart: those that any release would meet, and the others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3
from docker.errors import APIError

from vbisect.errors import EngineLost, HostError
from vbisect.reasons import SkipReason, Untestable
from vbisect.text import one_line

_HOST_FAULTS = (
    (
        r"could not select device driver|unknown or invalid runtime name"
        r"|nvidia-container-cli: (?:initialization|device|detection) error"
        r"|failed to discover GPU",
        "This host's engine has no GPU runtime: install the NVIDIA container toolkit and restart "
        "the engine, or pass --gpus none --device cpu.",
    ),
    (
        r"CDI device injection failed|unresolvable CDI devices",
        "This host's engine knows no such GPU: nvidia-ctk cdi list tells their names, and "
        "nvidia-ctk cdi generate describes them anew; --gpus names them.",
    ),
    (
        r"no space left on device|disk quota exceeded",
        "Free disk space on the engine's host (vbisect clean, docker system prune), or lower "
        "--disk-budget.",
    ),
    (
        r"permission denied.*docker\.sock",
        "Add yourself to the docker group, or use another --docker-host.",
    ),
    (
        r"error while creating mount source path",
        "The engine has to be able to make ~/.cache/huggingface, or what HF_HOME and HF_HUB_CACHE "
        "name, on its host: see that what it is in is there and that the engine may write to it.",
    ),
    (
        r"invalid volume specification",
        "A folder that is to be mounted has a colon in its name: name another one in HF_HOME, "
        "HF_HUB_CACHE or MODELSCOPE_CACHE.",
    ),
    (
        r"failed to create endpoint|iptables failed",
        "The engine's network is broken, as after a restart of the firewall: restart the engine, "
        "then resume the run.",
    ),
    (r"cgroup.*not supported|memory limit .* not supported", "Leave --memory out on this host."),
)
_ENDING = re.compile(
    # an engine that is being stopped goes on answering for a while (seen with 20.10)
    r"database not open|daemon is shutting down|the client connection is closing"
    r"|transport is closing|ttrpc: closed|containerd\.sock",
    re.IGNORECASE,
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in _HOST_FAULTS)


_IN_THE_IMAGE = re.compile(
    # of runc, of crun, of NVIDIA's hook that reads what an image requires of the driver
    r'container process(?: caused)?: exec: "|exec format error'
    r"|executable file [`']|open executable"
    r"|no command (?:or entrypoint )?(?:was )?(?:specified|provided)|requirement error",
    re.IGNORECASE,
)
_IDENTITY = re.compile(r"\b[0-9a-f]{12,}\b")


@contextmanager
def engine_faults(engine: str) -> Iterator[None]:
    """Turn what the engine's client raises in the block into what it means for a run.

    ``engine`` is what it is called, as a sentence begins.
    Raises ``EngineLost`` when nothing answers any more, ``HostError`` for what every release would
    meet; other ``APIError`` pass through.
    """
    try:
        yield
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        if isinstance(error, APIError):  # the SDK derives its own errors from those of requests
            words = explanation(error)
            if _ENDING.search(words):
                raise EngineLost(f"{engine} is ending.") from error
            raise_host_fault(words)
            raise
        raise EngineLost(f"{engine} stopped answering.") from error


def raise_host_fault(text: str) -> None:
    """Raise ``HostError`` when ``text``, an engine's words, tells of a fault of the host."""
    for pattern, advice in _COMPILED:
        if pattern.search(text):
            raise HostError(f"{one_line(text)}: {advice}") from None


def not_started(words: str) -> Untestable:
    """What it means that an engine did not start a container, by its ``words``.

    Identities are left out of them: the same fault is told in the same words.
    """
    in_image = _IN_THE_IMAGE.search(words)
    reason = SkipReason.NOT_STARTABLE if in_image else SkipReason.NOT_STARTED
    return Untestable(reason, one_line(_IDENTITY.sub("…", words), 500))


def explanation(error: APIError) -> str:
    """The engine's own words."""
    return str(error.explanation or error)
