"""One image being fetched by the engine, with its progress, until it is there or given up."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any

import docker.auth
import requests
from urllib3.exceptions import HTTPError

from vbisect.engine.faults import raise_host_fault
from vbisect.errors import EngineLost, HostError
from vbisect.registry.certificates import CERTIFICATES
from vbisect.registry.credentials import credentials_for, login_advice
from vbisect.registry.reference import ImageReference
from vbisect.text import one_line

if TYPE_CHECKING:
    from vbisect.engine.connection import Engine


class Trouble(Enum):
    """What kind of trouble stopped a pull."""

    MISSING = r"manifest unknown|manifest for .* not found|not found: manifest|no matching manifest"
    REFUSED = r"unauthorized|access denied|\bdenied:|no basic auth|authentication required"
    UNTRUSTED = r"\bx509: |server gave HTTP response to HTTPS client|\btls: "
    BUSY = r"toomanyrequests|too many requests|\b429\b"
    CORRUPT = (
        r"verification failed|does not match|unexpected EOF|invalid (?:checksum|tar header)"
        r"|gzip: |archive/tar|digest mismatch|unexpected commit digest|failed to register layer"
    )
    PASSING = r"."  # a server error, a name not resolved, a connection refused

    @classmethod
    def of(cls, words: str) -> Trouble:
        """The first kind whose pattern is in an engine's ``words``."""
        return next(kind for kind in cls if re.search(kind.value, words or " ", re.IGNORECASE))


class PullFailed(Exception):
    """The engine gave a pull up; ``trouble`` is its kind, the message the engine's words."""

    def __init__(self, words: str) -> None:
        super().__init__(one_line(words))
        self.trouble = Trouble.of(words)


class PullCancelled(Exception):
    """The pull was given up on request."""


class PullStalled(Exception):
    """Nothing came for too long."""


class Pull:
    """Fetches ``name`` (``repository@sha256:…``); one thread runs it, any other may watch it.

    A pull whose connection is closed is given up by the engine (seen with 20.10).
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name
        self.last_sign = self._began = time.monotonic()
        self._layers: dict[str, tuple[int, bool]] = {}  # bytes so far, whether still downloading
        self._sizes: dict[str, int] = {}  # of those layers of which bytes have come
        self._fetched: set[str] = set()
        self._opened: Future[requests.Response] = Future()
        self._given_up: type[Exception] | None = None
        self._lock = threading.Lock()

    @property
    def done_bytes(self) -> int:
        """Compressed bytes that have come so far."""
        return sum(count for count, _ in list(self._layers.values()))

    @property
    def taken_bytes(self) -> int:
        """What the engine takes of it in all if it ends now: a second more is under way."""
        seconds = max(1.0, time.monotonic() - self._began)
        return self.done_bytes + (0 if self.fetched else int(self.done_bytes / seconds))

    @property
    def known_bytes(self) -> int:
        """Compressed bytes of those layers that the engine has begun to download."""
        return sum(list(self._sizes.values()))

    @property
    def measured(self) -> bool:
        """Whether these are all there are to come."""
        return self.announced and {*self._layers} <= {*self._sizes} | self._fetched

    @property
    def downloading(self) -> bool:
        """Whether bytes may be coming right now, rather than being unpacked."""
        layers = list(self._layers.values())
        return any(coming for _, coming in layers)

    @property
    def announced(self) -> bool:
        """Whether the engine has said which layers it is going to download."""
        return bool(self._layers)

    @property
    def fetched(self) -> bool:
        """Whether nothing is left to do but unpacking."""
        return self.announced and self._fetched.issuperset(list(self._layers))

    def run(self) -> None:
        """Pull until the image is there.

        Raises ``PullFailed``, ``PullCancelled``, ``PullStalled``, ``EngineLost`` or ``HostError``.
        """
        try:
            for event in self._events():
                self._take(event)
        except CancelledError:
            pass
        except (requests.exceptions.RequestException, HTTPError, OSError, ValueError) as error:
            if self._given_up is None:
                raise EngineLost(f"{self._engine.title} stopped answering.") from error
        if self._given_up is not None:
            raise self._given_up(self.name)

    def cancel(self) -> None:
        """Give it up."""
        self._give_up(PullCancelled)

    def stalled(self) -> None:
        """Give it up because nothing comes."""
        self._give_up(PullStalled)

    def _give_up(self, why: type[Exception]) -> None:
        with self._lock:
            self._given_up = self._given_up or why
            if not self._opened.cancel() and self._opened.exception() is None:
                with suppress(OSError, ValueError, RuntimeError):
                    self._opened.result().raw.shutdown()  # wakes the thread that reads

    def _open(self) -> None:
        """Ask for the image. The engine answers no sooner than the registry has told it of one."""
        api = self._engine.client.api
        name, _, digest = self.name.partition("@")
        registry = ImageReference.parse(self.name).registry
        credentials = credentials_for(registry)
        login = credentials.for_engine(registry) if credentials else {}
        try:
            response = api.post(
                f"{api.base_url}/v{api.api_version}/images/create",
                params={"fromImage": name, "tag": digest},
                headers={"X-Registry-Auth": docker.auth.encode_header(login)},
                stream=True,
                timeout=None,
            )
        except Exception as error:
            with suppress(InvalidStateError):
                self._opened.set_exception(error)
            return
        try:
            self._opened.set_result(response)
        except InvalidStateError:  # given up meanwhile
            response.close()

    def _events(self) -> Iterator[dict[str, Any]]:
        if self._given_up is not None:
            return
        # a thread of its own, for nothing wakes one that waits for an answer
        threading.Thread(target=self._open, name="ask for a pull", daemon=True).start()
        with self._opened.result() as response:
            if response.status_code != 200:
                self._raise_for(_message(response.content))
            for line in response.iter_lines():
                if line:
                    yield json.loads(line)

    def _take(self, event: dict[str, Any]) -> None:
        self.last_sign = time.monotonic()
        if "error" in event:
            self._raise_for(str(event["error"]))
        layer, status = str(event.get("id", "")), str(event.get("status", ""))
        count, _ = self._layers.get(layer, (0, False))
        if status == "Downloading":
            detail = event.get("progressDetail", {})
            self._layers[layer] = (int(detail.get("current") or count), True)
            self._sizes[layer] = max(int(detail.get("total") or 0), self._layers[layer][0])
            self._fetched.discard(layer)  # it came damaged
        elif status in ("Download complete", "Verifying Checksum", "Extracting", "Pull complete"):
            self._layers[layer] = (self._sizes.get(layer, count), False)
            self._fetched.add(layer)
        elif status in ("Pulling fs layer", "Waiting"):
            self._layers[layer] = (count, False)

    def _raise_for(self, words: str) -> None:
        """Raise what an engine's ``words`` about this pull mean."""
        raise_host_fault(words)
        failed = PullFailed(words)
        registry = ImageReference.parse(self.name).registry
        if failed.trouble is Trouble.UNTRUSTED:
            raise HostError(
                f"The engine does not trust {registry} ({failed}): on its host, name the "
                f"authority in {CERTIFICATES / registry}/ca.crt, or {registry} among the engine's "
                "insecure-registries."
            )
        if failed.trouble is Trouble.REFUSED:
            raise HostError(
                f"{registry} does not let the engine pull {self.name} ({failed}); "
                f"log in with {login_advice(registry)}."
            )
        raise failed


def _message(content: bytes) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(content)["message"])
    return content.decode(errors="replace")
