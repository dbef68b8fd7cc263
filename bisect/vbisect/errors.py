"""Errors a person can act on; each carries vbisect's documented exit code."""

from __future__ import annotations


class VbisectError(Exception):
    """One clear line for the screen; ``exit_code`` is what the process ends with."""

    exit_code = 4


class UsageError(VbisectError):
    """The command line, a file it names or a setting is wrong (exit code 2)."""

    exit_code = 2


class HostError(VbisectError):
    """This machine cannot do the run: no engine, no disk, no network (exit code 4)."""

    exit_code = 4


class EngineLost(HostError):
    """What runs the servers, or something it had, is gone; the trial can begin again after that."""


class Cancelled(Exception):
    """A trial was given up, by the user or because its outcome can no longer matter."""


class ProbeAbort(VbisectError):
    """The command probe asked for the whole run to stop (its exit status was 128 or above)."""

    exit_code = 4


class Interrupted(VbisectError):
    """The user stopped vbisect where there was no run to record it in (exit code 130)."""

    exit_code = 130
