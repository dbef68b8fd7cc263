"""Settings and journals of any content: read, shown and repaired, or damage, and nothing else."""

from __future__ import annotations

import copy
import json
import math
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hostile import NASTY
from made import failed, passed, settings, skipped, state
from vbisect.errors import UsageError
from vbisect.files import refuse_links
from vbisect.launch import Limited
from vbisect.probes import CommandSettings, Endpoint, FailureKind, NChoicesSettings
from vbisect.probes.suite import SuiteSettings, variations
from vbisect.report.comment import gist_files, to_comment
from vbisect.report.formats import FORMATS, render, write_reports
from vbisect.report.terminal import answer_lines
from vbisect.run.docker_settings import DockerSettings
from vbisect.run.journal import EventKind, Journal, repair_torn_line
from vbisect.run.records import (
    Build,
    ControlRecord,
    Finding,
    ParametersSeen,
    ParametersStatus,
    Partial,
    Seconds,
    Status,
    Tally,
    TrialRecord,
    VariationRecord,
)
from vbisect.run.settings import RunSettings
from vbisect.run.state import load_state
from vbisect.run.trust import what_would_run
from vbisect.search import Outcome, next_picks

ESCAPES = ["../../victim", "/etc/passwd", "..", "80.0/../../../victim", "a\0b", "victim\n", "~/x"]
ODD: list[Any] = [
    *ESCAPES,
    *NASTY,
    *("", "0.28.0", "0.1", "x" * 5000, "-1", "nan", "fail", "pass", "stream", "crashed"),
    *(math.inf, -math.inf, math.nan, -1, 0, 1, 2, 1.5, 1e308, -1e308, 10**30, 10**18, True, False),
    *([], {}, [[]], {"a": 1}, ["0.28.0"], ["x", 1], {"": ""}, {"crashed": 1}, {"x": 10**7}),
]
CONTROLS = frozenset(map(chr, (*range(9), 11, 12, *range(14, 32), 127, *range(128, 160))))
fuzzing = hypothesis_settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def full(**changed: Any) -> RunSettings:
    """Settings of which every field is given."""
    request = NChoicesSettings(endpoint=Endpoint.CHAT, n=(2, 4), seed=1, image="data:image/png,")
    docker = DockerSettings(
        host="ssh://me@there",
        image_repo="a/b",
        image_variant=(Limited(text="cu129", specifier=">=0.20"),),
        images={"0.28.0": "a/b:c"},
        gpus="0,1",
        memory=2**30,
        base_image="debian:12",
        disk_budget=2**40,
    )
    given: dict[str, Any] = {
        "hint": "0.28.0",
        "failure": "returned 1 of",
        "docker": docker,
        "control_model": "org/other",
        "control_path": "org/other",
        "control_args": (Limited(text="--x 1", specifier=">=0.28"),),
        "control_env": {"A": "1"},
        "picture": "~/p.png",
        "serve_args": (Limited(text="--y 2"),),
        "env": (Limited(text="B=2"), Limited(text="HF_TOKEN", specifier="<1")),
        "notes": ("a note",),
        "excluded": ("0.30.0",),
        "n_choices": request,
    }
    return settings(**{**given, **changed})


SUITE = SuiteSettings(request=NChoicesSettings(), variations=variations(Endpoint.CHAT))
RUNS = [
    full(),
    full(runtime="docker"),
    full(suite=SUITE, failure=None),
    full(command=CommandSettings(command=("/bin/true", "x"))),
]


def rich(record: TrialRecord, *, suite: bool) -> TrialRecord:
    """``record`` with every field given; variations where there is a suite."""
    sent = {"n": 2, "temperature": 0.7}
    seen = ParametersSeen(
        status=ParametersStatus.RECEIVED, sentence="received n=2", sent=sent, received=sent
    )
    asked = (
        VariationRecord(name="n=2", outcome=Outcome.PASS, observations=Tally(passes=2)),
        VariationRecord(
            name="stream",
            outcome=Outcome.FAIL,
            signature="the stream broke off",
            failure_kind=FailureKind.BROKEN_STREAM,
            observations=Tally(fails=1),
        ),
    )
    kinds = {str(FailureKind.CHOICES_MISSING): record.observations.fails}
    tally = record.observations.model_copy(update={"kinds": kinds if record.signature else {}})
    return record.model_copy(
        update={
            "observations": tally,
            "boots": (tally,),
            "signatures": {str(FailureKind.CHOICES_MISSING): record.signature or "s"},
            "build": Build(kind="venv", ref="~/e", digest="sha256:aa"),
            "reported_version": record.version,
            "was_there": True,
            "seconds": Seconds(fetch=1, boot=2, probe=3),
            "measured": {"latency_median": 0.5, "signatures": {"a": 1, "b": 2}},
            "engine": "V1",
            "size_bytes": 10**9,
            "parameters": seen,
            "control": ControlRecord(
                model="org/other", outcome=Outcome.PASS, observations=tally, parameters=seen
            ),
            "variations": asked if suite else (),
            "notes": ("a note",),
        }
    )


