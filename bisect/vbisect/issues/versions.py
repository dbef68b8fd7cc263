"""Which vLLM was used; versions of everything else are passed over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from packaging.version import InvalidVersion, Version

from vbisect.issues.found import Found, Line, Worth

_NUMBER = (
    r"v?(\d{1,3}\.\d{1,3}(?:\.\d{1,4}){0,2}(?:\.?(?:post|rc|a|b)\d{1,6})?(?:\.?dev\d{1,6})?)"
    r"(?:\+[A-Za-z0-9.]{1,60})?(?!\w|\.\w)"
)
_GAP = r"[ \t]{1,8}"
_PATTERNS = (
    # what collect_env, the server's log and a command say: each names vLLM itself
    (Worth.FACT, rf"\bvllm version[ \t]{{0,60}}:[ \t]{{0,60}}{_NUMBER}"),
    (Worth.FACT, rf"\bvllm api server version{_GAP}{_NUMBER}"),
    (Worth.FACT, rf"\bllm engine \({_NUMBER}\)"),
    (Worth.CODE, rf"(?<![\w-])vllm[ \t]{{0,2}}==[ \t]{{0,2}}{_NUMBER}"),
    (Worth.CODE, rf"\bvllm-openai(?:-cpu)?:{_NUMBER}"),
    (Worth.CODE, rf"(?<![\w-])vllm-{_NUMBER}"),
    (
        Worth.PROSE,
        rf"(?<![\w/-])vllm(?:{_GAP}(?:version|release|ver\.?))?"
        rf"(?:[ \t]{{0,4}}[:=(][ \t]{{0,4}}|{_GAP})(?:is{_GAP})?{_NUMBER}",
    ),
)
_COMPILED = [(worth, re.compile(pattern, re.IGNORECASE)) for worth, pattern in _PATTERNS]
_LATEST_MAJOR = 1
"""vLLM's versions are 0.x; a Python, torch, CUDA or transformers beside its name has more."""


def versions(lines: Iterable[Line]) -> Iterator[Found[str]]:
    """The versions of vLLM that are named, as PEP 440 writes them, without a local part."""
    for line in lines:
        if "vllm" not in line.text.lower() and "LLM engine" not in line.text:
            continue
        for worth, pattern in _COMPILED:
            for match in pattern.finditer(line.text):
                version = _version(match[1])
                if version is not None:
                    yield Found(version, line, worth)


def is_development(version: str) -> bool:
    """Whether it is a build between two releases."""
    return Version(version).is_devrelease


def _version(text: str) -> str | None:
    try:
        version = Version(text)
    except InvalidVersion:
        return None
    return str(version) if version.major <= _LATEST_MAJOR else None
