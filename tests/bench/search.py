"""How good the search is: boots, virtual time and wrong answers over many random truths.

Every strategy searches the same truths, in virtual time, as ``vbisect simulate`` does; seeds are
fixed, so that all but the times of picks are the same at each call. For each figure the table has
what it must reach, and ``ok`` or ``MISSED``; the exit code is 0 either way. Takes about eight
minutes on one core.

The peer for flaky servers is git-bayesect (https://pypi.org/project/git-bayesect/), through its own
class, with one request a boot. "Equal accuracy": vbisect's confidence is raised until it is right
at least as often, an inconclusive answer counting against vbisect.

Last comes one JSON line with the figures by world.

    python tests/bench/search.py [--truths N] [--only WORDS]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.calibration import Bin, calibrate
from bench.search_rows import SMALL_BROKEN, Bench, Row
from bench.search_worlds import LARGE, SMALL
from vbisect.simulate import Run

Section = Callable[[Bench], Iterator[Row]]

SECTIONS: dict[str, Section] = {
    "steady 51": lambda bench: bench.steady(SMALL),
    "steady 1000": lambda bench: bench.steady(LARGE),
    "broken 60": lambda bench: bench.broken(*SMALL_BROKEN, 11),
    "broken 1000": lambda bench: bench.broken(LARGE, LARGE // 4, None),
    "cached 51": lambda bench: bench.cached(SMALL),
    "cached 1000": lambda bench: bench.cached(LARGE),
    "flaky 51": lambda bench: bench.flaky(SMALL),
    "flaky 1000": lambda bench: bench.flaky(LARGE),
    "false 51": lambda bench: bench.flaky(SMALL, 0.02),
    "false 1000": lambda bench: bench.flaky(LARGE, 0.02),
    "no change 51": lambda bench: bench.unchanged(SMALL, 0.02),
    "jobs 51": lambda bench: bench.parallel(SMALL),
    "jobs 1000": lambda bench: bench.parallel(LARGE),
    "picks 1000": lambda bench: bench.pick_times(LARGE, 5, 10),
    "picks 100000": lambda bench: bench.pick_times(100_000, 1, 1000),
}


def print_row(row: Row) -> None:
    """One line of the table."""
    reach = f"{row.relation} {row.bound:.3f}" if row.relation else ""
    verdict = {None: "", True: "ok", False: "MISSED"}[row.ok]
    print(f"{row.world:40} {row.figure:40} {row.value:10.3f}  {reach:11} {verdict}", flush=True)


def print_calibration(which: str, runs: Sequence[Run]) -> list[Bin]:
    """The bins of stated confidence."""
    bins = calibrate(runs)
    for held in bins:
        low, high = held.interval
        print(
            f"calibration, {which}: "
            f"stated {held.low:.2f}-{held.high:.2f} (mean {held.stated:.4f}): "
            f"{held.right} of {held.answers} right, {held.right / held.answers:.4f} "
            f"[{low:.4f}, {high:.4f}] {'ok' if held.holds else 'MISSED'}"
        )
    return bins


def as_json(bins: Sequence[Bin]) -> list[dict[str, float]]:
    """The figures of the bins."""
    return [
        {
            "low": held.low,
            "high": held.high,
            "stated": round(held.stated, 4),
            "answers": held.answers,
            "right": held.right,
            "interval_low": round(held.interval[0], 4),
            "interval_high": round(held.interval[1], 4),
        }
        for held in bins
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="the search over many random truths")
    parser.add_argument("--truths", type=int, default=1000, help="of each world")
    parser.add_argument("--only", default="", help="sections whose names hold these words")
    options = parser.parse_args()
    bench = Bench(options.truths)
    figures: dict[str, object] = {}
    print(f"{'world':40} {'figure':40} {'':>10}  must reach")
    for name, section in SECTIONS.items():
        if options.only not in name:
            continue
        began = time.perf_counter()
        rows = []
        for row in section(bench):
            print_row(row)
            rows.append(row)
        for row in rows:
            world = figures.setdefault(row.world, {})
            assert isinstance(world, dict)
            world[row.figure] = round(row.value, 4)
        print(f"  ({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)
    for which, runs in (
        ("all worlds", bench.steady_runs + bench.flaky_runs),
        ("flaky worlds", bench.flaky_runs),
    ):
        figures[f"calibration, {which}"] = as_json(print_calibration(which, runs))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
