"""What was asked of the server: calls of a client, bodies of requests, lines of its log."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from vbisect.issues.found import Found, Line, Worth

NAMES = ("n", "temperature", "top_p", "max_tokens", "stream", "seed")
_SAME = {"max_completion_tokens": "max_tokens"}

_KEY = re.compile(
    r"""(?<![\w.\-/])\\?["']?(n|temperature|top_p|max_tokens|max_completion_tokens|stream|seed)"""
    r"""\\?["']?[ \t]{0,8}[=:][ \t]{0,8}"""
)
_NUMBER = re.compile(r"(\d{0,12}\.?\d{1,12}(?:[eE][+-]?\d{1,3})?)(?!\w|\.\d|[eE])")
_WORD = re.compile(r"(true|false)\b", re.IGNORECASE)
_WHOLE = ("n", "max_tokens", "seed")

_ENDPOINTS = (
    ("chat", ("/v1/chat/completions", "chat.completions.create", "vllm-chat", "openai-chat")),
    ("generate", ("/inference/v1/generate",)),
    ("completions", ("/v1/completions", "client.completions.create")),
)


def parameters(lines: Iterable[Line]) -> Iterator[tuple[str, Found[float | bool]]]:
    """The sampling parameters by name, where they are given a value."""
    for line in lines:
        worth = Worth.LOG if line.logged else Worth.CODE if line.code else Worth.PROSE
        for match in _KEY.finditer(line.text):
            name = _SAME.get(match[1], match[1])
            value = _value(name, line.text, match.end())
            if value is not None:
                yield name, Found(value, line, worth)


def endpoints(lines: Iterable[Line]) -> Iterator[Found[str]]:
    """The endpoints that were asked."""
    for line in lines:
        for endpoint, marks in _ENDPOINTS:
            if any(mark in line.text for mark in marks):
                worth = Worth.CODE if line.code and not line.logged else Worth.PROSE
                yield Found(endpoint, line, worth)


def _value(name: str, text: str, at: int) -> float | bool | None:
    if name == "stream":
        word = _WORD.match(text, at)
        return word[1].lower() == "true" if word else None
    number = _NUMBER.match(text, at)
    if number is None:
        return None
    value = float(number[1])
    if math.isinf(value):
        return None
    if name in _WHOLE:
        return int(value) if value.is_integer() else None
    return value
