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
from typing import Any

from vbisect.errors import HostError, UsageError
from vbisect.text import in_every_text, redact

FILE_NAME = "journal.jsonl"


class EventKind(StrEnum):
    """Everything that can happen in a run."""

    RUN_STARTED = "run_started"
    RUN_RESUMED = "run_resumed"
    NOTE = "note"
    TRIAL_STARTED = "trial_started"
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


Event = dict[str, Any]
"""``{"event": EventKind, "at": ISO 8601 UTC, "elapsed": …, …}``.

``elapsed`` are the seconds since the session began, which no setting of a clock changes; journals
of older versions do not have it.
"""


class Journal:
    """Appends events; open it with the run directory's lock held."""

    def __init__(self, run_dir: Path) -> None:
        self._began = time.monotonic()
        self._handle = (run_dir / FILE_NAME).open("ab", buffering=0)

    def append(self, kind: EventKind, **fields: Any) -> Event:
        """Write one event, without secrets, and wait until it is on disk; returns it as written.

        Raises ``HostError`` on a full disk; nothing of the event is left in the journal then.
        """
        event: Event = {
            "event": kind.value,
            "at": datetime.now(UTC).isoformat(),
            "elapsed": round(time.monotonic() - self._began, 3),
            **in_every_text(redact, fields),
        }
        line = json.dumps(event, ensure_ascii=False) + "\n"
        unwritten = memoryview(line.encode("utf-8", errors="backslashreplace"))
        before = os.fstat(self._handle.fileno()).st_size
        try:
            while unwritten:
                unwritten = unwritten[self._handle.write(unwritten) :]
            os.fsync(self._handle.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):  # what comes after half a line would damage it
                self._handle.truncate(before)
            raise HostError(f"The journal cannot be written: {error.strerror}.") from error
        return event

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

    Raises ``UsageError`` when there is no journal or any line but the last is damaged.
    """
    try:
        content = (run_dir / FILE_NAME).read_bytes()
    except OSError:
        raise UsageError(f"{run_dir} is not a run directory: it has no {FILE_NAME}.") from None
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
    """Set a torn last line aside, in ``journal.torn``, so that appending starts on a new line."""
    path = run_dir / FILE_NAME
    with (run_dir / "journal.torn").open("ab") as aside:
        aside.write(torn + b"\n")
    with path.open("r+b") as handle:
        handle.truncate(path.stat().st_size - len(torn))


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or "at" not in event:
        return None
    return event if event.get("event") in list(EventKind) else None
