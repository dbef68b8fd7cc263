"""What a runtime is: it fetches builds of releases, and runs servers from them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from vbisect.launch import Ended, LaunchSpec, Server
from vbisect.releases import Release
from vbisect.run.capacity import Capacity
from vbisect.run.records import Build
from vbisect.run.settings import RunSettings

Say = Callable[[str], None]
"""Called with one line about what is going on, for the eye only."""


Poll = Callable[[], Ended | None]
"""How a process ended, ``None`` while it runs. Raises ``EngineLost``."""


@dataclass(frozen=True)
class Fetched:
    """A build that is on the host. ``launch`` gives a ready server for the duration of its block,
    unless the event is set meanwhile.

    ``python`` runs a script by its Python, where its servers run and with what they have: their
    variables, their caches; output goes to the log. While its block lasts, what it gives tells how
    the script ended.

    ``evidence`` is what is worth keeping about the build and the host it runs on, as JSON values;
    ``size_bytes`` what the build takes of the disk, ``None`` where nobody has counted.
    """

    build: Build
    evidence: dict[str, Any]
    launch: Callable[[LaunchSpec, threading.Event], AbstractContextManager[Server]]
    python: Callable[[LaunchSpec, Sequence[str]], AbstractContextManager[Poll]]
    notes: tuple[str, ...] = ()
    size_bytes: int | None = None


def from_environment(settings: RunSettings, names: Iterable[str]) -> list[str]:
    """What servers take from the user's environment, for the evidence.

    ``names`` are of what is recorded without its value.
    """
    return [*(variable.text for variable in settings.inherited), *sorted(names)]


class Runtime(Protocol):
    """One way to get builds and to run them, for one run."""

    lookahead: int
    """How many trials ahead it is worth fetching."""

    stops_beside: bool
    """Whether a server may still be stopping while the next one boots."""

    def expect(self, releases: Sequence[Release], keep: Sequence[Release], *, of_use: int) -> None:
        """Fetch ``releases`` beside other work, in this order; give up what is not among them.

        So many of them are sure to be ``of_use``: what is under trial, which comes first, and of
        the rest as many as will be tested whichever those are. ``keep`` are builds that may be
        needed again, the more useful first.
        """
        ...

    def fetch(self, release: Release, given_up: threading.Event) -> Fetched:
        """The build of ``release``, one of those expected, waiting for it; in any thread.

        Raises ``Untestable`` when it cannot be had, ``HostError`` when no other could be either,
        ``EngineLost`` when whatever runs the servers has gone, ``Cancelled`` once it is
        ``given_up``.
        """
        ...

    def arrived(self, releases: Sequence[Release]) -> dict[str, float]:
        """The share, in [0, 1], of each build that is on the host, by version, at a glance.

        Those of which nothing is known to be there are left out.
        """
        ...

    def digest(self, release: Release) -> str | None:
        """The digest of its build without fetching it, ``None`` where that is not known."""
        ...

    def recover(self) -> None:
        """Wait until what was lost is back; raises ``HostError`` when it does not come back."""
        ...

    def capacity(self) -> Capacity:
        """What the host has for its servers, beside what is there."""
        ...

    def end_orphans(self) -> int:
        """End what a killed vbisect left running; returns how much that was."""
        ...

    def close(self, needless: Sequence[Release]) -> None:
        """Give up what is still being fetched, and remove the builds of ``needless`` releases that
        this run fetched in vain."""
        ...
