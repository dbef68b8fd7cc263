"""``vbisect plan``: what a run would do, before anything starts."""

from __future__ import annotations

import sys

from vbisect.run.options import RunOptions
from vbisect.run.plan import BOOT_SECONDS, BYTES_PER_SECOND, Plan, make_plan
from vbisect.run.prepare import prepare
from vbisect.text import one_line


def print_plan(options: RunOptions, *, json_output: bool) -> None:
    """Print the plan for a run with these options; starts nothing."""
    settings = prepare(options)
    plan = make_plan(settings)
    if json_output:
        sys.stdout.write(plan.model_dump_json() + "\n")
        return
    for note in (*settings.notes, *plan.notes):
        print(f"NOTE {one_line(note)}")
    place = settings.docker.image_repo if settings.docker else settings.device.distribution
    print(f"runtime:    {settings.runtime}, device {settings.device}, from {place}")
    print("\n".join(plan_lines(plan)))


def plan_lines(plan: Plan) -> list[str]:
    """The plan, one line for each thing that somebody in a hurry asks."""
    missing = f", {len(plan.missing)} not published" if plan.missing else ""
    lines = [
        f"candidates: {len(plan.versions)}, {plan.versions[0]} to {plan.versions[-1]}{missing}",
        f"on disk:    {', '.join(plan.there) or 'none'}",
        f"boots:      {plan.boots_worst} at most, {plan.boots_mean:g} on average "
        "(the change equally likely everywhere, nothing else skipped)",
    ]
    if plan.download_worst is not None and plan.download_mean is not None:
        lines += [
            f"downloads:  {_gb(plan.download_worst)} at most, "
            f"{_gb(plan.download_mean)} on average, beside pulls that are given up",
            f"disk:       {_gb(plan.disk_worst or 0)} at most once unpacked; "
            f"{_free(plan)}{_budget(plan)}",
        ]
    else:
        lines.append("downloads:  not known beforehand")
    lines.append(
        f"time:       {_minutes(plan.seconds_worst)} at most, {_minutes(plan.seconds_mean)} on "
        f"average, reckoned with {BOOT_SECONDS} s a boot"
        + (f" and {BYTES_PER_SECOND / 1e6:.0f} MB/s" if plan.download_worst else "")
    )
    return lines


def _free(plan: Plan) -> str:
    if plan.disk_free is None:
        return "what is free is not known"
    return f"{_gb(plan.disk_free)} free"


def _budget(plan: Plan) -> str:
    return f", budget {_gb(plan.disk_budget)}" if plan.disk_budget is not None else ""


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:.0f} MB"


def _minutes(seconds: int) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
