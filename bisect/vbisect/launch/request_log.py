"""What vLLM's log says of a request: the line with the sampling parameters it received.

Seen in the wheels of 0.8.5, 0.12.0, 0.27.1 and 0.32.0 (``RequestLogger.log_inputs``)::

    Received request chatcmpl-ID: prompt: '…', params: SamplingParams(n=8, …), prompt_token_ids: …
    Received request chatcmpl-ID: params: SamplingParams(n=8, …), lora_request: None.

The prompt, gone since 0.11.1, is a Python literal: what it holds cannot be taken for parameters.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from vbisect.launch.arguments import Limited
from vbisect.launch.log_lines import LogLines

Number = int | float | bool | None

_ASKED_FOR = Limited(text="--enable-log-requests", specifier=">=0.10.1")
"""Requests are logged by default through 0.10.0, and from 0.10.1 on when asked for; seen in the
wheels, ``AsyncEngineArgs`` in ``vllm/engine/arg_utils.py``."""

_SWITCHES = ("--enable-log-requests", "--no-enable-log-requests", "--disable-log-requests")

_LITERAL = r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\""""
_RECEIVED = re.compile(
    r"Received request (?P<id>\S+): "
    rf"(?:prompt: (?:None|{_LITERAL}), )?+params: SamplingParams\("
)
_PIECE = re.compile(rf"{_LITERAL}|[\[({{<]|[\])}}>]|,|[^'\"\[\](){{}}<>,]++|.")
_OWN_ID = re.compile(r"vbisect-[0-9a-f]{32}")
_NAMES: dict[str, Number] = {"None": None, "True": True, "False": False}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")  # as Python writes them
_LONGEST_NUMBER = 40


def log_arguments(serve_args: Iterable[Limited]) -> tuple[Limited, ...]:
    """What switches request logging on where a version has it off, unless the user decided."""
    words = (word for argument in serve_args for word in shlex.split(argument.text))
    names = {word.partition("=")[0].replace("_", "-") for word in words}
    return () if names.intersection(_SWITCHES) else (_ASKED_FOR,)


class RequestLog:
    """The requests in ``log`` from byte ``start`` on, as they are written."""

    def __init__(self, log: Path, start: int = 0) -> None:
        self._lines = LogLines(log, start)

    def new(self) -> Iterator[tuple[str, dict[str, Number]]]:
        """The requests of vbisect's own that were logged since: id, and parameters by name."""
        for line in self._lines.new():
            received = _RECEIVED.search(line)
            own = _OWN_ID.search(received["id"]) if received else None
            if received and own:
                yield own[0], _numbers(line[received.end() :])


def _numbers(text: str) -> dict[str, Number]:
    """The arguments of a call that are numbers, ``None`` or booleans, up to its closing bracket."""
    found: dict[str, Number] = {}
    for argument in _arguments(text):
        name, _, value = argument.strip().partition("=")
        if len(value) > _LONGEST_NUMBER or name in found:
            continue
        if value in _NAMES:
            found[name] = _NAMES[value]
        elif _NUMBER.fullmatch(value):
            number = float(value) if set(value) & set(".e") else int(value)
            if math.isfinite(number):
                found[name] = number
    return found


def _arguments(text: str) -> Iterator[str]:
    """The texts between the commas of a call, without those inside of strings and brackets."""
    depth, argument = 0, ""
    for piece in _PIECE.findall(text):
        if piece == "," and not depth:
            yield argument
            argument = ""
            continue
        depth += (piece in "[({<") - (piece in "])}>")
        if depth < 0:
            yield argument
            return
        argument += piece
