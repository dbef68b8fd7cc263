"""Which serve arguments and variables of a stranger's command may be taken over.

Those named here change how a model is served and nothing else, with a plain value each. Whatever
reaches out (for code, files, addresses, keys) is left for the user to add.
"""

from __future__ import annotations

import re

from vbisect.issues.commands import Given

_COUNT = re.compile(r"\d{1,9}")
_LENGTH = re.compile(r"\d{1,9}[kKmMgG]?|\d{1,6}\.\d{1,6}[kmg]")
"""What vLLM's ``human_readable_int`` reads (vllm/engine/arg_utils.py)."""

_GIGABYTES = re.compile(r"\d{1,6}(?:\.\d{1,6})?")
_SHARE = re.compile(r"0?\.\d{1,6}|1(?:\.0{1,6})?")
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.]{0,40}[A-Za-z0-9])?")

_VALUES = {
    "--max-model-len": _LENGTH,
    "--max-num-seqs": _COUNT,
    "--max-num-batched-tokens": _COUNT,
    "--block-size": _COUNT,
    "--swap-space": _GIGABYTES,
    "--cpu-offload-gb": _GIGABYTES,
    "--gpu-memory-utilization": _SHARE,
    "--num-scheduler-steps": _COUNT,
    "--seed": _COUNT,
    "--dtype": _WORD,
    "--kv-cache-dtype": _WORD,
    "--quantization": _WORD,
    "--guided-decoding-backend": _WORD,
    "--distributed-executor-backend": re.compile("mp|ray|uni"),
    "--generation-config": re.compile("auto|vllm"),
    "--task": _WORD,
    "--runner": _WORD,
}
_FLAGS = {
    "--enforce-eager",
    "--enable-prefix-caching",
    "--no-enable-prefix-caching",
    "--enable-chunked-prefill",
    "--no-enable-chunked-prefill",
    "--enable-reasoning",
    "--enable-scale-out",
}
_KNOWN_TO = {
    "--enable-reasoning": "<0.10.0",
    "--num-scheduler-steps": "<0.10.1",
    "--guided-decoding-backend": "<0.12.0",
    "--task": "<0.13.0",
    "--swap-space": "<0.18",
    "--enable-scale-out": ">=0.30",
}
"""Versions that know the argument, where not all do; others would refuse to start."""

_ENGINE_V0 = "VLLM_USE_V1=0"
_HAVE_ENGINE_V0 = "<0.11"

_VARIABLES = {
    "VLLM_USE_V1": re.compile("[01]"),
    "VLLM_ATTENTION_BACKEND": re.compile("[A-Z0-9_]{1,40}"),
    "VLLM_ENABLE_V1_MULTIPROCESSING": re.compile("[01]"),
}

_OWN = "vbisect sees to that itself"
_WHY_NOT = {
    "--trust-remote-code": "it would run code that comes with the model",
    "--host": _OWN,
    "--port": _OWN,
    "--api-key": "servers here are on loopback and take no key",
    "--served-model-name": _OWN,
    "--enable-log-requests": _OWN,
    "--disable-log-requests": _OWN,
    "--tensor-parallel-size": "this host's GPUs may be others; --tp says how many to use",
    "--limit-mm-per-prompt": (
        "no form of it suits all versions: image=N up to 0.9.2, '{\"image\": N}' from 0.8.5 on; "
        "add each with --serve-arg, for its own versions"
    ),
}
_NO_SUCH_VALUE = "not every version would take its value; add it with --serve-arg"
_NOT_KNOWN = "it is not among those that are taken from a text; add it with --serve-arg"


def argument(given: Given) -> tuple[str, str | None]:
    """The argument as ``--serve-arg`` takes it, and why it is not taken, if it is not."""
    name, value = given.name, given.value
    text = name if value is None else f"{name} {value}"
    if name in _WHY_NOT:
        return text, _WHY_NOT[name]
    flag = name in _FLAGS and value is None
    valued = name in _VALUES and value is not None and _VALUES[name].fullmatch(value) is not None
    if not flag and not valued:
        return text, _NO_SUCH_VALUE if name in _VALUES and value is not None else _NOT_KNOWN
    return (f"{text}; {_KNOWN_TO[name]}" if name in _KNOWN_TO else text), None


def variable(name: str, value: str) -> tuple[str, str | None]:
    """The variable as ``--env`` takes it, and why it is not taken, if it is not.

    The value of one that is not taken is left out: it may be a secret.
    """
    pattern = _VARIABLES.get(name)
    text = f"{name}={value}"
    if pattern is not None and pattern.fullmatch(value):
        return (f"{text}; {_HAVE_ENGINE_V0}" if text == _ENGINE_V0 else text), None
    return name, "it is not among those that are taken from a text; add it with --env"
