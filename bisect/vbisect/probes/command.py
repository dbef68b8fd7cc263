"""The command probe: any command, its exit status read as ``git bisect run`` reads it.

https://git-scm.com/docs/git-bisect#_bisect_run
"""

from __future__ import annotations

import os
import time

from pydantic import BaseModel, ConfigDict, Field

from vbisect.amounts import Timeout
from vbisect.errors import Cancelled, ProbeAbort
from vbisect.launch.inherited import with_loopback_direct
from vbisect.probes.interface import FailureKind, Observation, ProbeTarget
from vbisect.processes import OWNER_VARIABLE, Guarded
from vbisect.reasons import SkipReason, Untestable
from vbisect.text import scrub_file

_SKIP_STATUS = 125
_FIRST_ABORT_STATUS = 128
_GLANCE_SECONDS = 0.25
"""How often a command that goes on is looked after."""


class CommandSettings(BaseModel):
    """The command with its arguments, and how long one call may take, in seconds."""

    model_config = ConfigDict(frozen=True)

    command: tuple[str, ...] = Field(min_length=1)
    timeout: Timeout = 600


class CommandProbe:
    """Runs a command against the server: 0 pass, 1–127 fail, 125 skip, 128 and above abort."""

    def __init__(self, settings: CommandSettings) -> None:
        self._settings = settings

    def observe(self, target: ProbeTarget) -> Observation:
        """Run the command once; its output is appended to the trial's ``command.log``.

        A command ended by a signal counts as status 128 + the signal, as in a shell.
        """
        log = target.directory / "command.log"
        started = time.monotonic()
        try:
            with Guarded(
                self._settings.command,
                log=log,
                environment={**with_loopback_direct(os.environ), **_variables(target)},
                grace=2,
            ) as process:
                code = _wait(process, started + self._settings.timeout, target)
        except OSError as error:
            raise ProbeAbort(f"The command cannot be run: {error}.") from None
        finally:
            scrub_file(log)
        seconds = time.monotonic() - started
        if code is None:
            raise Untestable(
                SkipReason.COMMAND_TIMEOUT,
                f"the command did not end within {self._settings.timeout:g} s",
            )
        status = code if code >= 0 else 128 - code
        evidence = {"exit_status": status}
        if status == 0:
            return Observation(passed=True, seconds=seconds, evidence=evidence)
        if status == _SKIP_STATUS:
            raise Untestable(SkipReason.COMMAND_SKIPPED, "the command ended with exit status 125")
        if status >= _FIRST_ABORT_STATUS:
            raise ProbeAbort(
                f"The command ended with exit status {status} for {target.version}, which asks "
                "for the run to stop."
            )
        return Observation(
            passed=False,
            kind=FailureKind.COMMAND_FAILED,
            signature=f"the command ended with exit status {status}",
            seconds=seconds,
            evidence=evidence,
        )


def _wait(process: Guarded, until: float, target: ProbeTarget) -> int | None:
    """The command's return code, ``None`` when it does not end in time."""
    while (left := until - time.monotonic()) > 0:
        code = process.wait(min(left, _GLANCE_SECONDS))
        if code is not None:
            return code
        if target.given_up.is_set():
            raise Cancelled
    return process.poll()


def _variables(target: ProbeTarget) -> dict[str, str]:
    return {
        "VBISECT_BASE_URL": target.base_url,
        "VBISECT_VERSION": target.version,
        "VBISECT_MODEL": target.model,
        "OPENAI_BASE_URL": f"{target.base_url}/v1",
        "OPENAI_API_KEY": target.api_key,
        OWNER_VARIABLE: str(target.owner.absolute()),
    }
