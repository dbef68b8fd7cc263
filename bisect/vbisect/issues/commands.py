"""The commands that an issue starts its server with, taken apart into words; none is ever run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from vbisect.issues.found import Line

_SERVE = re.compile(r"(?<![\w.-])vllm[ \t]{1,8}serve(?![\w-])")
_MODULE = re.compile(r"vllm\.entrypoints\.(?:openai\.)?api_server(?![\w.-])")
_IMAGE = re.compile(r"vllm-openai(?:-cpu)?(?:[:@][\w.:+-]{1,128})?(?![\w-])")
_EXPORT = re.compile(r"[ \t]{0,8}(?:[$#>][ \t]{1,8})?export[ \t]{1,8}")
_SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-q": "--quantization",
}
_FLAGS = frozenset(
    {
        "--enforce-eager",
        "--trust-remote-code",
        "--disable-log-requests",
        "--disable-log-stats",
        "--enable-log-requests",
        "--enable-prefix-caching",
        "--no-enable-prefix-caching",
        "--enable-chunked-prefill",
        "--no-enable-chunked-prefill",
        "--enable-auto-tool-choice",
        "--enable-reasoning",
        "--enable-lora",
        "--enable-expert-parallel",
        "--enable-scale-out",
        "--enable-sleep-mode",
        "--disable-custom-all-reduce",
        "--disable-frontend-multiprocessing",
        "--async-scheduling",
    }
)
"""Arguments that never have a value."""


@dataclass(frozen=True)
class Given:
    """One argument: its name with two dashes, or one where it is not known by another."""

    name: str
    value: str | None = None


@dataclass(frozen=True)
class ServeCommand:
    """What starts a server in ``line``: the model, the arguments and the environment variables."""

    line: Line
    model: str | None = None
    arguments: tuple[Given, ...] = ()
    variables: tuple[tuple[str, str], ...] = field(default=())


def serve_commands(lines: Iterable[Line]) -> Iterator[ServeCommand]:
    """Every command that starts vLLM's server, by itself or in a container.

    It has the variables that lines before it in the same block export.
    """
    exported: list[tuple[str, str]] = []
    for line in lines:
        if not line.code:
            exported = []
        elif export := _EXPORT.match(line.text):
            exported += _variables(_words(line.text[export.end() :]))
        match = _SERVE.search(line.text) or _MODULE.search(line.text)
        if match is None and " run " in line.text:
            match = _IMAGE.search(line.text)
        if match is None:
            continue
        before = _before(line.text[: match.start()])
        words = _words(line.text[match.end() :])
        model, arguments = _arguments(words)
        if model or arguments:
            variables = {**dict(exported), **dict(_variables(before))}
            yield ServeCommand(line, model, tuple(arguments), tuple(variables.items()))


def _before(text: str) -> list[str]:
    """The words of the same command that come before the program or image."""
    return re.split(r"[ \t]+", re.split(r"[;|`]|&&", text)[-1].strip())


def _words(text: str) -> list[str]:
    """The words of the command, to its end; unbalanced quotes are read as they are."""
    text = text.split("`")[0]
    try:
        reader = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
        reader.whitespace_split = True
        reader.commenters = ""
        words = list(reader)
    except ValueError:
        words = text.split()
    for end, word in enumerate(words):
        if word[:1] in ("#", "|", "&", ";", "<", ">"):
            return words[:end]
    return words


def _arguments(words: list[str]) -> tuple[str | None, list[Given]]:
    """The model and the arguments; a word that belongs to neither ends the command."""
    model: str | None = None
    found: list[Given] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("-"):
            if model is not None or found:
                break
            model = word
            continue
        given = _split(word)
        following = words[position] if position < len(words) else "-"
        if given.value is None and given.name not in _FLAGS and not following.startswith("-"):
            given = Given(given.name, following)
            position += 1
        if given.name == "--model":
            model = given.value or model
        elif given.name.strip("-"):
            found.append(given)
    return model, found


def _split(word: str) -> Given:
    """An argument as vLLM reads it: underscores for dashes, a value after an equals sign."""
    name, equals, value = word.partition("=")
    if short := re.fullmatch(r"(-tp|-pp)(\d{1,4})", name):
        return Given(_SHORT[short[1]], short[2])
    name = _SHORT.get(name, name)
    return Given(name.replace("_", "-"), value if equals else None)


def _variables(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """``NAME=VALUE`` words, alone or after docker's ``-e``."""
    for word in words:
        word = word.removeprefix("--env=").strip("\"'")
        name, equals, value = word.partition("=")
        if equals and re.fullmatch(r"[A-Z][A-Z0-9_]{0,99}", name):
            yield name, value
