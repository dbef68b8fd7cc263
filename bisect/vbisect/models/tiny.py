"""Writes a tiny model as a directory that vLLM can serve without any network."""

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vbisect.files import remove_below
from vbisect.models import qwen2, qwen2_5_vl

_FILES: dict[str, Callable[[], dict[str, str]]] = {
    "tiny:qwen2": qwen2.files,
    "tiny:qwen2_5_vl": qwen2_5_vl.files,
}
TINY_MODELS: tuple[str, ...] = tuple(_FILES)


class UnknownTinyModel(ValueError):
    """Asked for a tiny model that does not exist."""


def tiny_model_files(name: str) -> dict[str, bytes]:
    """The files of a tiny model: file name → contents, the same bytes on every call.

    Raises UnknownTinyModel when `name` is not in TINY_MODELS.
    """
    if name not in _FILES:
        raise UnknownTinyModel(f"no tiny model {name!r}; there are: {', '.join(TINY_MODELS)}")
    return {file: text.encode() for file, text in _FILES[name]().items()}


def tiny_model_digest(name: str) -> str:
    """`sha256:…` over names and contents: equal exactly when the files are.

    Raises UnknownTinyModel.
    """
    digest = hashlib.sha256()
    for file, contents in sorted(tiny_model_files(name).items()):
        digest.update(f"{file}\0{len(contents)}\0".encode() + contents)
    return f"sha256:{digest.hexdigest()}"


def write_tiny_model(name: str, directory: Path) -> Path:
    """Make `directory` hold the tiny model `name`, and return it.

    It appears complete or not at all, also when several processes write it at once, and is left
    alone when it already holds exactly these files; what was removed of it is added. Readable by
    everyone, because a container may run the server as another user.
    Raises UnknownTinyModel, FileExistsError when something else is there, OSError as writing does.
    """
    files = tiny_model_files(name)
    if _holds(directory, files):
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for file, contents in files.items():
            (draft / file).write_bytes(contents)
            (draft / file).chmod(0o644)
        draft.chmod(0o755)
        draft.rename(directory)
    except OSError as error:
        if _holds_part_of(directory, files):
            for file in files:
                (draft / file).replace(directory / file)
        _discard(draft)
        if _holds(directory, files):
            return directory  # another process was faster
        if directory.exists():
            raise FileExistsError(f"{directory} exists and does not hold {name}") from error
        raise
    except BaseException:
        _discard(draft)
        raise
    return directory


def _discard(draft: Path) -> None:
    with suppress(OSError):
        remove_below(draft.parent, draft.name)


def _holds_part_of(directory: Path, files: dict[str, bytes]) -> bool:
    """Whether `directory` holds some of `files` and nothing else."""
    try:
        there = {entry.name for entry in directory.iterdir()}
        return there < files.keys() and all((directory / f).read_bytes() == files[f] for f in there)
    except OSError:
        return False


def _holds(directory: Path, files: dict[str, bytes]) -> bool:
    """Whether `directory` holds exactly `files`."""
    try:
        if {entry.name for entry in directory.iterdir()} != files.keys():
            return False
        return all((directory / file).read_bytes() == files[file] for file in files)
    except OSError:
        return False
