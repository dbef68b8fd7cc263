"""What vbisect itself costs: start-up, time beside the servers, memory.

Run it with the interpreter that has vbisect installed; without RUN_ARGUMENTS it makes the first
run of the README. Prints its figures, and last one JSON line:
``{"cold_start_ratio", "overhead_share", "peak_rss_mb"}``.

    python tests/bench/overhead.py [-- RUN_ARGUMENTS]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 10
ALONE = ("--jobs", "1")
"""What trials at once take would count twice."""

FIRST_RUN = [
    *("--from", "0.27.1", "--to", "0.32.0", "--endpoint", "generate", "--n", "4"),
    *("--serve-arg", "--enable-scale-out; >=0.30"),
]


def seconds_of(command: list[str]) -> float:
    """Wall time of one call, in seconds."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def cold_start() -> tuple[float, float]:
    """Median seconds of ``vbisect --version`` and of ``import typer``, measured in turn."""
    vbisect = [str(Path(sys.executable).with_name("vbisect")), "--version"]
    peer = [sys.executable, "-c", "import typer"]
    pairs = [(seconds_of(vbisect), seconds_of(peer)) for _ in range(ROUNDS)]
    ours, theirs = zip(*pairs, strict=True)
    return statistics.median(ours), statistics.median(theirs)


def peak_of(process: subprocess.Popen[str]) -> int:
    """The highest resident size of ``process`` itself (not its children), in kilobytes."""
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peak = max(peak, int(line.split()[1]))
        time.sleep(0.05)
    return peak


def one_run(arguments: list[str]) -> tuple[dict[str, object], float, int]:
    """The JSON of a run, its wall time in seconds, and vbisect's peak memory in kilobytes."""
    with tempfile.TemporaryDirectory() as results, tempfile.TemporaryFile("w+") as answer:
        command = [sys.executable, "-m", "vbisect", "run", "--json", "--results", results, *ALONE]
        began = time.perf_counter()
        process = subprocess.Popen([*command, *arguments], stdout=answer, text=True)
        peak = peak_of(process)
        wall = time.perf_counter() - began
        answer.seek(0)
        return json.loads(answer.read()), wall, peak


def main() -> None:
    """Measure and print."""
    arguments = sys.argv[2:] if sys.argv[1:2] == ["--"] else FIRST_RUN
    ours, theirs = cold_start()
    print(f"vbisect --version    {ours * 1000:7.1f} ms (median of {ROUNDS})")
    print(f"import typer         {theirs * 1000:7.1f} ms")
    run, wall, peak = one_run(arguments)
    trials = run["trials"]
    assert isinstance(trials, list)
    print(f"run                  {run['status']}, {len(trials)} trials, {wall:.1f} s")
    spent = 0.0
    for trial in trials:
        seconds = trial["seconds"]
        spent += seconds["fetch"] + seconds["boot"] + seconds["probe"]
        print(f"  {trial['version']:10} {trial['outcome']:5} {seconds}")
    print(f"fetch, boot, probe   {spent:7.1f} s; everything else {wall - spent:.2f} s")
    print(f"peak memory          {peak / 1024:7.1f} MB")
    figures = {
        "cold_start_ratio": round(ours / theirs, 3),
        "overhead_share": round((wall - spent) / wall, 4),
        "peak_rss_mb": round(peak / 1024, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
