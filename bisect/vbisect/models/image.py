"""A small picture for requests to vision models."""

import base64
import struct
import zlib


def tiny_image_png(side: int = 56) -> bytes:
    """A PNG of `side` x `side` pixels, 8-bit RGB, a colour gradient: the same bytes for a side.

    The default is a multiple of 28, the step that Qwen2.5-VL resizes to.
    Format: https://www.w3.org/TR/png-3/.
    """
    rows = b"".join(
        b"\0" + bytes(value for x in range(side) for value in _pixel(x, y, side))
        for y in range(side)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    # Stored, not compressed: another zlib build may compress to other bytes.
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def tiny_image_data_url() -> str:
    """`tiny_image_png` as a `data:` URL, ready for an `image_url` part of a chat message."""
    return "data:image/png;base64," + base64.b64encode(tiny_image_png()).decode()


def _pixel(x: int, y: int, side: int) -> tuple[int, int, int]:
    return 255 * x // side, 255 * y // side, 128


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
