"""Progress on stderr: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vbisect.amounts import counted, sized
from vbisect.reasons import ADVICE
from vbisect.releases.fitness import stretch
from vbisect.report.rows import finding, labelled, tested_rows
from vbisect.run.journal import Event, EventKind
from vbisect.run.records import ControlRecord, TrialRecord
from vbisect.run.state import RunState
from vbisect.search import boots_needed, flaky, open_range
from vbisect.text import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vbisect.run.session import Display

_STYLES = {"pass": "green", "fail": "red", "skip": "yellow"}


@contextmanager
def progress() -> Iterator[Display]:
    """The display that suits stderr, for as long as the block runs."""
    if not sys.stderr.isatty():
        yield PlainLines()
        return
    from rich.console import Console
    from rich.live import Live

    table = LiveTable()
    with Live(get_renderable=table.render, console=Console(stderr=True), refresh_per_second=4):
        yield table


def remaining(state: RunState) -> str:
    """The range still in question and about how many boots it takes, in one line."""
    settings, aim, seen = state.settings, state.aim, state.seen()
    if flaky(seen):
        return f"releases flake: going on until {settings.confidence:g} is reached"
    stretch = open_range(aim, seen)
    if stretch is None:
        return "the ends agree: booted again to be sure of it" if seen.judged else "nothing to test"
    low, high = (settings.versions[index] for index in stretch)
    again = sum(max(0, boots_needed(settings.confidence) - seen.tries(index)) for index in stretch)
    between = [i for i in range(*stretch) if i not in seen.outcomes]
    new = len(between) if settings.sweep else math.ceil(math.log2(len(between) + 1))
    more = f"; about {counted(new + again, 'more boot')}" if new + again else ""
    return f"between {low} and {high}{more}"


class PlainLines:
    """One line for each thing that happened."""

    def __init__(self) -> None:
        self._advised: set[str] = set()
        self._judged: dict[str, str] = {}
        self._unfit: dict[str, list[TrialRecord]] = {}
        self._said = ""

    def say(self, line: str) -> None:
        """Print what goes on in the background, unless it was the last thing said."""
        if line != self._said:
            self._said = line
            self._print(line)

    def show(self, event: Event, state: RunState) -> None:
        """Print what ``event`` means to a person, if anything.

        What the host cannot run is told once for all releases of one reason.
        """
        kind = EventKind(event["event"])
        if kind is EventKind.TRIAL_FINISHED and (unfit := _unfit(event, state)):
            self._unfit.setdefault(finding(unfit), []).append(unfit)
            return
        for line in (*self._unfit_lines(), *self._lines(kind, event, state)):
            self._print(line)

    def _print(self, line: str) -> None:
        print(f"vbisect: {one_line(line, 1000)}", file=sys.stderr, flush=True)

    def _unfit_lines(self) -> Iterator[str]:
        for why, records in self._unfit.items():
            yield f"{stretch([record.version for record in records])}: SKIP – {why}"
            yield from self._advice(records[0])
        self._unfit.clear()

    def _advice(self, record: TrialRecord) -> Iterator[str]:
        """What to do about a skip, once for each reason."""
        if record.reason is not None and record.reason not in self._advised:
            self._advised.add(record.reason)
            yield f"{record.reason}: {ADVICE[record.reason]}"

    def _lines(self, kind: EventKind, event: Event, state: RunState) -> Iterator[str]:
        if kind in (EventKind.RUN_STARTED, EventKind.RUN_RESUMED):
            verb = "testing" if kind is EventKind.RUN_STARTED else "resuming"
            yield f"{verb} {len(state.settings.versions)} candidates, {remaining(state)}"
        elif kind is EventKind.NOTE:
            yield f"NOTE {event['text']}"
        elif kind is EventKind.ENGINE_CHOSEN:
            yield f"NOTE {event['choice']['text']}"
        elif kind is EventKind.TRIAL_STARTED:
            yield f"{event['version']}: fetching"
        elif kind is EventKind.WEIGHTS_STARTED:
            missing = sized(event["total"] - event["bytes"])
            yield f"{event['version']}: fetching the weights of {event['model']}, {missing}"
        elif kind is EventKind.WEIGHTS_READY:
            yield (
                f"weights of {event['model']}: {sized(event['bytes'])} there after "
                f"{event['seconds']:.0f} s"
            )
        elif kind is EventKind.BUILD_READY:
            yield f"{event['version']}: booting (waited {event['seconds']:.1f} s for the build)"
        elif kind is EventKind.SERVER_READY:
            yield (
                f"{event['version']}: ready after {event['seconds']:.0f} s, "
                f"reports {event['reported_version']}; probing"
            )
        elif kind is EventKind.CONTROL_STARTED:
            record = TrialRecord.model_validate(event["record"])
            self._judged[record.version] = _finished(record)
            yield f"{_finished(record)}; now the control"
        elif kind is EventKind.CONTROL_READY:
            yield f"{event['version']}: control ready after {event['seconds']:.0f} s; probing"
        elif kind is EventKind.TRIAL_FINISHED:
            record = TrialRecord.model_validate(event["record"])
            if self._judged.pop(record.version, None) != _finished(record):
                yield _finished(record)
            if record.control is not None:
                yield f"{record.version}: {_control_finished(record.control)}"
            yield from self._advice(record)
            yield remaining(state)
        elif kind is EventKind.TRIAL_GIVEN_UP:
            yield f"{event['version']}: no longer needed"


def _unfit(event: Event, state: RunState) -> TrialRecord | None:
    """The record of a release that was never tried, for this host cannot run it."""
    record = TrialRecord.model_validate(event["record"])
    unfit = {each.version for each in state.settings.unfit}
    return record if record.build is None and record.version in unfit else None


def _finished(record: TrialRecord) -> str:
    seen = record.observations
    counts = f" ({seen.passes} passed, {seen.fails} failed)" if seen.total else ""
    where = f", as run {record.earlier_run} found" if record.earlier_run else ""
    return f"{record.version}: {record.outcome.upper()} – {finding(record)}{counts}{where}"


def _control_finished(control: ControlRecord) -> str:
    seen = control.observations
    counts = f" ({seen.passes} passed, {seen.fails} failed)" if seen.total else ""
    return f"control {control.outcome.upper()} – {finding(control)}{counts}"


class LiveTable:
    """The table of trials, redrawn as it grows."""

    def __init__(self) -> None:
        self._said = ""
        self._state: RunState | None = None
        self._since: dict[str, float] = {}

    def show(self, event: Event, state: RunState) -> None:
        """Take over what the journal has now."""
        observed = (EventKind.OBSERVATION, EventKind.CONTROL_OBSERVATION)
        if event["event"] not in observed and "version" in event:
            self._since[event["version"]] = time.monotonic()
        self._state = state

    def say(self, line: str) -> None:
        """Keep the last thing said below the table."""
        self._said = line

    def render(self) -> RenderableType:
        """The table, the notes above it and the state of the current trial below it."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        state = self._state
        if state is None:
            return Text("vbisect: starting")
        control = ("control",) if state.settings.control_model else ()
        columns = ("version", "outcome", "pass/fail", "what was seen", "boot", *control)
        table = Table(*columns, box=None)
        for name, row in labelled(tested_rows(state)):
            counts = "" if row.passes is None else f"{row.passes}/{row.fails}"
            boot = f"{row.boot_seconds:.0f} s" if row.boot_seconds else ""
            table.add_row(
                name,
                Text(row.outcome, style=_STYLES.get(row.outcome, "")),
                counts,
                Text(one_line(row.finding, 160)),
                boot,
                *(Text(row.control_outcome or "") for _ in control),
            )
        lines = [Text(f"NOTE {one_line(note)}", style="bold yellow") for note in state.notes]
        for version, phase in list(state.active.items()):
            partial = (state.control_partial if version in state.judged else state.partial).get(
                version
            )
            seen = f", {partial.tally.total} observations" if partial else ""
            now = time.monotonic()
            spent = now - self._since.get(version, now)  # drawn by a thread of its own
            lines.append(Text(f"{version}: {phase} for {spent:.0f} s{seen}"))
        if self._said and not state.finding:
            lines.append(Text(one_line(self._said), style="dim"))
        footer = Text("" if state.finding else remaining(state), style="dim")
        return Group(table, *lines, footer)
