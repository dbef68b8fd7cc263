"""Hostile text made safe to keep and show: servers, logs and commands are not trusted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vbisect.files import Below, write_whole

# tokens of text, and words that are no word of a secret
_OF_TEXT = (
    *("IMPLICIT", "MAX_NEW", "EOS", "BOS", "PAD", "UNK", "SEP", "CLS", "MASK", "STOP"),
    *("IMAGE", "VIDEO", "AUDIO"),
)
_OTHER_TOKEN = "".join(f"(?<!^{kind}_)(?<![^A-Z]{kind}_)" for kind in _OF_TEXT)
_PASSES = ("BY", "COM", "MULTI", "MULTI_", "TWO_", "ONE_", "SINGLE_", "SUR", "TRES", "OVER")
_OTHER_PASS = "".join(f"(?<!{kind})" for kind in _PASSES)
_SECRET_NAME = re.compile(
    # TOKENIZERS_PARALLELISM, --max-num-batched-tokens and …_TOKEN_THRESHOLD: tokens of text
    rf"(?<!TIK){_OTHER_TOKEN}"
    r"TOKEN(?!IZ|S_|S$|SPEED|_THRESHOLD|_BUDGET|_COUNT|_INDEX|_IDS?)"
    r"|^(?!.*(?:MAX|MIN|NUM|SPEC)).*_TOKENS$|(?:^|[^A-Z])AUTH_HEADER"
    r"|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASSCODE|CREDENTIAL|AUTHORIZATION"
    rf"|(?:API|PRIVATE|ACCESS)_?KEY|{_OTHER_PASS}PASS(?:_?\d+)?$"
    r"|(?:^|[^A-Z])(?<!SORT_)(?:AUTH|KEY|PAT|JWT|COOKIE|CREDS?|PW|BEARER)(?:_?\d+)?$|[^A-Z]PWD$",
    re.IGNORECASE,
)
# every alternative begins with a letter, so that few places of a long log are looked at twice;
# the vowel is that of "task-" and "disk-": what ends a line or a colour (\n, \x1b[0m) is none,
# nor is AKIA within base64, as of a picture
_TOKEN = re.compile(
    r"hf_[A-Za-z0-9]{30}[A-Za-z0-9_-]*|gh[pousr]_[A-Za-z0-9]{20}[A-Za-z0-9_-]*"
    r"|github_pat_[A-Za-z0-9_]{20}[A-Za-z0-9_-]*|s(?<![AEIOUaeiou]s)k-[A-Za-z0-9_-]{20,}"
    r"|glpat-[A-Za-z0-9_-]{20,}|nvapi-[A-Za-z0-9_-]{20,}"
    r"|A(?<![\w+/]A)(?:KI|SI)A[A-Z2-7]{16}(?![\w+/])"
    r"|b(?i:earer)(?:\s+|=)[A-Za-z0-9._~+/=-]{8,}|B(?i:earer)(?:\s+|=)[A-Za-z0-9._~+/=-]{8,}"
)
# a name alone that is that long is no name
_IN_URL = re.compile(r"://(?:[^/\s:@]*:[^/\s]+|[^/\s:@]{16,})(?=@)")
_SHORTEST = 8
"""Characters of a secret that is told from other words."""
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
# C0/C1 controls except tab and newline, bidirectional controls, and what UTF-8 cannot hold
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@lru_cache(maxsize=1000)
def is_secret_name(name: str) -> bool:
    """Whether a variable or an argument of this name usually holds a secret."""
    return _SECRET_NAME.search(name.replace("-", "_")) is not None


def redact(text: str) -> str:
    """``text`` fit to be kept: no tokens, and ``~`` for the user's home directory.

    Tokens are known by their shape, or as the value of an environment variable with a telling name.
    """
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() takes several times as long
    if len(home) > 1 and home in text:
        text = re.sub(rf"(?<!\w){re.escape(home)}/", "~/", text)
    return without_secrets(text)


def without_secrets(text: str) -> str:
    """``text`` with the names of secrets in their place."""
    known = {
        form: name
        for name in filter(is_secret_name, os.environ)
        for form in _forms(os.environ.get(name, ""))
    }
    # the longest first: of one that begins as another does nothing may be left
    for form in sorted(known, key=len, reverse=True):
        text = text.replace(form, f"<{known[form]}>")
    return _IN_URL.sub("://<secret>", _TOKEN.sub("<secret>", text))


@lru_cache(maxsize=1000)
def _forms(secret: str) -> frozenset[str]:
    """How a secret looks in a text: as it is, as JSON and addresses have it, by its lines."""
    as_json = {json.dumps(secret, ensure_ascii=ascii)[1:-1] for ascii in (False, True)}
    address = quote(secret, safe="", errors="surrogateescape")
    lines = (line.strip() for line in secret.splitlines())
    forms = {secret, *as_json, address}
    whole = forms if len(secret) >= _SHORTEST else set()
    return frozenset(whole | {line for line in lines if len(line) >= 2 * _SHORTEST})


def in_every_text(change: Callable[[str], str], value: Any) -> Any:
    """``value``, as JSON has it, with every text in it changed; a changed JSON could be none."""
    return in_every_leaf(lambda leaf: change(leaf) if isinstance(leaf, str) else leaf, value)


def in_every_leaf(change: Callable[[Any], Any], value: Any) -> Any:
    """``value``, as JSON has it, with every name and all that holds nothing else changed."""
    if isinstance(value, dict):
        return {in_every_leaf(change, k): in_every_leaf(change, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [in_every_leaf(change, item) for item in value]
    return change(value)


def without_secrets_in(value: Any) -> Any:
    """``value``, as JSON has it, without secrets in any of its texts."""
    texts: list[str] = []

    def collect(text: str) -> str:
        texts.append(text)
        return text

    copied = in_every_text(collect, value)
    together = "\n".join(texts)  # one look at all is much sooner done, and mostly enough
    if without_secrets(together) == together:
        return copied
    return in_every_text(without_secrets, value)


def without_controls(text: str) -> str:
    """``text`` without what steers a terminal, turns the order of letters, or is no character."""
    return _CONTROL.sub("", _ANSI.sub("", text))


def plain(text: str, limit: int = 2000) -> str:
    """``text`` for people: no secrets, no terminal or bidirectional controls, at most ``limit``."""
    redacted = redact(text)
    text = without_controls(redacted)
    if text != redacted:  # taking controls out can put a token together
        text = redact(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def one_line(text: str, limit: int = 300) -> str:
    """``text`` as a single line of at most ``limit`` characters."""
    return plain(" ".join(redact(text).split()), limit)  # secrets may hold white space


def scrub_file(path: Path) -> None:
    """Take secrets out of a finished log, in place; a log without any is left untouched."""
    try:
        with (Below(path.parent) / path.name).open() as handle:
            content = handle.read()
    except OSError:
        return
    text = content.decode("utf-8", errors="surrogateescape")
    cleaned = without_secrets(text)
    if cleaned != text:
        write_whole(path, cleaned.encode("utf-8", errors="surrogateescape"))
