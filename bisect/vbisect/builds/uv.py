"""Run uv under guard, so that a killed vbisect leaves no install running."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vbisect import full_disk
from vbisect.builds.pip_settings import uv_environment
from vbisect.errors import Cancelled, EngineLost, HostError
from vbisect.processes import Guarded, scratch_directory
from vbisect.reasons import SkipReason, Untestable
from vbisect.releases.index import TO_CHECK
from vbisect.text import one_line

_NETWORK = re.compile(
    r"dns error|error sending request|Failed to fetch|Could not connect|Connection refused"
    r"|timed out|tcp connect error|Network unreachable",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class UvResult:
    """A finished uv command and everything it printed."""

    returncode: int
    output: str

    @property
    def network_failed(self) -> bool:
        """Whether the failure lies in reaching an index, not in what the index holds."""
        return self.returncode != 0 and _NETWORK.search(self.output) is not None

    @property
    def disk_full(self) -> bool:
        """Whether the failure is a full disk."""
        return self.returncode != 0 and full_disk.line_about(self.output) is not None

    @property
    def reason(self) -> str:
        """uv's own words for the failure, on one line."""
        lines = self.output.splitlines()
        # progress and warnings come first, the error and what led to it last
        start = next((i for i, line in enumerate(lines) if line.startswith("error:")), 0)
        text = " ".join(
            re.sub(r"^\s*(error:|cause:|hint:|[×╰─▶├│]+)\s*", "", x) for x in lines[start:]
        )
        text = re.sub(r"\{[^{}]*\}", "", text)  # platform markers on every package name
        return one_line(text.replace("No solution found when resolving dependencies", ""), 600)


def run_uv(
    arguments: Sequence[str],
    *,
    directory: Path,
    cancel: threading.Event | None = None,
    retry: bool = True,
) -> UvResult:
    """Run ``uv ARGUMENTS`` with pip's settings, in ``directory`` (so no project file is read).

    With ``retry`` off, an index that does not answer is not asked again. Raises ``Cancelled`` when
    ``cancel`` is set before it has finished, ``EngineLost`` when it was ended from outside.
    """
    from uv import find_uv_bin

    with scratch_directory() as scratch:
        log = scratch / "uv.log"
        environment = uv_environment() if retry else {**uv_environment(), "UV_HTTP_RETRIES": "0"}
        command = [find_uv_bin(), *arguments, "--color", "never", "--no-progress"]
        if arguments[0] == "pip" and environment.get("UV_NO_INDEX"):
            command.append("--no-index")  # uv ignores the variable (seen with 0.13.9)
        with Guarded(
            command, log=log, environment=environment, directory=directory, grace=2
        ) as process:
            while (code := process.wait(0.1)) is None:
                if cancel is not None and cancel.is_set():
                    raise Cancelled
            if code < 0:
                raise EngineLost(f"uv was ended by signal {-code}.")
        return UvResult(code, log.read_text(encoding="utf-8", errors="replace"))


def failure(result: UvResult, what: str) -> HostError | Untestable:
    """The error a failed command amounts to: the host's own trouble, or this release's."""
    if result.disk_full:
        return HostError(f"The disk is full: {result.reason}. `vbisect clean` frees environments.")
    if result.network_failed:
        return HostError(
            f"The package index cannot be reached. {TO_CHECK}, then resume the run. "
            f"({result.reason})"
        )
    return Untestable(SkipReason.NOT_INSTALLABLE, f"{what}: {result.reason}")