def written(run_dir: Path, made: RunSettings) -> list[dict[str, Any]]:
    """A run directory with an event of every kind, and these events."""
    for version in made.versions:
        folder = run_dir / "trials" / version
        folder.mkdir(parents=True)
        for name in ("server.log", "request.json", "responses.jsonl", "environment.json"):
            (folder / name).write_text("{}\n", encoding="utf-8")
    made.write(run_dir)
    partial = Partial(tally=Tally(passes=1), signature="s").model_dump(mode="json", by_alias=True)
    suite = made.suite is not None
    bad = rich(failed("0.27.1", "returned 1 of 2 choices"), suite=suite)
    told = state().finding
    assert told is not None
    stopped = Finding(status=Status.INTERRUPTED, message="m", excluded={"flaky": 0.1})
    with Journal(run_dir) as journal:

        def trial(record: TrialRecord) -> dict[str, Any]:
            dumped = record.model_dump(mode="json", by_alias=True)
            return journal.append(EventKind.TRIAL_FINISHED, record=dumped)

        dumped = bad.model_dump(mode="json", by_alias=True)
        here = {"version": "0.27.1"}
        return [
            journal.append(EventKind.RUN_STARTED, vbisect="0.1", argv="run"),
            journal.append(EventKind.NOTE, text="a note"),
            journal.append(EventKind.TRIAL_STARTED, **here),
            journal.append(EventKind.BUILD_READY, **here, seconds=1.0, build={"kind": "venv"}),
            journal.append(EventKind.SERVER_READY, **here, seconds=1.0, reported_version="0.27.1"),
            journal.append(EventKind.OBSERVATION, **here, partial=partial, observation={}),
            journal.append(EventKind.CONTROL_STARTED, record=dumped),
            journal.append(EventKind.CONTROL_READY, **here, seconds=1.0),
            journal.append(EventKind.CONTROL_OBSERVATION, **here, partial=partial),
            trial(bad),
            trial(rich(passed("0.32.0"), suite=suite)),
            journal.append(EventKind.RUN_STOPPED, finding=stopped.model_dump(mode="json")),
            journal.append(EventKind.RUN_RESUMED, vbisect="0.1"),
            trial(skipped("0.28.0", "exit status 1")),
            journal.append(EventKind.TRIAL_GIVEN_UP, version="0.28.0"),
            trial(rich(passed("0.29.0"), suite=suite)),
            journal.append(EventKind.RUN_FINISHED, finding=told.model_dump(mode="json")),
        ]


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to everything within ``value``."""
    if way:
        yield way
    steps = value if isinstance(value, dict) else range(len(value) if type(value) is list else 0)
    for step in steps:
        yield from places(value[step], (*way, step))


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """``whole`` with one to three of its parts replaced, left out or given another name."""
    made = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(list(places(made))))
        inner = made
        for step in way:
            inner = inner[step]
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if what == "remove":
            del inner[last]
        elif what == "add" and isinstance(inner, MutableMapping):
            name = draw(st.sampled_from([each for each in ODD if isinstance(each, str)]))
            inner[name] = copy.deepcopy(draw(st.sampled_from(ODD)))
        else:
            inner[last] = copy.deepcopy(draw(st.sampled_from(ODD)))
        if not made:
            break
    return made


class Watch:
    """What is opened, made, moved, removed or started in this process while ``on``."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[tuple[str, str]] = []
        sys.addaudithook(self._hear)  # it stays for good, and mostly does not listen

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event in FILES:
            named = arguments[:1] if event == "open" else arguments[:2]
            self.seen += [(event, os.fsdecode(each)) for each in named if isinstance(each, str)]
        elif self.on and event in STARTS:
            self.seen.append((event, "/"))


FILES = {
    "open",
    *(f"os.{what}" for what in ["remove", "rename", "rmdir", "mkdir", "symlink", "link"]),
}
STARTS = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"}
WATCH = Watch()


@contextmanager
def watched(run_dir: Path) -> Iterator[None]:
    """Nothing is touched but what lies below ``run_dir``, or in a folder's handle by its name."""
    WATCH.seen, WATCH.on = [], True
    try:
        yield
    finally:
        WATCH.on = False
    for event, path in WATCH.seen:
        inside = path == str(run_dir) or path.startswith(f"{run_dir}/")
        assert inside or "/" not in path, (event, path)
        assert ".." not in path.split("/"), (event, path)


MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
"""HTML that is part of the text stays HTML, as on GitHub; code shows it as it is."""


