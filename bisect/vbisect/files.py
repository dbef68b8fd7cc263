"""Files in folders that somebody else may have filled: links lead nowhere, names are single names.

What is read, made or removed is reached by the handle of its folder, so that no name, whatever it
holds, leads out of it.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vbisect.errors import UsageError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no pipe may keep us waiting


@dataclass(frozen=True)
class Below:
    """A place below ``top``; only ``top`` itself may be reached through links."""

    top: Path
    names: tuple[str, ...] = ()

    def __truediv__(self, name: str) -> Below:
        return Below(self.top, (*self.names, name))

    def open(self) -> BinaryIO:
        """The regular file that is there, for reading. Raises ``OSError``, also for a link."""
        *folders, name = self.names
        with _opened(self.top, folders) as folder:
            number = os.open(_single(name), os.O_RDONLY | _FILE, dir_fd=folder)
        return os.fdopen(_regular(number), "rb")

    def read(self, most: int) -> bytes:
        """All of it. Raises ``OSError``, also where it has more than ``most`` bytes."""
        with self.open() as handle:
            content = handle.read(most + 1)
        if len(content) > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return content


def append_to(path: Path, *, buffering: int = -1) -> BinaryIO:
    """A file opened to add to its end, made where there is none; ``buffering`` as of ``open``.

    Raises ``OSError`` for a link, symbolic or hard, and for what is no regular file.
    """
    number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FILE, 0o666)
    return os.fdopen(_regular(number, alone=True), "ab", buffering=buffering)


def write_whole(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Make or replace a file: it is written exclusively beside its place, then renamed there.

    ``durable`` waits until it is on disk. What UTF-8 cannot hold is escaped.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    part = f"{path.name}.part"
    with _opened(path.parent) as folder:
        with suppress(FileNotFoundError):  # of one that was killed
            os.unlink(part, dir_fd=folder)
        made = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
        number = os.open(part, made, 0o666, dir_fd=folder)
        try:
            with os.fdopen(number, "wb") as handle:
                handle.write(data)
                if durable:
                    handle.flush()
                    os.fsync(handle.fileno())
            os.rename(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(part, dir_fd=folder)
            raise


def remove_below(top: Path, name: str) -> None:
    """Remove what lies directly below the folder ``top`` as ``name``, with all that it holds.

    A link goes itself, and not what it leads to. Raises ``OSError``, also for what is no name.
    """
    with _opened(top) as folder:
        found = os.stat(_single(name), dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


_DEEPEST = 50
"""Folders in one another; those of a run are some five."""


def refuse_links(top: Path) -> None:
    """Raise ``UsageError`` where anything below ``top`` is neither a folder nor a file of its own.

    What is written there then goes nowhere else.
    """
    try:
        folder = os.open(top, _FOLDER)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UsageError(f"{top} cannot be read: {error.strerror}.") from None
    try:
        _refuse_links_in(folder, top, ())
    except OSError as error:
        raise UsageError(f"{top} is not gone on with: {error.strerror}.") from None
    finally:
        os.close(folder)


def _refuse_links_in(folder: int, top: Path, names: tuple[str, ...]) -> None:
    if len(names) > _DEEPEST:
        raise UsageError(f"{top} is not gone on with: its folders are nested too deeply.")
    for name in os.listdir(folder):
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:  # what has just gone leads nowhere
            continue
        if stat.S_ISDIR(found.st_mode):
            try:
                _refuse_links_in(inner, top, (*names, name))
            finally:
                os.close(inner)
        elif not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise UsageError(
                f"{top} is not gone on with: {'/'.join((*names, name))} is a link, or no regular "
                "file; what is written there could go elsewhere."
            )


@contextmanager
def _opened(top: Path, names: Sequence[str] = ()) -> Iterator[int]:
    """The handle of the folder that ``names`` lead to from ``top``."""
    folder = os.open(top, _FOLDER)
    try:
        for name in names:
            inner = os.open(_single(name), _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _single(name: str) -> str:
    """``name``, where it names an entry of a folder and nothing else."""
    try:
        held = os.fsencode(name)
    except UnicodeEncodeError:
        held = b""
    if held in (b"", b".", b"..") or b"/" in held or b"\0" in held:
        raise OSError(errno.EINVAL, "it is no name of a file")
    return name


def _regular(number: int, *, alone: bool = False) -> int:
    """``number``, where it is that of a regular file, and with ``alone`` of one with one name."""
    found = os.fstat(number)
    if stat.S_ISREG(found.st_mode) and not (alone and found.st_nlink > 1):
        return number
    os.close(number)
    raise OSError(errno.EINVAL, "it is a link, or no regular file")
