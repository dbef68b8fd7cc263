"""Serve arguments and environment variables that apply to some versions only."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import PurePath

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version
from pydantic import BaseModel, ConfigDict

from vbisect.errors import UsageError
from vbisect.releases.changes import changes
from vbisect.text import is_secret_name, without_secrets


class Limited(BaseModel):
    """``text`` applies to the versions that ``specifier`` (PEP 440, empty for all) contains."""

    model_config = ConfigDict(frozen=True)

    text: str
    specifier: str = ""

    @classmethod
    def parse(cls, option: str, value: str) -> Limited:
        """Read ``TEXT[; SPECIFIER]``; raises ``UsageError`` naming ``option``."""
        text, semicolon, specifier = value.rpartition(";")
        if not semicolon:
            text, specifier = value, ""
        try:
            SpecifierSet(specifier)
        except InvalidSpecifier:
            raise UsageError(
                f"{option} '{value}': '{specifier.strip()}' is not a version specifier like >=0.30."
            ) from None
        if not text.strip():
            raise UsageError(f"{option} '{value}' is empty.")
        return cls(text=text.strip(), specifier=specifier.strip())

    def applies_to(self, version: str) -> bool:
        """Whether ``version`` is among those this is limited to; development builds count."""
        return SpecifierSet(self.specifier).contains(Version(version), prereleases=True)

    def __str__(self) -> str:
        limited = self.specifier or ";" in self.text  # the last semicolon starts the specifier
        return f"{self.text}; {self.specifier}" if limited else self.text


def effective_arguments(arguments: Iterable[Limited], version: str) -> list[str]:
    """The serve arguments for ``version``, split as a shell would split them."""
    return [
        word
        for argument in arguments
        if argument.applies_to(version)
        for word in shlex.split(argument.text)
    ]


def effective_environment(variables: Iterable[Limited], version: str) -> dict[str, str]:
    """The environment variables for ``version``; ``K`` alone takes the value vbisect itself has."""
    chosen: dict[str, str] = {}
    for variable in variables:
        if variable.applies_to(version):
            name, equals, value = variable.text.partition("=")
            chosen[name] = value if equals else os.environ.get(name, "")
    return chosen


def parse_serve_argument(value: str) -> Limited:
    """Read a ``--serve-arg``; raises ``UsageError``."""
    limited = Limited.parse("--serve-arg", value)
    try:
        words = shlex.split(limited.text)
    except ValueError as error:
        refuse_secrets("--serve-arg", [value])
        raise UsageError(f"--serve-arg '{value}': {error}.") from None
    for word in words:
        if word.partition("=")[0] in ("--port", "--host", "--uds"):
            raise UsageError(f"--serve-arg '{value}': vbisect chooses the address itself.")
        if word.partition("=")[0].replace("_", "-") == "--api-key":  # vLLM takes either
            raise UsageError("--serve-arg --api-key: servers here are on loopback and take no key.")
    refuse_secrets("--serve-arg", [value, *words])
    return limited


def refuse_secrets(option: str, words: Sequence[str]) -> None:
    """Raise ``UsageError`` for a token, or for a value by the name of a secret.

    Within JSON and within the words for a shell too. What is repeated and resumed has to be
    recorded, and secrets are not.
    """
    program = ""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if without_secrets(word) != word:
            raise UsageError(
                f"{option}: the value holds a secret, and values are recorded; set it in your "
                "environment and pass it on with --env NAME."
            )
        name, equals, value = word.partition("=")
        own = _OWN_MEANING.get(program, {})
        attached = next((o for o in own if len(o) == 2 and word.startswith(o) and word != o), None)
        if attached is not None:
            name, value = attached, word[2:]
        elif not equals and name.startswith("-") and not following.startswith("-"):
            value = following
        for secret in (*_secrets_of(program, name, value), *_secrets_to_send(word)):
            raise UsageError(
                f"{option} {secret}: secrets are not recorded; set it in your environment and pass "
                "it on with --env NAME."
            )
        if re.fullmatch("-[A-Za-z]*c", name) and " " in value:
            with suppress(ValueError):  # it is for another than a shell
                refuse_secrets(option, shlex.split(value))
        if PurePath(word).name in _OWN_MEANING:
            program = PurePath(word).name


_OWN_MEANING: dict[str, dict[str, str | None]] = {
    "sort": {"--key": None},
    "curl": {"-u": ":", "--user": ":"},
    "wget": {"--user": ":"},
    "sshpass": {"-p": ""},
}
"""What the options of some programs mean, whatever they would mean elsewhere.

A secret is what follows this in the value, and is all of it for an empty text.
"""


def _secrets_of(program: str, name: str, value: str) -> Iterator[str]:
    """The names of the secrets that ``program`` is given by an option and its value."""
    if not value:
        return
    if name in (own := _OWN_MEANING.get(program, {})):
        after = own[name]
        secret = value if not after else value.partition(after)[2]
        if after is not None and secret and not _REFERENCE.fullmatch(secret):
            yield name
    elif re.fullmatch(r"[\w.-]+", name) and is_secret_name(name) and not _is_an_amount(name):
        yield name
    if value.lstrip().startswith(("{", "[")):
        with suppress(ValueError, RecursionError):  # no JSON
            yield from _secrets_in(json.loads(value))


_HEADER = re.compile(r"(?:^|-H *|=)([A-Za-z][\w-]*): *(?=(\S.*))")
_IN_QUERY = re.compile(r"[?&;]([\w.-]+)=(?=([^&;#\s\"']+))")
_IN_CONNECTION = re.compile(r"\s((?:ssl)?password) *= *(?=([^\s\"']+))")
"""In the words that psql connects with
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING)."""
_REFERENCE = re.compile(r"(?:\w+ +)?\$(?:\w+|\{\w+\})")
"""What a shell puts a variable in for, after the name of a scheme maybe."""


def _secrets_to_send(word: str) -> Iterator[str]:
    """The names of the secrets in a header, in what is connected to, in the query of an address."""
    found = [match for match in _HEADER.finditer(word) if " " in word or "-H" in match[0]]
    found += _IN_CONNECTION.finditer(word)
    if "://" in word:
        found += _IN_QUERY.finditer(word)
    for match in found:
        if is_secret_name(match[1]) and not _REFERENCE.fullmatch(match[2].strip()):
            yield match[1]


def _is_an_amount(name: str) -> bool:
    """Whether ``name`` is an argument of vLLM that counts something: tokens of text, not secrets.

    As ``--max-prompt-adapter-token`` does in releases up to 0.9.2.
    """
    known = changes()
    name = known.argument_name(name)
    return name in known.arguments and name.startswith(("--max-", "--min-", "--num-"))


def _secrets_in(data: object) -> Iterator[str]:
    """The names in a JSON value that have the text of a secret."""
    if isinstance(data, dict):
        for name, value in data.items():
            if isinstance(value, str) and value and is_secret_name(name):
                yield name
    if isinstance(data, dict | list):
        for inner in data.values() if isinstance(data, dict) else data:
            yield from _secrets_in(inner)


def parse_variable(value: str) -> Limited:
    """Read an ``--env``; raises ``UsageError``, also for a secret, which must not be recorded."""
    limited = Limited.parse("--env", value)
    name = limited.text.partition("=")[0]
    if not name.isidentifier():
        raise UsageError(f"--env '{value}': write NAME=VALUE, or NAME to pass your own value on.")
    refuse_secrets("--env", [limited.text])
    return limited
