"""Whose a run directory is: what its settings name is run, so those of others need a yes.

The cache directory has a ledger of the settings that this user's runs on this host began with, by
digest, so that a run may be moved, and no other can pass for it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from vbisect.errors import HostError
from vbisect.files import write_whole
from vbisect.launch.engine_version import VARIABLE, EngineAsked
from vbisect.paths import cache_root
from vbisect.run.settings import RunSettings
from vbisect.text import is_secret_name, one_line

_LONGEST = 10_000


def enter(run_dir: Path, content: bytes) -> None:
    """Remember the settings of the run in ``run_dir``, as its file has them, as this user's own."""
    entry = _entry(content)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        write_whole(entry, f"{run_dir.absolute()}\n")
    except OSError as error:
        raise HostError(f"The cache {entry.parent} cannot be written: {error.strerror}.") from error


def is_ours(content: bytes) -> bool:
    """Whether a run that this user began on this host has just these settings."""
    return _entry(content).is_file()


def what_would_run(settings: RunSettings) -> list[str]:
    """All that going on with a run starts, sets, asks and hands on, a line each."""
    return [f"  {name:<9} {_shown(text)}" for name, text in _would_run(settings)]


def _shown(text: str) -> str:
    """``text`` as a line; what is too long for one is counted, or its end could be overlooked."""
    line = one_line(text, sys.maxsize)
    more = len(line) - _LONGEST
    return line if more <= 0 else f"{line[:_LONGEST]}… AND {more} CHARACTERS MORE, NOT SHOWN"


def _entry(content: bytes) -> Path:
    return cache_root() / "runs" / hashlib.sha256(content).hexdigest()


def _would_run(s: RunSettings) -> Iterator[tuple[str, str]]:
    yield "releases", f"{len(s.versions)}, {s.versions[0]} … {s.versions[-1]}, as {s.runtime}"
    if s.command is not None:
        yield "command", shlex.join(s.command.command)
    for model, arguments in ((s.model_path, s.model_args), (s.control_path, s.control_args)):
        if model is not None:
            words = [str(each) for each in (*arguments, *s.log_args, *s.serve_args)]
            yield "serve", " ".join([model, *words])
    for name, value in (*s.model_env.items(), *s.control_env.items()):
        yield "variable", f"{name}={value}"
    if s.engine is not EngineAsked.AUTO:
        yield "engine", f"{s.engine}, by {VARIABLE}"
    for variable in s.variables:
        yield "variable", str(variable)
    wheels = (wheel for release in s.candidates for wheel in release.wheels.values())
    for index in dict.fromkeys(wheel.index for wheel in wheels if wheel.index):
        yield "index", index
    if s.docker is not None:
        yield "engine", s.docker.host or "Docker's own setting"
        named = (s.docker.image_of(release) for release in s.candidates)
        images = (image.partition("@")[0].rpartition(":")[0] or image for image in named)
        for image in dict.fromkeys((*images, *filter(None, [s.docker.base_image]))):
            yield "image", image
    if tokens := sorted(filter(is_secret_name, os.environ)):
        yield "tokens", f"yours can be read: {', '.join(tokens)}"
