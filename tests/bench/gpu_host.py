"""What knowing the driver saves: a run over all releases on a host with eight GPUs, twice.

``python tests/bench/gpu_host.py`` starts an engine and a registry with images of every release and
a nightly, each with the CUDA and the requirement of the real one, behind a stand-in for the
driver's library. It runs the documented first command with ``--try-all``, which is what a run did
before, and without; and with the ``cu129`` images too. The last line is JSON.

A pull is an image that was waited for; beside those, more or less of others is pulled ahead.
Virtual minutes are those of a real host: eight for a pull, two and a half for a boot, one after
the other.
"""

from __future__ import annotations

import json
import stat
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import standin.engine  # noqa: E402
from driving import Vbisect, events  # noqa: E402
from standin.behaviour import Behaviour  # noqa: E402
from standin.cuda_images import cuda_images  # noqa: E402
from standin.engine import Engine  # noqa: E402
from standin.family import family  # noqa: E402
from standin.images import ImageFamily  # noqa: E402
from standin.nvml import build_library, device, driver, gpu_environment  # noqa: E402
from standin.registry import LocalRegistry  # noqa: E402
from vbisect.releases import Device  # noqa: E402
from vbisect.run.times import USUAL_BOOT, USUAL_FETCH  # noqa: E402

NIGHTLY = "0123456789abcdef0123456789abcdef01234567"
DRIVERS = {"565.57.01": 12070, "580.65.06": 13000}


@dataclass(frozen=True)
class Took:
    """What one run took, and what it said."""

    driver: str
    images: str
    fixed: str
    before: bool
    pulls: int
    boots: int
    virtual_minutes: float
    skips: int
    answer: str


def fixed(since: str) -> Callable[[str, Behaviour], Behaviour]:
    """A bug of every release before ``since``."""

    def change(version: str, behaviour: Behaviour) -> Behaviour:
        broken = Version(version) < Version(since)
        return replace(behaviour, fail_rate={"chat": 1.0}) if broken else behaviour

    return change


def run(
    scratch: Path, images: ImageFamily, version: str, label: str, since: str, *, before: bool
) -> Took:
    """One run over ``images`` in an engine of its own."""
    with (
        Engine() as engine,
        family(scratch / "wheels", boot_seconds=0.0).index() as index,
    ):
        vbisect = Vbisect(index, scratch, scratch / "vbisect", scratch / "results")
        vbisect.on_engine(engine.url)
        gpus = [driver(version, DRIVERS[version]), *(device(f"GPU-{n}") for n in range(8))]
        host = gpu_environment(scratch / "nvml", scratch / "gpus", gpus)
        repository = images.reference("x").rpartition(":")[0]
        done = vbisect(
            *("run", "--runtime", "docker", "--from", "0.7.3", "--to", "nightly", "--n", "8"),
            *("--model", "tiny:qwen2", "--image-repo", repository, "--json", "--fresh"),
            *("--results", str(vbisect.results), *(["--try-all"] if before else [])),
            **host,
        )
        assert not vbisect.close()
    booted = [e["version"] for e in events(done.run_dir) if e["event"] == "build_ready"]
    pulls = len(set(booted))
    seconds = pulls * USUAL_FETCH["docker", Device.CUDA] + len(booted) * USUAL_BOOT
    return Took(
        driver=version,
        images=label,
        fixed=since,
        before=before,
        pulls=pulls,
        boots=len(booted),
        virtual_minutes=round(seconds / 60, 1),
        skips=sum(trial["outcome"] == "skip" for trial in done.json["trials"]),
        answer=done.json["message"],
    )


def main() -> None:
    """Print a line for each run, then all of them as one JSON line."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, LocalRegistry() as registry:
        scratch = Path(folder)
        hook = scratch / "tools" / "nvidia-container-runtime-hook"
        hook.parent.mkdir()
        hook.write_text("#!/bin/sh\nexec cat > /dev/null\n")
        hook.chmod(hook.stat().st_mode | stat.S_IEXEC)
        standin.engine.PATH = f"{hook.parent}:{standin.engine.PATH}"
        build_library(scratch / "nvml")
        for version, since, variants, before in (
            ("565.57.01", "0.12.0", False, True),
            ("565.57.01", "0.12.0", False, False),
            ("565.57.01", "0.12.0", True, False),
            ("565.57.01", "0.25.0", False, True),
            ("565.57.01", "0.25.0", False, False),
            ("565.57.01", "0.25.0", True, False),
            ("580.65.06", "0.25.0", True, False),
        ):
            label = "usual and cu129" if variants else "usual"
            name = f"bench/{version}-{since}-{'all' if variants else 'one'}"
            images = cuda_images(
                registry, name, version, fixed(since), nightly=NIGHTLY, variants=variants
            )
            took = run(scratch, images, version, label, since, before=before)
            rows.append(took)
            print(
                f"driver {version}, fixed in {since}, {label:<15} "
                f"{'before' if before else 'after ':<6}: "
                f"{took.pulls:>2} pulls, {took.boots:>2} boots, {took.virtual_minutes:>5} min, "
                f"{took.skips:>2} skips: {took.answer}",
                flush=True,
            )
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
