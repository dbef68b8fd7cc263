"""The ends of the servers' logs, as much of each as there is room for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vbisect.files import Below
from vbisect.report.comment.tables import tested
from vbisect.report.comment.text import end_block, harmless, length, prose
from vbisect.report.excerpts import opened
from vbisect.run.state import RunState

_NAMES = ("server.log", "build.log")
_MARGIN = 4096
"""Characters dropped where reading begins inside a file: they may end a token begun before."""
_FRAME = 300
"""Characters around an excerpt: tags, title, fence."""
_LEAST = 400
"""With fewer characters the end of a long log says nothing."""


@dataclass(frozen=True)
class LogEnd:
    """``text`` is the end of a log of ``size`` bytes, safe to show; ``whole`` if all of it."""

    version: str
    name: str
    text: str
    size: int
    whole: bool

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.version}: {self.name}"


def log_ends(state: RunState, run_dir: Path, most: int) -> list[LogEnd]:
    """The last ``most`` characters of each tested release's log, oldest release first."""
    found = []
    for record in tested(state):
        folder = Below(run_dir) / "trials" / record.version
        for name in _NAMES:
            end = _end(folder / name, record.version, most)
            if end is not None:
                found.append(end)
                break
    return found


def folded(ends: list[LogEnd], limit: int) -> str:
    """Markdown of at most ``limit`` characters: each log folded, its beginning cut off if it must.

    Room that short logs leave is the long ones'.
    """
    wanted = [length(end.text) + _FRAME for end in ends]
    shares = _shares(wanted, limit)
    shown = [
        _fold(end, share)
        for end, share, whole in zip(ends, shares, wanted, strict=True)
        if share >= min(whole, _LEAST)
    ]
    left_out = len(ends) - len(shown)
    if left_out:
        shown.append(f"The logs of {left_out} more releases are left out.")
    return "\n\n".join(shown)


def fit(ends: list[LogEnd], limit: int) -> bool:
    """Whether ``folded`` shows all logs from their first line on."""
    whole = all(end.whole for end in ends)
    return whole and sum(length(end.text) + _FRAME for end in ends) <= limit


def _fold(end: LogEnd, share: int) -> str:
    whole = end.whole and length(end.text) + _FRAME <= share
    told = "all of it" if whole else f"its end; {end.size:,} bytes in all"
    # the fence may be lengthened, and a cut is marked
    fenced = end_block(end.text, share - _FRAME + 80)
    summary = f"<summary>{prose(end.title, 150)} – {told}</summary>"
    return f"<details>{summary}\n\n{fenced}\n\n</details>"


def _shares(wanted: list[int], limit: int) -> list[int]:
    """``limit`` divided so that none gets more than it wants, and all others the same."""
    shares = [0] * len(wanted)
    left = limit - 60  # for the line about logs that are left out
    for done, index in enumerate(sorted(range(len(wanted)), key=lambda i: wanted[i])):
        shares[index] = min(wanted[index], max(0, left) // (len(wanted) - done))
        left -= shares[index]
    return shares


def _end(place: Below, version: str, most: int) -> LogEnd | None:
    handle = opened(place)
    if handle is None:
        return None
    with handle:
        size = os.fstat(handle.fileno()).st_size
        begin = max(0, size - 4 * most - _MARGIN)  # 4 bytes a character at most
        handle.seek(begin)
        raw = handle.read(size - begin).decode("utf-8", errors="replace")
    text = harmless(raw)
    if begin:
        text = text[_MARGIN:]
    shown = text[-most:]
    if not shown.strip():
        return None
    whole = not begin and len(shown) == len(text)
    return LogEnd(version, place.names[-1], shown, size, whole)
