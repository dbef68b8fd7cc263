"""Between the command line and the shell: exit codes, one-line errors, and the log of the rest."""

from __future__ import annotations

import errno
import io
import os
import sys
import termios
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import typer
    from typing_extensions import Buffer

_INTERRUPTED = 130
_UNEXPECTED = 4
_HOST = 4
_WRONG_USAGE = 2


def main() -> None:
    """Run vbisect; errors a user can act on are one line, all others go to a log."""
    try:
        _prepare_streams()
        from vbisect.cli import app
    except KeyboardInterrupt:  # importing takes a moment
        sys.exit(_interrupted())
    sys.exit(run_app(app))


def _prepare_streams() -> None:
    """Have nothing fail because nobody reads, nor for what the encoding cannot hold."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed: nobody wants to read it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif name == "stderr" or _is_terminal(getattr(sys, name)):
            setattr(sys, name, _for_people(getattr(sys, name)))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name may be no UTF-8


def _is_terminal(stream: TextIO) -> bool:
    """Whether it is one, or was: of one that was closed, ``isatty`` says no."""
    try:
        termios.tcgetattr(stream.fileno())
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)
    return True


class _ForPeople(io.FileIO):
    """What people may read; once nobody does any more, nothing fails for that."""

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):  # of a terminal, of a pipe
                raise
            return memoryview(data).nbytes


def _for_people(stream: TextIO) -> TextIO:
    """``stream`` without failing once it is closed at the other end."""
    raw = _ForPeople(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
    )


def run_app(app: typer.Typer) -> int:
    """Run the command line; returns the exit code, with at most one line said about an error."""
    code = 0
    try:
        result = app(standalone_mode=False)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        _nobody_reads()
    except SystemExit as over:
        if isinstance(over.__context__, BrokenPipeError):  # typer's own way with it
            return _nobody_reads()
        raise
    except Exception as error:
        return _explain(error)
    return code


def _interrupted() -> int:
    print("vbisect: interrupted", file=sys.stderr)
    return _INTERRUPTED


def _nobody_reads() -> int:
    """Whoever read the output has gone; nothing more can be said there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return 0


def _explain(error: Exception) -> int:
    import typer

    from vbisect import full_disk
    from vbisect.errors import VbisectError
    from vbisect.text import one_line

    if isinstance(error, VbisectError):
        print(f"vbisect: {one_line(str(error), 1000)}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, typer.Abort):
        return _interrupted()
    if isinstance(error, OSError) and full_disk.is_full(error):
        where = f": {one_line(str(error.filename))}" if error.filename else ""
        print(f"vbisect: the disk is full{where}", file=sys.stderr)
        return _HOST
    # typer's own usage errors: click's classes in older versions, its own copies in newer ones
    message = getattr(error, "format_message", None)
    if message is not None and type(error).__name__ == "NoArgsIsHelpError":
        print(message(), file=sys.stderr)
        return _WRONG_USAGE
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
