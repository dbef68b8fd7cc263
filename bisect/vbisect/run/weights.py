"""The weights of a hub's model, fetched once, before the first server that loads them boots.

vLLM downloads them without a line of log, so a boot would tell nothing of how far it is; and what
one server has not finished, the next one begins again in some releases. They are fetched by the
hub's own client in the release's environment or image, into the cache that its servers read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from vbisect.amounts import sized
from vbisect.errors import Cancelled, HostError
from vbisect.launch import LaunchSpec
from vbisect.launch.diagnosis import last_words
from vbisect.launch.log_lines import LogLines
from vbisect.reasons import Untestable
from vbisect.run.journal import EventKind
from vbisect.run.runtimes.interface import Fetched, Poll, Say
from vbisect.run.state import RunState
from vbisect.text import one_line

Emit = Callable[..., object]

_SCRIPT = Path(__file__).parents[1] / "launch" / "hub_download.py"
_LOG = "weights.log"
_START_SECONDS = 120.0
"""How long the script may take to tell of the model, at least: its client is slow to start, and
tries again by itself."""

_GLANCE_SECONDS = 0.25
_SAY_SECONDS = 5.0
_MOST_BYTES = 2**60

_AS_USUAL = ("auto", "hf", "safetensors")
"""The load formats (``--load-format``) of which it is known which files are loaded."""

_FAILURES = {
    "gated": "The model {model} is not for everybody: accept its terms on the hub, set HF_TOKEN to "
    "a token that may read it, then resume the run",
    "missing": "The hub has no model {model}, or does not show it: check its name, and HF_TOKEN",
    "unreachable": "The weights of {model} cannot be fetched, for the hub cannot be reached: check "
    "the network, HF_ENDPOINT and proxies, then resume the run",
    "refused": "The weights of {model} cannot be fetched, for the hub refuses: resume the run once "
    "it answers",
    "disk": "There is no place for the weights of {model}: free space, or have HF_HOME point to a "
    "folder that can be written to, then resume the run",
}


class _Told(BaseModel):
    """One line of ``hub_download.py``."""

    total: int | None = Field(None, ge=0, lt=_MOST_BYTES)
    bytes: int = Field(0, ge=0, lt=_MOST_BYTES)
    commit: str | None = Field(None, max_length=100)
    left: str | None = None
    failed: Literal["gated", "missing", "unreachable", "refused", "disk"] | None = None
    detail: str = ""


@dataclass(frozen=True)
class _Asked:
    """A model of a hub, at a revision; ``None``: at its main one."""

    model: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.model}@{self.revision}" if self.revision else self.model


class Weights:
    """Sees to it that the weights of a run's models are there; in any thread."""

    def __init__(self, state: RunState, emit: Emit, say: Say) -> None:
        self._state = state
        self._emit = emit
        self._say = say
        self._turn = threading.Lock()
        self._left: set[str] = set()

    def see_to(self, fetched: Fetched, spec: LaunchSpec, given_up: threading.Event) -> None:
        """Fetch what the server of ``spec`` loads, unless this run has done so.

        Raises ``HostError`` where it cannot be had, which no release can help; ``EngineLost``;
        ``Cancelled`` once it is ``given_up``.
        """
        asked = _asked(spec)
        if asked is None:
            return
        with self._in_turn(given_up):
            if str(asked) not in self._state.weights:
                self._fetch(asked, fetched, spec, given_up)

    def forget(self) -> None:
        """A server had to download: look again before the next one boots."""
        self._state.weights.clear()

    @contextmanager
    def _in_turn(self, given_up: threading.Event) -> Iterator[None]:
        """One at a time: two downloads of the same would both be slower."""
        while not self._turn.acquire(timeout=_GLANCE_SECONDS):
            if given_up.is_set():
                raise Cancelled
        try:
            yield
        finally:
            self._turn.release()

    def _fetch(
        self, asked: _Asked, fetched: Fetched, spec: LaunchSpec, given_up: threading.Event
    ) -> None:
        log = spec.log.with_name(_LOG)
        lines = LogLines(log, log.stat().st_size if log.exists() else 0)
        words = ["-c", _SCRIPT.read_text(encoding="utf-8"), asked.model, asked.revision or ""]
        began = time.monotonic()
        try:
            with fetched.python(spec.model_copy(update={"log": log}), words) as poll:
                told = self._follow(asked, spec, poll, lines, given_up)
        except (Untestable, OSError) as error:  # no Python of that name
            told = _Told(left=str(error))
        if told.failed is not None:
            detail = one_line(told.detail)
            text = _FAILURES[told.failed].format(model=asked)
            raise HostError(f"{text}. ({detail})" if detail else f"{text}.")
        if told.commit is None:
            self._leave(asked, told.left or f"it ended without a word: {last_words(log)}")
            return
        self._emit(
            EventKind.WEIGHTS_READY,
            model=str(asked),
            commit=told.commit,
            bytes=told.bytes,
            seconds=round(time.monotonic() - began, 3),
        )

    def _follow(
        self,
        asked: _Asked,
        spec: LaunchSpec,
        poll: Poll,
        lines: LogLines,
        given_up: threading.Event,
    ) -> _Told:
        """The last that the script told, which is how it ended; its progress is told on."""
        last = _Told()
        begun = False
        alive = said = time.monotonic()
        while True:
            ended = poll()
            news = _read(lines)
            now = time.monotonic()
            for told in news:
                if told.bytes != last.bytes or last.total is None:
                    alive = now
                last = told
                if not begun and told.total is not None and told.bytes < told.total:
                    begun = True
                    self._emit(
                        EventKind.WEIGHTS_STARTED,
                        model=str(asked),
                        version=spec.version,
                        bytes=told.bytes,
                        total=told.total,
                    )
            if ended is not None:
                return last
            if last.total is not None and now - said >= _SAY_SECONDS:
                said = now
                self._say(f"weights of {asked}: {sized(last.bytes)} of {sized(last.total)}")
            limit = spec.boot_timeout
            if last.total is None:
                limit = max(limit, _START_SECONDS)
            if now - alive > limit:
                raise HostError(
                    f"The download of {asked} stalled: nothing came for {limit:.0f} s. "
                    "Resume the run, and it goes on."
                )
            if given_up.wait(_GLANCE_SECONDS):
                raise Cancelled

    def _leave(self, asked: _Asked, why: str) -> None:
        """To the servers, which look for it themselves."""
        text = f"the weights of {asked} are left to the servers: {one_line(why)}"
        if text not in self._left:
            self._left.add(text)
            self._say(text)


def _asked(spec: LaunchSpec) -> _Asked | None:
    """What is to be fetched for a server; ``None`` where it loads nothing of a hub's.

    Nor where it loads it in a way of its own, or into a folder of its own.
    """
    if spec.model.startswith(("/", "~")):
        return None
    if _value(spec.arguments, "--download-dir") is not None:
        return None
    if _value(spec.arguments, "--load-format") not in (None, *_AS_USUAL):
        return None
    return _Asked(spec.model, _value(spec.arguments, "--revision"))


def _value(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option in a command line, the last one where it stands there twice."""
    found = None
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        given, equals, value = word.partition("=")
        if given.replace("_", "-") == name:
            found = value if equals else following
    return found


def _read(lines: LogLines) -> list[_Told]:
    """What the script told since; what else its client writes is passed over."""
    found = []
    for line in lines.new():
        try:
            found.append(_Told.model_validate_json(line))
        except ValidationError:
            continue
    return found
