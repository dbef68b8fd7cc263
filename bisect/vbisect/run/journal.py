"""The journal of a run: one JSON event a line, on disk before anything acts on it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from vbisect.errors import HostError, UsageError
from vbisect.files import Below, append_to
from vbisect.text import in_every_leaf, redact

FILE_NAME = "journal.jsonl"


class EventKind(StrEnum):
    """Everything that can happen in a run."""

    RUN_STARTED = "run_started"
    RUN_RESUMED = "run_resumed"
    NOTE = "note"
    ENGINE_CHOSEN = "engine_chosen"
    TRIAL_STARTED = "trial_started"
    WEIGHTS_STARTED = "weights_started"
    WEIGHTS_READY = "weights_ready"
    BUILD_READY = "build_ready"
    SERVER_READY = "server_ready"
    OBSERVATION = "observation"
    CONTROL_STARTED = "control_started"
    CONTROL_READY = "control_ready"
    CONTROL_OBSERVATION = "control_observation"
    TRIAL_FINISHED = "trial_finished"
    TRIAL_GIVEN_UP = "trial_given_up"
    RUN_STOPPED = "run_stopped"
    RUN_FINISHED = "run_finished"


LARGEST = 2**30
"""Bytes of a journal; a usual one has some ten thousand."""

_DEEPEST = 100
"""Lists and objects in one another; what is shown of a run again has to be written as JSON."""

_MOST = 1e100
"""Whatever is made of numbers up to it is a number too."""

Number = TypeVar("Number", int, float)

Event = dict[str, Any]
"""``{"event": EventKind, "at": ISO 8601 UTC, "elapsed": …, …}``.

``elapsed`` are the seconds since the session began, which no setting of a clock changes; journals
of older versions do not have it.
"""


class Journal:
    """Appends events; open it with the run directory's lock held.

    Raises ``HostError`` when nothing can be written there.
    """

    def __init__(self, run_dir: Path) -> None:
        self._began = time.monotonic()
        try:
            self._handle = append_to(run_dir / FILE_NAME, buffering=0)
        except OSError as error:
            raise HostError(f"The journal cannot be written: {error.strerror}.") from error

    def append(self, kind: EventKind, **fields: Any) -> Event:
        """Write one event, without secrets, and wait until it is on disk; returns it as written.

        Raises ``HostError`` on a full disk; nothing of the event is left in the journal then, nor
        after an interrupt.
        """
        event: Event = {
            "event": kind.value,
            "at": datetime.now(UTC).isoformat(),
            "elapsed": round(time.monotonic() - self._began, 3),
            **in_every_leaf(_kept, fields),
        }
        line = json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
        unwritten = memoryview(line.encode("utf-8", errors="backslashreplace"))
        before = os.fstat(self._handle.fileno()).st_size
        try:
            self._write(unwritten)
        except BaseException:  # what comes after half a line would damage it
            with contextlib.suppress(OSError):
                self._handle.truncate(before)
            raise
        return event

    def _write(self, unwritten: memoryview) -> None:
        try:
            while unwritten:
                unwritten = unwritten[self._handle.write(unwritten) :]
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise HostError(f"The journal cannot be written: {error.strerror}.") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.close()


def read_journal(run_dir: Path) -> tuple[list[Event], bytes]:
    """The events of a run, and the torn last line that a killed vbisect may have left (or b"").

    There are none where there is no journal: vbisect may have been killed before the first event.
    Raises ``UsageError`` when any line but the last is damaged.
    """
    try:
        content = (Below(run_dir) / FILE_NAME).read(LARGEST)
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise UsageError(f"{run_dir / FILE_NAME} cannot be read: {error.strerror}.") from None
    lines = content.split(b"\n")
    torn = lines.pop()
    events: list[Event] = []
    for number, line in enumerate(lines, 1):
        event = _parse(line)
        if event is None:
            raise UsageError(f"{run_dir / FILE_NAME} is damaged in line {number}.")
        events.append(event)
    return events, torn


def repair_torn_line(run_dir: Path, torn: bytes) -> None:
    """Set a torn last line aside, in ``journal.torn``, so that appending starts on a new line.

    Raises ``HostError`` when it cannot be.
    """
    try:
        with append_to(run_dir / "journal.torn") as aside:
            aside.write(torn + b"\n")
        with append_to(run_dir / FILE_NAME) as handle:
            handle.truncate(os.fstat(handle.fileno()).st_size - len(torn))
    except OSError as error:
        raise HostError(
            f"The torn line of {run_dir / FILE_NAME} cannot be set aside: {error.strerror}."
        ) from error


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line.decode(), parse_float=_float, parse_int=_int, parse_constant=_float)
        moment = datetime.fromisoformat(event["at"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if moment.tzinfo is None or event.get("event") not in list(EventKind):
        return None
    if line.count(b"[") + line.count(b"{") > _DEEPEST and _is_deeper(event, _DEEPEST):
        return None
    known: Event = event
    return known


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether more than ``levels`` lists and objects lie in one another."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_is_deeper(each, levels - 1) for each in inner)


def _float(text: str) -> float:
    return _number(float(text))


def _int(text: str) -> int:
    return _number(int(text))


def _number(value: Number) -> Number:
    """``value``, where everything can be reckoned with it; raises ``ValueError``."""
    if not abs(value) <= _MOST:  # nor is "not a number"
        raise ValueError("no usable number")
    return value


def _kept(leaf: Any) -> Any:
    """A text without secrets, and no number that is none."""
    if isinstance(leaf, str):
        return redact(leaf)
    if isinstance(leaf, int | float) and not abs(leaf) <= _MOST:
        return None
    return leaf
