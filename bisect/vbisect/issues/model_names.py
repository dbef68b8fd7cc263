"""The model that was served, as a Hugging Face id; never a path of the writer's machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from vbisect.issues.found import Found, Line, Worth

_PART = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,95}"
_ID = re.compile(rf"{_PART}/{_PART}")
_KEY = re.compile(
    r"""(?<![\w.\-/])\\?["']?model(?:_name|_path|_id)?\\?["']?[ \t]{0,8}[=:][ \t]{0,8}"""
    r"""\\?["']([^"'\\\n]{1,300})\\?["']"""
)
# a size such as 7B tells a model from any other pair of words with a slash between
_IN_PROSE = re.compile(rf"(?<![\w/.:\-])({_PART}/)?([A-Za-z][A-Za-z0-9_.\-]{{0,95}})(?![\w/])")
_SIZE = re.compile(r"(?:^|-)\d{1,4}(?:\.\d{1,2})?[BbMm](?:$|[-.])")
_SIZE_SOMEWHERE = re.compile(r"\d[BbMm](?!\w)")

_OWNERS = {
    "qwen": "Qwen",
    "qwq": "Qwen",
    "llama": "meta-llama",
    "mistral": "mistralai",
    "mixtral": "mistralai",
    "pixtral": "mistralai",
    "deepseek": "deepseek-ai",
    "gemma": "google",
    "phi": "microsoft",
    "internvl": "OpenGVLab",
    "minicpm": "openbmb",
    "glm": "zai-org",
}
"""Who publishes the models whose names begin so."""


def model_ids(lines: Iterable[Line]) -> Iterator[Found[str]]:
    """Ids of models in requests, logs and prose; the commands are read elsewhere."""
    for line in lines:
        for match in _KEY.finditer(line.text):
            named = id_of(match[1])
            if named is not None:
                yield Found(named, line, Worth.LOG if line.logged else Worth.CODE)
        sized = _SIZE_SOMEWHERE.search(line.text)
        for match in _IN_PROSE.finditer(line.text) if sized else ():
            name = match[2].rstrip(".-")
            if _SIZE.search(name) and (named := id_of((match[1] or "") + name)):
                yield Found(named, line, Worth.PROSE)


def id_of(text: str) -> str | None:
    """The id that ``text`` is or, for a name or path without an owner, is known to mean."""
    text = text.strip()
    if _ID.fullmatch(text):
        return text
    name = text.rstrip("/").rpartition("/")[2]
    if not re.fullmatch(_PART, name) or not _SIZE.search(name):
        return None
    owners = (owner for family, owner in _OWNERS.items() if name.lower().startswith(family))
    owner = next(owners, None)
    return f"{owner}/{name}" if owner else None
