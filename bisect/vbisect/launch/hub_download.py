"""Fetch of a hub's model what vLLM loads, into the cache that vLLM reads; a script, never imported.

Usage: ``python -I hub_download.py MODEL REVISION`` by the Python of a release, with the variables
of its servers; no ``REVISION``: the hub's own choice. It prints JSON objects, one a line: ``total``
and ``bytes`` (of it on disk) once a second, then one of

- ``commit``: all of it is there;
- ``left``: it is for the servers to find, for this reason;
- ``failed``: gated, missing, unreachable, refused, disk; with ``detail``.

It has to run wherever vLLM 0.7.3 does: Python 3.9, huggingface_hub 0.26 and all after it.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

# only plain downloads keep what they have of a file when they end: those of hf_transfer are removed
# (huggingface_hub 0.28 to 0.36, file_download.py), and xet writes nothing that grows with them
os.environ["HF_HUB_ENABLE_HF_TRANSFER"] = "0"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
"""The first of these that a model has is what vLLM takes (``default_loader.py``, "auto")."""

NO_CONFIGURATION = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack", "*.ot", "*.npz"),
    *("*.onnx", "*.onnx_data", "*.tflite", "*.ckpt", "*.mlmodel", "*.nemo", "*.llamafile"),
    *("*.engine", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.mp4", "*.pdf", "*.zip"),
)
"""What is not taken beside them, of what a model's folder may hold; the rest is configuration."""

MODELSCOPE = "VLLM_USE_MODELSCOPE"
SAY_SECONDS = 1.0
CHUNK = 256 * 1024


def tell(**told: object) -> None:
    """One line for whoever waits."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def weights_of(names: list[str]) -> list[str]:
    """The weights that vLLM loads: of the kind that is beside a model's configuration."""
    for pattern in WEIGHTS:
        if any("/" not in name for name in fnmatch.filter(names, pattern)):
            return fnmatch.filter(names, pattern)
    return []


def configuration_of(names: list[str]) -> list[str]:
    """The files that a server may read beside them."""
    return [n for n in names if not any(fnmatch.fnmatchcase(n, p) for p in NO_CONFIGURATION)]


def cached(model: str, revision: str | None) -> bool:
    """Whether weights of it are in the cache; if all are, only the hub knows."""
    from huggingface_hub import snapshot_download

    for pattern in WEIGHTS:
        with contextlib.suppress(Exception):
            folder = snapshot_download(
                model, revision=revision, allow_patterns=[pattern], local_files_only=True
            )
            if any(Path(folder).rglob(pattern)):
                return True
    return False


class Progress:
    """How much of the files is on disk; ``names`` are those of their blobs in the cache."""

    def __init__(self, blobs: Path, names: set[str], total: int) -> None:
        self._blobs, self._names, self.total = blobs, names, total
        self._before = {path.name for path in self._files()}

    def done(self) -> int:
        """Bytes, those of unfinished files among them."""
        found = 0
        for path in self._files():
            try:
                stat = path.stat()
            except OSError:  # finished, and so renamed, just now
                continue
            # a file may be made as long as it is to be before anything is in it
            whole = not path.name.endswith(".incomplete")
            found += stat.st_size if whole else min(stat.st_size, stat.st_blocks * 512)
        return min(found, self.total)

    def remove_useless(self) -> None:
        """Newer clients name unfinished files at random (``ETAG.RANDOM.incomplete``), and so never
        find them again."""
        for path in self._files():
            if path.name.count(".") > 1 and path.name not in self._before:
                path.unlink()

    def keep_telling(self) -> None:
        """As long as the process runs."""
        over = threading.Event()
        while not over.wait(SAY_SECONDS):
            tell(total=self.total, bytes=self.done())

    def _files(self) -> list[Path]:
        try:
            found = list(self._blobs.iterdir())
        except OSError:
            return []
        return [path for path in found if path.name.partition(".")[0] in self._names]


def failure(error: BaseException | None) -> dict[str, str]:
    """Why it could not be had, typed; left to the servers where nobody can tell."""
    detail = " ".join(str(error).split())[:300]
    of_network = False
    while error is not None:
        names = {kind.__name__ for kind in type(error).__mro__}
        status = getattr(getattr(error, "response", None), "status_code", None)
        if "GatedRepoError" in names:
            return {"failed": "gated", "detail": detail}
        if "RepositoryNotFoundError" in names or "RevisionNotFoundError" in names:
            return {"failed": "missing", "detail": detail}
        if status in (401, 403):
            return {"failed": "gated", "detail": detail}
        if status is not None:
            return {"failed": "refused", "detail": f"HTTP {status}"}
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or getattr(error, "filename", None):  # what is in a network has no name of a file
            return {"failed": "disk", "detail": detail}
        of_network = of_network or isinstance(error, OSError) or "HTTPError" in names
        error = error.__cause__ or error.__context__
    return {"failed": "unreachable", "detail": detail} if of_network else {"left": detail}


def main() -> None:
    model, revision = sys.argv[1], sys.argv[2] or None
    if os.environ.get(MODELSCOPE, "").lower() in ("1", "true"):
        tell(left=f"{MODELSCOPE} is set")
        return
    try:
        from huggingface_hub import HfApi, constants, snapshot_download
    except Exception as error:
        tell(left=f"this release has no huggingface_hub of use ({type(error).__name__})")
        return
    if constants.HF_HUB_OFFLINE:
        tell(left="HF_HUB_OFFLINE is set")
        return
    try:
        info = HfApi().model_info(model, revision=revision, files_metadata=True)
    except Exception as error:
        if cached(model, revision):  # vLLM takes it from there too
            tell(left="the hub does not tell of it, and the cache has it")
        else:
            tell(**failure(error))
        return
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK  # on disk sooner, so that progress is seen
    files = {file.rfilename: file for file in info.siblings or ()}
    cache = Path(constants.HF_HUB_CACHE)
    blobs = cache / ("models--" + model.replace("/", "--")) / "blobs"

    def progress_of(names: list[str]) -> Progress:
        known = {getattr(files[n].lfs, "sha256", None) or str(files[n].blob_id) for n in names}
        return Progress(blobs, known, sum(files[name].size or 0 for name in names))

    heavy = weights_of(list(files))
    if not heavy or any(files[name].size is None for name in heavy):
        tell(left="the hub does not tell how large its weights are")
        return
    wanted = [*configuration_of(list(files)), *heavy]
    weights, progress = progress_of(heavy), progress_of(wanted)
    total = progress.total
    tell(total=total, bytes=progress.done())
    try:
        cache.mkdir(parents=True, exist_ok=True)
        missing, free = total - progress.done(), shutil.disk_usage(cache).free
        if missing > free:
            text = f"{missing / 1e9:.1f} GB are missing, and {cache} has room for {free / 1e9:.1f}"
            tell(failed="disk", detail=text)
            return

        def end(*_: object) -> None:
            progress.remove_useless()
            os._exit(128 + signal.SIGTERM)

        signal.signal(signal.SIGTERM, end)
        threading.Thread(target=progress.keep_telling, daemon=True).start()
        patterns = [glob.escape(name) for name in wanted]
        snapshot_download(model, revision=revision, allow_patterns=patterns)
    except Exception as error:
        told = failure(error)
        if weights.done() == weights.total:
            # as in a cache that nobody may write to, filled by servers, which take less beside them
            told = {"left": f"the cache has the weights, and no more can be had ({error})"}
        tell(**told)
        return
    tell(total=total, bytes=total, commit=info.sha)


if __name__ == "__main__":
    main()
