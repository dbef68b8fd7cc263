"""The programs that keep logins for Docker, ``docker-credential-…``.

https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from contextlib import suppress

from pydantic import BaseModel, Field, ValidationError

from vbisect.text import one_line

_SECONDS = 30.0
"""How long it may take; some ask a cloud, or a person."""

_MOST_BYTES = 1 << 16

_NOTHING = ("credentials not found in native keychain", "no credentials server URL")
"""https://github.com/docker/docker-credential-helpers/blob/master/credentials/error.go"""


class HelperFailed(Exception):
    """It gave no answer; the message names it, with its own words."""


class _Kept(BaseModel):
    username: str = Field(alias="Username")
    secret: str = Field(alias="Secret", repr=False)


def ask_helper(name: str, server: str) -> tuple[str, str] | None:
    """User name and secret that ``docker-credential-NAME`` has for ``server``, if any.

    Raises ``HelperFailed``.
    """
    program = f"docker-credential-{one_line(name)}"
    path = shutil.which(program)
    if path is None:
        raise HelperFailed(f"{program}, which Docker's configuration names, is not in PATH")
    try:
        code, output, errors = _run([path, "get"], server.encode())
    except OSError as error:
        raise HelperFailed(f"{program} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise HelperFailed(f"{program} gave no answer within {_SECONDS:g} s") from None
    words = output.decode(errors="replace")
    if code:
        if any(nothing in words for nothing in _NOTHING):
            return None
        if '"Secret"' in words:
            words = ""
        words = one_line(f"{words} {errors.decode(errors='replace')}") or f"exit status {code}"
        raise HelperFailed(f"{program} failed: {words}")
    try:
        kept = _Kept.model_validate_json(words)
    except ValidationError:
        raise HelperFailed(f"{program} answered, but not with a login") from None
    return kept.username, kept.secret


def _run(command: list[str], said: bytes) -> tuple[int, bytes, bytes]:
    """Exit status and output; ended with all it started, where that takes too long or is too much.

    Nothing of it is written to a file. Raises ``OSError`` and ``subprocess.TimeoutExpired``.
    """
    until = time.monotonic() + _SECONDS
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(said)
                process.stdin.close()
            read = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
            with selectors.DefaultSelector() as waiting:
                for stream in read:
                    waiting.register(stream, selectors.EVENT_READ)
                while waiting.get_map():
                    ready = waiting.select(max(0.0, until - time.monotonic()))
                    for key, _ in ready:
                        piece = os.read(key.fd, 1 << 16)
                        read[key.fd] += piece
                        if not piece:
                            waiting.unregister(key.fd)
                    if not ready:
                        raise subprocess.TimeoutExpired(command, _SECONDS)
                    if sum(map(len, read.values())) > _MOST_BYTES:
                        os.killpg(process.pid, signal.SIGKILL)
                        break
            output, errors = read.values()
            return process.wait(max(0.0, until - time.monotonic())), output, errors
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