def shown(run_dir: Path) -> None:
    """Read it and show it in every way, and do to its files what going on with it begins with."""
    made, torn = load_state(run_dir)
    for name in FORMATS:
        text = render(name, made, run_dir)
        assert len(text) < 2_000_000
        assert CONTROLS.isdisjoint(text)
        text.encode()
        if name == "json":
            json.loads(text, parse_constant=pytest.fail)
        if name == "md":
            assert "<script" not in MARKDOWN.render(text)
    lines = what_would_run(made.settings)
    if made.finding is not None:
        lines += answer_lines(made, run_dir)
    assert CONTROLS.isdisjoint("".join(lines).replace("\n", ""))
    if made.records:
        assert len(to_comment(made, run_dir).body) < 65_536
        gist_files(made, run_dir)
    next_picks(made.aim, made.seen())
    refuse_links(run_dir)
    if torn:
        repair_torn_line(run_dir, torn)
    write_reports(made, run_dir)
    with Journal(run_dir) as journal:
        journal.append(EventKind.RUN_RESUMED, vbisect="0.1")


def survives(run_dir: Path) -> bool:
    """Whether it can be read; if not, that is one line about damage."""
    with watched(run_dir), suppress(UsageError):
        shown(run_dir)
        return True
    return False


Runs = list[tuple[Path, Any, list[Any]]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Run directories of each kind, their settings as data, and their events."""
    found = []
    for made in RUNS:
        run_dir = tmp_path_factory.mktemp("fuzzed") / "r"
        told = written(run_dir, made)
        shown(run_dir)  # what is imported or cached at first use is outside of the run
        data = made.model_dump(mode="json", by_alias=True, exclude_none=True)
        found.append((run_dir, data, told))
    return found


def put(run_dir: Path, data: Any, told: list[Any]) -> None:
    """Write both files anew."""
    (run_dir / "run.toml").write_text(tomli_w.dumps(data), encoding="utf-8")
    lines = (json.dumps(event) + "\n" for event in told)
    (run_dir / "journal.jsonl").write_text("".join(lines), encoding="utf-8")


@fuzzing
@given(st.data())
def test_any_settings_are_read_or_damaged(runs: Runs, data: st.DataObject) -> None:
    """Whatever stands in ``run.toml``."""
    run_dir, made, told = data.draw(st.sampled_from(runs))
    odd = data.draw(changed(made))
    try:
        put(run_dir, odd, told)
    except (TypeError, ValueError):  # no TOML can say that
        return
    survives(run_dir)


@fuzzing
@given(st.data())
def test_any_events_are_read_or_damaged(runs: Runs, data: st.DataObject) -> None:
    """Whatever stands in the journal, in whatever order."""
    run_dir, made, told = data.draw(st.sampled_from(runs))
    odd = data.draw(changed(told))
    if data.draw(st.booleans()):
        odd = data.draw(st.permutations(odd))
    put(run_dir, made, odd)
    survives(run_dir)


@fuzzing
@given(st.data(), st.sampled_from(["run.toml", "journal.jsonl"]), st.binary(max_size=8))
def test_any_bytes_are_read_or_damaged(
    runs: Runs, data: st.DataObject, name: str, some: bytes
) -> None:
    """Whatever a part of either file is overwritten with, or wherever it ends."""
    run_dir, made, told = data.draw(st.sampled_from(runs))
    put(run_dir, made, told)
    whole = (run_dir / name).read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    rest = b"" if data.draw(st.booleans()) else whole[at + len(some) :]
    (run_dir / name).write_bytes(whole[:at] + some + rest)
    survives(run_dir)


EVIDENCE: dict[str, Any] = {
    "request.json": {"method": "POST", "path": "/v1", "body": {"n": 2}},
    "responses.jsonl": {"n": 2, "status": 200, "seconds": 0.5, "body": '{"choices": [1]}'},
    "environment.json": {
        "command": ["vllm"],
        "host": {"system": "Linux", "gpus": ["H20"]},
        "engine": {"engine": "28", "os": "Debian"},
        "build": {"python": "3.12", "packages": ["torch==2.8"]},
    },
    "../../commits.json": [
        {
            "last_before": "0.27.1",
            "first_after": "0.29.0",
            "base": "v0.27.1",
            "head": "v0.29.0",
            "total": 1,
            "commits": [{"sha": "ab" * 20, "title": "n > 1 (#12)"}],
            "files": ["vllm/entrypoints/x.py"],
            "problem": "p",
        }
    ],
}


@fuzzing
@given(st.data(), st.sampled_from(sorted(EVIDENCE)))
def test_any_evidence_is_shown_or_left_out(runs: Runs, data: st.DataObject, name: str) -> None:
    """Whatever the files say that a trial left, or that GitHub was asked for."""
    run_dir, made, told = data.draw(st.sampled_from(runs))
    put(run_dir, made, told)
    path = run_dir / "trials" / "0.27.1" / name
    path.write_text(json.dumps(data.draw(changed(EVIDENCE[name]))) + "\n", encoding="utf-8")
    try:
        assert survives(run_dir)
    finally:
        path.unlink()


def test_the_runs_that_are_changed_are_whole(runs: Runs) -> None:
    """What vbisect writes, it reads."""
    for run_dir, made, told in runs:
        put(run_dir, made, told)
        assert survives(run_dir)
