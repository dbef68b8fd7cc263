"""Runs of the real command over real vLLM, and what each answer has to hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

GENERATE = ["--endpoint", "generate", "--n", "4"]
SCALE_OUT = ["--serve-arg", "--enable-scale-out; >=0.30"]
ONCE = ["--confidence", "0.8"]
"""One boot of each release is enough, where a test does not ask about confidence."""
ONE_SERVER = ["--jobs", "1"]
"""Where a test says which trials come in which order."""


def start(results: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start ``vbisect run`` with its progress on this test's stderr; from wheels unless told."""
    command = [sys.executable, "-m", "vbisect", "run", *arguments, "--json"]
    if "--resume" not in arguments:
        command += ["--results", str(results)]
        command += [] if "--runtime" in arguments else ["--runtime", "venv"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run(results: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON answer of a run."""
    with start(results, *arguments) as process:
        output, _ = process.communicate()
    return process.returncode, json.loads(output)


def owned_processes(run_dir: Path) -> list[int]:
    """Processes that carry the mark of ``run_dir``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("VBISECT_OWNER") == str(run_dir):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def events(run_dir: Path) -> list[dict[str, Any]]:
    """The journal so far; a line being written is left out."""
    journal = run_dir / "journal.jsonl"
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    return [json.loads(line) for line in lines]


def assert_fixed_in_0_29(answer: dict[str, Any], confidence: float = 0.95) -> None:
    """The boundary, and observations behind every trial that was judged."""
    found = answer["answer"]
    assert (found["change"], found["last_before"], found["first_after"], found["exact"]) == (
        "fix",
        "0.28.0",
        "0.29.0",
        True,
    )
    assert found["confidence"] >= confidence
    for trial in answer["trials"]:
        if trial["outcome"] != "skip":
            assert trial["reported_version"] == trial["version"]
            seen = trial["observations"]
            assert seen["pass" if trial["outcome"] == "pass" else "fail"] >= 1
    assert {t["version"]: t["outcome"] for t in answer["trials"]}["0.28.0"] == "fail"
