"""A started container: its log goes to a file, its end is noticed at once."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import requests
from docker.errors import DockerException, NotFound

from vbisect.errors import EngineLost
from vbisect.launch.container_settings import PORT
from vbisect.launch.hub_cache import hub_cache
from vbisect.launch.server import Ended
from vbisect.launch.signs import Counters

if TYPE_CHECKING:
    from docker.models.containers import Container

    from vbisect.engine.connection import Engine

_TROUBLE = (DockerException, requests.exceptions.RequestException, OSError)
_LAST_WORDS_SECONDS = 30
"""How long the log of a container that has ended is read on; a flood may lie before its end."""

_SIGNAL_SECONDS = 600
"""How long a container may take to end once it has been told to."""

_CLEARING_SECONDS = 5
"""How long a container that was asked to end may clear up."""

_NOTICE_SECONDS = 0.5
"""How much later than a container's end the engine may note the signal that it sent."""


class RunningContainer:
    """Begins when told to; ``end`` has to be called in every case."""

    def __init__(self, engine: Engine, container: Container, log: Path) -> None:
        self._engine = engine
        self._container = container
        self._log = log
        self._over = threading.Event()
        self._stopping = False
        self._counters = Counters()
        self._ended: Ended | EngineLost | None = None
        config = container.attrs["Config"]
        self.command = (*(config["Entrypoint"] or ()), *(config["Cmd"] or ()))
        variables = dict(word.partition("=")[::2] for word in config["Env"] or ())
        self.hub_cache = hub_cache(variables, "/root")
        self._writer = threading.Thread(target=self._write_log, name="log", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)

    def begin(self) -> None:
        """Start it."""
        self._container.start()
        self._writer.start()
        self._watcher.start()
        with suppress(NotFound):
            self._container.reload()

    def poll(self) -> Ended | None:
        """How it ended, ``None`` while it runs. Raises ``EngineLost``."""
        return self.wait(0)

    def wait(self, seconds: float) -> Ended | None:
        """As ``poll``, after waiting up to ``seconds`` for the end."""
        if not self._over.wait(seconds):
            return None
        if isinstance(self._ended, EngineLost):
            raise self._ended
        return self._ended

    def counters(self) -> Counters:
        """What it did so far, as the engine last told it.

        What it reads from the page cache is only in the time of processors.
        """
        try:
            stats = cast("dict[str, Any]", self._container.stats(stream=False, one_shot=True))
            networks = (stats.get("networks") or {}).values()
            moved = sum(network["rx_bytes"] + network["tx_bytes"] for network in networks)
            devices = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
            moved += sum(d["value"] for d in devices if d["op"].lower() in ("read", "write"))
            computed = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
        except (*_TROUBLE, LookupError, TypeError, ValueError, AttributeError):
            return self._counters
        self._counters = Counters(moved, computed)
        return self._counters

    def host_port(self) -> int | None:
        """The port the engine chose on its host's loopback, ``None`` when it has ended already."""
        published = self._container.ports.get(f"{PORT}/tcp")
        return int(published[0]["HostPort"]) if published else None

    def ask_to_end(self) -> None:
        """Tell it to end, and wait a little for it, so that it can clear up."""
        self._stopping = True
        with suppress(*_TROUBLE):
            self._container.kill(signal="SIGTERM")
            self._over.wait(_CLEARING_SECONDS)

    def end(self) -> None:
        """End the container, read its log to the end, and remove it.

        One that cannot be removed now is found by its label later.
        """
        self._stopping = True
        if not self._over.is_set():
            with suppress(*_TROUBLE):
                self._container.kill()
        if self._writer.ident is not None:
            self._writer.join(_LAST_WORDS_SECONDS)
        with suppress(*_TROUBLE):
            self._container.remove(force=True, v=True)
        if self._watcher.ident is not None:
            self._watcher.join(10)

    def _write_log(self) -> None:
        with suppress(Exception), self._log.open("ab") as handle:
            for chunk in self._container.logs(stream=True, follow=True):
                handle.write(chunk)
                handle.flush()

    def _watch(self) -> None:
        try:
            self._ended = self._await_end()
        except EngineLost as lost:
            self._ended = lost
        except NotFound:
            self._ended = EngineLost("Somebody else removed the container.")
        except Exception:  # whatever it is, the engine no longer tells how the container does
            self._ended = EngineLost(f"{self._engine.title} stopped answering.")
        finally:
            self._over.set()

    def _was_told_to_end(self, finished: str) -> bool:
        """Whether the engine sent it a signal: an end of that kind says nothing of the server."""
        end = datetime.fromisoformat(finished).timestamp()
        # fractions of a second are the engine's to understand, whatever the SDK's types say
        events = self._engine.client.api.events(
            since=f"{end - _SIGNAL_SECONDS:.6f}",  # type: ignore[call-overload]
            until=f"{end + _NOTICE_SECONDS:.6f}",
            filters={"container": self._container.id, "event": "kill"},
        )
        return any(events)

    def _await_end(self) -> Ended:
        code = int(self._container.wait(timeout=None)["StatusCode"])
        self._container.reload()
        state = self._container.attrs["State"]
        killed_for_memory = bool(state["OOMKilled"])
        explained = killed_for_memory or self._stopping
        if not explained and self._was_told_to_end(str(state["FinishedAt"])):
            raise EngineLost("The container was ended from outside, as by an engine that restarts.")
        self._writer.join(5)  # the last words are part of the diagnosis
        signalled = 128 < code <= 128 + 64
        return Ended(128 - code if signalled else code, killed_for_memory)
