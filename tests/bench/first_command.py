"""The README's first command on real servers, beside an older state of the project.

Run it with the interpreter that has vbisect's packages installed, on a quiet machine. Both states
run in turn, from an export of their commits, with one cache, in which the builds have to be already
(where they are not, the first row has their downloads); what vLLM itself caches is there from each
state's first row on. Prints a row for each run, and last one
JSON line, medians of seconds and of boots: ``{"before_s", "after_s", "ratio", "before_boots",
"after_boots"}``.

    python tests/bench/first_command.py [--before COMMIT] [--rounds N]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.overhead import FIRST_RUN

ROOT = Path(__file__).parents[2]
BEFORE = "2fa235f"
"""The last state that compiled for the tiny models, and kept one cache for all versions."""


def export(commit: str, folder: Path) -> Path:
    """The tree of ``commit`` below ``folder``; returns where its package is."""
    tree = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(tree.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "bisect"


def run(package: Path, results: Path) -> tuple[float, int, dict[str, object]]:
    """Wall seconds of the command, its boots, and its answer."""
    command = [sys.executable, "-m", "vbisect", "run", "--runtime", "venv", *FIRST_RUN]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--fresh", "--json", "--results", str(results)],
        env=os.environ | {"PYTHONPATH": str(package)},
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    seconds = time.monotonic() - began
    told = json.loads(done.stdout)
    journal = Path(told["run_dir"], "journal.jsonl").read_text(encoding="utf-8")
    boots = sum('"server_ready"' in line for line in journal.splitlines())
    return seconds, boots, told["answer"]


def main() -> None:
    parser = argparse.ArgumentParser(description="the README's first command, before and after")
    parser.add_argument("--before", default=BEFORE, help="a commit")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    took: dict[str, list[float]] = {"before": [], "after": []}
    boots: dict[str, list[int]] = {"before": [], "after": []}
    with tempfile.TemporaryDirectory() as folder:
        states = {"before": options.before, "after": "HEAD"}
        packages = {name: export(commit, Path(folder, name)) for name, commit in states.items()}
        for _ in range(options.rounds):
            for name, package in packages.items():
                seconds, number, answer = run(package, Path(folder, "results", name))
                took[name].append(seconds)
                boots[name].append(number)
                told = f"{answer['change']} in {answer['first_after']}, exact {answer['exact']}"
                print(f"{name:8} {seconds:7.1f} s  {number} boots  {told}", flush=True)
    before, after = (statistics.median(took[name]) for name in ("before", "after"))
    told_boots = {f"{name}_boots": statistics.median(boots[name]) for name in boots}
    figures = {"before_s": round(before, 1), "after_s": round(after, 1)}
    print(json.dumps(figures | {"ratio": round(after / before, 3)} | told_boots))


if __name__ == "__main__":
    main()
