"""What the page tells of one version when it is opened: sections of facts and excerpts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vbisect.files import Below
from vbisect.reasons import ADVICE
from vbisect.report.excerpts import Excerpt, all_short, around, both_ends, first_lines, short
from vbisect.report.rows import finding
from vbisect.run.records import ParametersSeen, Tally, TrialRecord
from vbisect.text import plain

Section = dict[str, Any]
"""``{"title", "pairs": [[name, value], …] | "text" | "head" with "rows"}``, all strings."""

_LOGS = ("server.log", "command.log", "build.log")
_LEAST_OF_ENVIRONMENT = 300
"""Less of it says nothing; it is left out where so many trials share the page."""
_SCAN_BYTES = 64 * 1024
"""Bytes at either end of a log in which the words of a diagnosis are sought."""


def details(record: TrialRecord, order: int, folder: Below, budget: int) -> list[Section]:
    """The sections of one tested version, in about ``budget`` bytes of JSON."""
    line = max(40, min(300, budget // 20))
    sections = [_titled("Diagnosis", pairs=_pairs(_diagnosis(record, order), line))]
    if record.parameters is not None:
        sections.append(_titled("Parameters", pairs=_pairs(_parameters(record.parameters), line)))
    if record.control is not None:
        sections.append(_titled("Control model", pairs=_pairs(_control(record), line)))
    if record.variations:
        sections.append(_variations(record, line))
    if len(record.boots) > 1:
        sections.append(_boots(record))
    sections.append(_titled("Build", pairs=_pairs(_build(record), line)))
    return sections + list(_evidence(record, folder, budget // 2))


def _titled(title: str, **content: Any) -> Section:
    return {"title": title, **content}


def _pairs(facts: Iterator[tuple[str, object]], limit: int) -> list[list[str]]:
    told = [(name, str(value)) for name, value in facts if value not in (None, "")]
    values = all_short([value for _, value in told], limit)
    return [[name, value] for (name, _), value in zip(told, values, strict=True)]


def _diagnosis(record: TrialRecord, order: int) -> Iterator[tuple[str, object]]:
    yield "Outcome", record.outcome
    yield "What was seen", finding(record)
    yield "What to do", ADVICE[record.reason] if record.reason else None
    if record.observations.total:
        yield "Observations", _counted(record.observations)
    signatures = record.measured.get("signatures")
    if isinstance(signatures, dict) and len(signatures) > 1:
        yield "Failures", "; ".join(f"{text} ({count} times)" for text, count in signatures.items())
    latency = record.measured.get("latency_median")
    yield "Median latency", f"{latency:.2f} s" if isinstance(latency, float | int) else None
    yield "Order of testing", order
    if record.earlier_run:
        yield "Carried out by", f"an earlier run, {record.earlier_run}"
    for note in record.notes:
        yield "Note", note


def _parameters(seen: ParametersSeen) -> Iterator[tuple[str, object]]:
    yield "In the server's log", seen.sentence
    yield "Sent", json.dumps(seen.sent) if seen.sent else None
    yield "Received", json.dumps(seen.received) if seen.received else None


def _control(record: TrialRecord) -> Iterator[tuple[str, object]]:
    control = record.control
    assert control is not None
    yield "Model", control.model
    yield "Outcome", control.outcome
    yield "What was seen", finding(control)
    if control.observations.total:
        yield "Observations", _counted(control.observations)
    if control.parameters is not None:
        yield "In the server's log", control.parameters.sentence
    yield "Engine", control.engine


def _variations(record: TrialRecord, limit: int) -> Section:
    rows = [
        [
            short(each.name, limit),
            str(each.outcome),
            f"{each.observations.passes} / {each.observations.fails}",
            short(finding(each), limit),
        ]
        for each in record.variations
    ]
    return _titled("Variations", head=["Request", "Outcome", "Pass / fail", "Seen"], rows=rows)


def _boots(record: TrialRecord) -> Section:
    rows = [
        [str(number), str(boot.passes), str(boot.fails), str(boot.other)]
        for number, boot in enumerate(record.boots, 1)
    ]
    return _titled("Boots", head=["Boot", "Passed", "Failed", "Failed otherwise"], rows=rows)


def _build(record: TrialRecord) -> Iterator[tuple[str, object]]:
    yield "Version it reported", record.reported_version
    yield "Engine", record.engine
    if record.build is not None:
        yield "Kind", record.build.kind
        yield "Where", record.build.ref
        yield "Digest", record.build.digest
    if record.size_bytes:
        yield "Image size", f"{record.size_bytes / 1e9:.1f} GB unpacked"
    if record.was_there is not None:
        yield "On the host before", "yes" if record.was_there else "no"
    seconds = record.seconds
    yield (
        "Fetch, boot, probe",
        f"{seconds.fetch:.1f} s, {seconds.boot:.1f} s, {seconds.probe:.1f} s",
    )


def _counted(tally: Tally) -> str:
    other = f", {tally.other} failed otherwise" if tally.other else ""
    return f"{tally.passes} passed, {tally.fails} failed{other}"


def _evidence(record: TrialRecord, folder: Below, budget: int) -> Iterator[Section]:
    """The excerpts: request, one response of each kind, logs, environment."""
    request = both_ends(folder / "request.json", budget // 6)
    if request is not None:
        yield _text(*_on_one_line(request), budget // 6)
    for title, body in _responses(folder / "responses.jsonl", budget):
        yield _text(title, body, budget // 10)
    for name in _LOGS:
        log = both_ends(folder / name, budget // 3)
        if log is None:
            continue
        cause = _around_cause(record, folder / name, log, budget // 8)
        if cause is not None:
            yield _titled(f"{name}, around the diagnosis", text=cause)
        yield _text(name, log, budget // 3)
    if budget // 6 < _LEAST_OF_ENVIRONMENT:
        return
    environment = both_ends(folder / "environment.json", budget // 6)
    if environment is not None:
        yield _text("Environment", environment, budget // 6)


def _text(title: str, excerpt: Excerpt, limit: int) -> Section:
    return _titled(title, text=str(excerpt.within(limit)))


def _on_one_line(request: Excerpt) -> tuple[str, Excerpt]:
    """A request as it is sent, without the line breaks of the file it is kept in."""
    try:
        told = json.loads(request.head)
        title = f"Request: {told['method']} {told['path']}"
        body = json.dumps(told["body"], ensure_ascii=False)
        return short(title, 100), Excerpt(plain(body, len(body) + 1000))
    except (ValueError, KeyError, TypeError, RecursionError):
        return "Request", request


def _responses(place: Below, budget: int) -> Iterator[tuple[str, Excerpt]]:
    """At most three responses, each the first of its kind: same status, same number of choices."""
    kinds = set()
    for line in first_lines(place, budget * 4):
        try:
            told = json.loads(line)
            n, status, body = int(told["n"]), int(told["status"]), str(told["body"])
            seconds = float(told["seconds"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
        choices = _choices(body)
        if (n, status, choices) in kinds:
            continue
        kinds.add((n, status, choices))
        count = "" if choices is None else f", {choices} choices"
        title = f"Response to n = {n}: HTTP {status} in {seconds:.2f} s{count}"
        yield short(title, 100), Excerpt(plain(body, len(body) + 1000))
        if len(kinds) == 3:
            return
    if not kinds and (excerpt := both_ends(place, budget // 10)) is not None:
        yield "Responses", excerpt


def _around_cause(record: TrialRecord, log: Below, shown: Excerpt, limit: int) -> str | None:
    """The lines of a log about the reason of a skip, where its ends do not show them."""
    if record.detail is None or not shown.left_out:
        return None
    # "exit status 1: ValueError: …" quotes the log after its first colon
    for words in (record.detail, record.detail.partition(": ")[2]):
        words = words[:80].rstrip("…")
        if words in shown.head or words in shown.tail:
            return None
        if (found := around(log, words, limit, _SCAN_BYTES)) is not None:
            return found
    return None


def _choices(body: str) -> int | None:
    """How many choices an answer holds, if it is one object with choices."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    choices = told.get("choices") if isinstance(told, dict) else None
    return len(choices) if isinstance(choices, list) else None
