"""How good the search is: boots, virtual time and wrong answers over many random truths.

Every row searches its own truths in virtual time, as ``vbisect simulate`` does; seeds are fixed, so
that all but the times of picks are the same at each call and with any number of processes. Behind
what was measured stands what it must reach, with ``ok`` or ``MISSED``; the exit code is 0 either
way. Takes about ten minutes on two cores.

The columns: runs; exact answers that are right out of all of them, and the mean confidence these
state; the share of runs with a wrong exact answer; answers with suspects, right/wrong; answers of
no change (wrong ones); and the means of boots, requests and minutes.

The peer for flaky servers is git-bayesect (https://pypi.org/project/git-bayesect/), through its own
class, with one request a boot. Last comes one JSON line with the figures by row.

    python tests/bench/search.py [--truths N] [--only WORDS]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.calibration import Bin, calibrate
from bench.search_rows import (
    PICK_TIMES,
    ROWS,
    Bench,
    Check,
    Line,
    as_json,
    bin_line,
    pick_times,
)
from vbisect.simulate import Summary

COLUMNS = (
    f"{'':33} {'runs':>4} {'right/exact':>11} {'stated':>6} {'exact wrong':>11} {'suspects':>8} "
    f"{'none':>10} {'boots':>6} {'requests':>8} {'minutes':>7}"
)


def print_line(line: Line) -> None:
    """One line of the table."""
    measured = line.measured
    cells = _summary(measured) if isinstance(measured, Summary) else ""
    if isinstance(measured, Bin):
        cells = (
            f"stated {measured.low:.4f}-{measured.high:.4f} (mean {measured.stated:.4f}): "
            f"{measured.right} of {measured.answers} right"
        )
    checks = ", ".join(_check(check) for check in line.checks)
    print(f"{line.name:33} {cells}  {checks}".rstrip(), flush=True)


def _summary(ours: Summary) -> str:
    exact = ours.exact_right + ours.exact_wrong
    stated = "-" if ours.stated_mean is None else f"{ours.stated_mean:.4f}"
    return (
        f"{ours.runs:4} {f'{ours.exact_right}/{exact}':>11} {stated:>6} "
        f"{ours.exact_wrong / ours.runs:11.1%} "
        f"{f'{ours.suspects_right}/{ours.suspects_wrong}':>8} "
        f"{f'{ours.none} ({ours.none_wrong})':>10} {ours.boots_mean:6.2f} "
        f"{ours.requests_mean:8.1f} {ours.virtual_s_mean / 60:7.2f}"
    )


def _check(check: Check) -> str:
    shown = f"{check.figure} {check.value:.4g}"
    if check.ok is None:
        return shown
    return f"{shown} {check.relation} {check.bound:.4g} {'ok' if check.ok else 'MISSED'}"


def measure(bench: Bench, only: str) -> Iterator[Line]:
    """The lines of all rows whose names hold ``only``, and the calibration over their runs."""
    for row in ROWS:
        if only in row.name:
            began = time.perf_counter()
            yield from bench.lines(row)
            print(f"  ({time.perf_counter() - began:.1f} s)", file=sys.stderr, flush=True)
    for count, runs, bound_ms in PICK_TIMES:
        if only in f"{count}: one pick":
            yield from pick_times(count, runs, bound_ms)
    for held in calibrate(bench.runs):
        yield bin_line(f"calibration {held.low:.2f}-{held.high:.2f}", held)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="the search over many random truths")
    parser.add_argument("--truths", type=int, default=1000, help="of each world")
    parser.add_argument("--only", default="", help="rows whose names hold these words")
    options = parser.parse_args()
    print(COLUMNS)
    figures = {}
    with Pool(os.cpu_count()) as pool:
        for line in measure(Bench(options.truths, pool), options.only):
            print_line(line)
            figures[line.name] = as_json(line)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
