"""``vbisect simulate``: how a search does in a declared world, in virtual time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from vbisect.errors import UsageError
from vbisect.simulate import (
    STRATEGIES,
    Answer,
    Mode,
    Run,
    Status,
    Strategy,
    Summary,
    Trial,
    Vbisect,
    World,
    read_world,
    simulate,
    summarise,
)

_MOST_RUNS = 1_000_000


def simulate_world(
    path: Path,
    mode: Mode,
    *,
    repeat: int | None,
    strategy: str,
    confidence: float | None,
    json_output: bool,
) -> None:
    """Print how ``strategy`` does in the world in ``path``: its figures over ``repeat`` runs.

    ``None`` is one run, whose trials and answer are printed too. ``mode`` is for vbisect's own
    strategy. Raises ``UsageError``.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"--strategy {strategy}: choose one of {', '.join(STRATEGIES)}.")
    if confidence is not None and not 0.5 <= confidence < 1:
        raise UsageError(f"--confidence {confidence:g}: it must be at least 0.5 and below 1.")
    if repeat is not None and not 1 <= repeat <= _MOST_RUNS:
        raise UsageError(f"--repeat {repeat}: it must be from 1 to {_MOST_RUNS}.")
    if strategy != "vbisect" and mode != Mode():
        raise UsageError("--sweep, --find-all and --hint are for --strategy vbisect.")
    world = read_world(path)
    if mode.hint is not None and not 0 <= mode.hint < world.candidates:
        raise UsageError(f"--hint {mode.hint}: it is not one of 0 to {world.candidates - 1}.")
    sure = world.confidence if confidence is None else confidence
    runs = [
        simulate(world, _strategy(strategy, world, sure, mode), number)
        for number in range(repeat or 1)
    ]
    summary = summarise(runs)
    only = runs[0] if repeat is None else None
    if json_output:
        print(json.dumps(asdict(summary) | (_as_json(only) if only else {})))
    else:
        print("\n".join([*(_lines(world, only) if only else ()), *_summary_lines(summary)]))


def _strategy(name: str, world: World, confidence: float, mode: Mode) -> Strategy:
    if name == "vbisect":
        return Vbisect(world.candidates, confidence, mode)
    return STRATEGIES[name](world.candidates, confidence)


def _as_json(run: Run) -> dict[str, object]:
    return {"answer": asdict(run.answer), "trials": [asdict(trial) for trial in run.trials]}


def _lines(world: World, run: Run) -> list[str]:
    """The trials in the order in which they ended, then the answer and its warnings."""
    warnings = (f"warning: {text}" for text in _warnings(world, run.answer))
    return [*map(_trial_line, run.trials), f"answer: {_told(run.answer)}", *warnings]


def _warnings(world: World, answer: Answer) -> Iterator[str]:
    newest = world.candidates - 1
    low, high = answer.tested or (0, newest)
    if low > 0:
        yield f"the lower end moved from 0 to {low}: what lies beyond could not be tested"
    if high < newest:
        yield f"the upper end moved from {newest} to {high}: what lies beyond could not be tested"
    if len(answer.changes) > 1:
        all_told = ", ".join(
            f"{change} in {first}" + (f" to {last}" if last > first else "")
            for change, first, last in answer.changes
        )
        yield f"the outcome changes {len(answer.changes)} times in this range: {all_told}"
    elif answer.more:
        yield "what was seen cannot come from one change: --sweep shows them all"


def _trial_line(trial: Trial) -> str:
    outcome = trial.outcome or "cancelled"
    counts = f"{trial.boot.passes} / {sum(trial.boot.fails.values())}"
    return f"{trial.ended:10.0f} s  version {trial.index:<6} {outcome:9}  {counts}"


def _told(answer: Answer) -> str:
    """The answer in one line; versions are the indices of candidates."""
    if answer.status is Status.NONE:
        return "none: no change in range"
    if not answer.suspects:
        return f"{answer.status}"
    suspects = ", ".join(map(str, answer.suspects))
    told = f"{answer.change or 'change'} in {'' if len(answer.suspects) == 1 else 'one of '}"
    told += suspects
    if answer.confidence is not None:
        told += f", confidence {answer.confidence:.3f}"
    return f"{answer.status}: {told}"


def _summary_lines(summary: Summary) -> list[str]:
    return [
        f"runs:         {summary.runs}",
        f"wrong:        {summary.wrong}",
        f"inconclusive: {summary.inconclusive}",
        f"boots:        {summary.boots_mean:.2f} on average",
        f"requests:     {summary.requests_mean:.1f} on average",
        f"virtual time: {summary.virtual_s_mean:.0f} s on average, "
        f"{summary.virtual_s_p95:.0f} s in 95 of 100 runs",
    ]
