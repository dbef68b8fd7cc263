"""``vbisect plan``: what a run would do, before anything starts."""

from __future__ import annotations

import sys
from pathlib import Path

from vbisect.errors import UsageError
from vbisect.releases.fitness import stretch
from vbisect.run.hub_access import see_to_access
from vbisect.run.options import RunOptions
from vbisect.run.plan import Plan, make_plan
from vbisect.run.prepare import prepare
from vbisect.text import one_line


def print_plan(options: RunOptions, results: Path, *, json_output: bool) -> None:
    """Print the plan for a run with these options; starts nothing.

    What trials take is learnt from the runs below ``results``. Raises ``UsageError`` and
    ``HostError``.
    """
    if not options.start or not options.end:
        raise UsageError("Give both --from and --to.")
    settings = see_to_access(prepare(options, results), begins=False)
    plan = make_plan(settings, results)
    plan = plan.model_copy(update={"notes": (*settings.notes, *plan.notes)})
    if json_output:
        sys.stdout.write(plan.model_dump_json() + "\n")
        return
    for note in plan.notes:
        print(f"NOTE {one_line(note)}")
    place = settings.docker.image_repo if settings.docker else settings.device.distribution
    print(f"runtime:    {settings.runtime}, device {settings.device}, from {place}")
    print("\n".join(plan_lines(plan)))


def plan_lines(plan: Plan) -> list[str]:
    """The plan, one line for each thing that somebody in a hurry asks."""
    missing = f", {len(plan.missing)} not published" if plan.missing else ""
    unfit = f", {len(plan.unfit)} that this host cannot run" if plan.unfit else ""
    left_out = len(plan.versions) - plan.testable - len(plan.missing) - len(plan.unfit)
    lines = [
        f"candidates: {len(plan.versions)}, {plan.versions[0]} to {plan.versions[-1]}{missing}"
        + unfit
        + (f", {left_out} left out" if left_out else ""),
        f"on disk:    {', '.join(plan.there) or 'none'}",
        *_unfit(plan),
        *_counted(plan),
        f"boots:      {plan.boots_worst} at most, {plan.boots_mean:g} on average "
        "(if no release flakes and no other is skipped)",
    ]
    if plan.download_worst is not None and plan.download_mean is not None:
        lines += [
            f"downloads:  {_gb(plan.download_worst)} at most, {_gb(plan.download_mean)} on "
            f"average; {_gb(plan.in_vain_worst or 0)} of it may come ahead in vain",
            f"disk:       {_gb(plan.disk_worst or 0)} at most once unpacked; "
            f"{_free(plan)}{_budget(plan)}",
        ]
    else:
        lines.append("downloads:  not known beforehand")
    if plan.allowance is not None:
        lines.append(f"allowance:  {plan.allowance}; the run takes {plan.pulls_worst} at most")
    at_once = f" with {plan.jobs} servers at once" if plan.jobs > 1 else ""
    lines += [
        f"time:       {_minutes(plan.seconds_worst)} at most, {_minutes(plan.seconds_mean)} on "
        f"average{at_once}",
        f"            reckoned with {plan.fetch:.0f} s a fetch, {plan.boot:.0f} s a boot and "
        f"{plan.request:.1f} s a request, {_source(plan)}",
    ]
    return lines


def _unfit(plan: Plan) -> list[str]:
    """Why releases are not tried, those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for version, why in plan.unfit.items():
        reasons.setdefault(why, []).append(version)
    lines = [
        f"not here:   {stretch(versions)}: {one_line(why)}" for why, versions in reasons.items()
    ]
    return [*lines, "            --try-all tries them all the same"] if lines else []


def _counted(plan: Plan) -> list[str]:
    if not plan.counted:
        return []
    return [f"tested:     {', '.join(plan.counted)} by earlier runs, which saves these boots"]


def _source(plan: Plan) -> str:
    if not plan.learnt_from:
        return "which is usual: no earlier run on this host tells"
    return f"as {plan.learnt_from} earlier trial{'s' if plan.learnt_from > 1 else ''} took here"


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
