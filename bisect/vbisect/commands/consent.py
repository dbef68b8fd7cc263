"""What is run only after a yes: on a terminal, or by an option."""

from __future__ import annotations

import sys

from vbisect.errors import UsageError


def ask_to_run(option: str) -> None:
    """Ask on the terminal; raises ``UsageError`` without a yes. ``option`` says yes beforehand."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"Nothing was run: pass {option} to run that, or say yes on a terminal.")
    print("vbisect: run that? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("Nothing was run.")
