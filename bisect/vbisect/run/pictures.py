"""The picture that ``--image`` names, sent with each request to a vision-language model."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from vbisect.errors import UsageError

LARGEST = 4 * 2**20
"""Bytes: a picture is part of every request, and of what is kept of it."""

_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


def pictures_among(images: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """The picture among the values of ``--image``, and the images of containers.

    What names no version, as in VERSION=IMAGE, is a picture. Raises ``UsageError`` for two.
    """
    pictures = [value for value in images if "=" not in value or picture_path(value).is_file()]
    if len(pictures) > 1:
        raise UsageError(f"--image {pictures[1]}: a request holds one picture, {pictures[0]}.")
    others = tuple(value for value in images if value not in pictures)
    return (pictures[0] if pictures else None), others


def picture_data_url(picture: str) -> str:
    """The file as a ``data:`` URL, of the kind that its content is of. Raises ``UsageError``."""
    path = picture_path(picture)
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"--image {picture}: a picture may have at most 4 MB.")
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            f"--image {picture}: there is no such picture; the image of a container is written "
            "VERSION=IMAGE, as in 0.8.5=my/vllm:patched."
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"--image {picture}: it cannot be read: {error}.") from None
    kind = _kind(content)
    if kind is None:
        raise UsageError(f"--image {picture}: it is no PNG, JPEG, WebP or GIF.")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture_path(value: str) -> Path:
    """The file that a value of ``--image`` names; nobody's ``~`` is a name like any other."""
    try:
        return Path(value).expanduser()
    except RuntimeError:  # a user that does not exist
        return Path(value)


def _kind(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _BEGINNINGS.items() if content.startswith(start)), None)
