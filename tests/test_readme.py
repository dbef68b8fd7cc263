"""What the README says is what the recorded run and the project's own checks say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tools.refresh_results import PICTURE, rendered

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def recorded_run() -> Path:
    """The run in results/ that the README shows."""
    [name] = set(re.findall(r"\(results/([^)/]+)/report\.md\)", README))
    return ROOT / "results" / name


def table_of(text: str) -> list[str]:
    """The lines of the table of trials in a Markdown text."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| version | outcome"))
    return [line for line in lines[start : start + 12] if line.startswith("|")]


def test_the_table_is_the_recorded_one() -> None:
    report = (recorded_run() / "report.md").read_text(encoding="utf-8")
    assert table_of(README) == table_of(report)
    assert "fixed in 0.29.0; 0.28.0 is the last failing release" in report


def test_the_recorded_run_still_renders() -> None:
    command = [sys.executable, "-m", "vbisect", "report", str(recorded_run()), "--format", "md"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert table_of(done.stdout) == table_of(README)


def test_what_is_kept_of_the_recorded_run_is_what_it_renders_to() -> None:
    """After a change to a report: ``python tests/tools/refresh_results.py``."""
    for name, text in rendered(recorded_run()).items():
        assert (recorded_run() / name).read_text(encoding="utf-8") == text, name


def test_the_picture_is_there() -> None:
    picture = recorded_run() / PICTURE
    assert f"({picture.relative_to(ROOT)})" in README
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 300_000


def test_the_first_command_is_the_recorded_one() -> None:
    first = README.split("```")[1]
    arguments = first.partition("vbisect run ")[2].split()
    report = (recorded_run() / "report.md").read_text(encoding="utf-8")
    replayed = report.partition("    vbisect run ")[2].splitlines()[0].split()
    assert set(arguments) <= set(replayed)


def test_ci_runs_what_the_readme_tells() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for step in README.split("```")[3].split("&&"):
        assert step.strip() in ci


def test_nothing_recorded_is_secret_or_of_a_private_directory() -> None:
    for path in recorded_run().rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not re.search(r"hf_[A-Za-z0-9]{30}|gh[pousr]_[A-Za-z0-9]{20}", text), path
            assert "/tmp/" not in text.replace("/tmp/vbisect-", ""), path
