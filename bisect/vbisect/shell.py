"""Between the command line and the shell: exit codes, one-line errors, and the log of the rest."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

_INTERRUPTED = 130
_UNEXPECTED = 4
_HOST = 4
_WRONG_USAGE = 2


def run_app(app: typer.Typer) -> int:
    """Run the command line; returns the exit code, with at most one line said about an error."""
    try:
        result = app(standalone_mode=False)
    except KeyboardInterrupt:
        print("vbisect: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # whoever read the output has gone; nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _explain(error)
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> int:
    import typer

    from vbisect.errors import VbisectError
    from vbisect.text import one_line

    if isinstance(error, VbisectError):
        print(f"vbisect: {one_line(str(error), 1000)}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, typer.Abort):
        print("vbisect: interrupted", file=sys.stderr)
        return _INTERRUPTED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        print(f"vbisect: the disk is full: {one_line(str(error.filename or ''))}", file=sys.stderr)
        return _HOST
    # typer's own usage errors: click's classes in older versions, its own copies in newer ones
    message = getattr(error, "format_message", None)
    if message is not None:
        print(f"vbisect: {one_line(message())}", file=sys.stderr)
        return _WRONG_USAGE
    log = _write_trace()
    print(
        f"vbisect: unexpected {type(error).__name__}: {one_line(str(error))} (details in {log})",
        file=sys.stderr,
    )
    return _UNEXPECTED


def _write_trace() -> Path:
    from datetime import UTC, datetime

    from platformdirs import user_log_path

    from vbisect.text import redact

    log = user_log_path("vbisect") / "errors.log"
    text = f"{datetime.now(UTC).isoformat()}\n{redact(traceback.format_exc())}\n"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as handle:
            handle.write(text)
    except OSError:
        sys.stderr.write(text)
    return log
