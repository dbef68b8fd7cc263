"""The journal and ``run.toml``: what was written is what is read, after any end of vbisect."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from made import TOKEN, VERSIONS, failed, passed, releases, settings, skipped
from vbisect.cli import app
from vbisect.errors import HostError, UsageError
from vbisect.probes import FailureKind
from vbisect.releases import KnownReleases
from vbisect.run import prepare as preparing
from vbisect.run.journal import EventKind, Journal, read_journal, repair_torn_line
from vbisect.run.model import ResolvedModel
from vbisect.run.prepare import RunOptions
from vbisect.run.records import Finding, Status
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState, load_state, replay
from vbisect.search import Counts, Outcome

shared_directory = hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
Texts = st.text(max_size=20) | st.sampled_from(["\ud800", "\u2028", "\x85", "\r\n", '"\\', "\x00"])
Values = st.recursive(
    st.none() | st.booleans() | st.integers() | Texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(Texts, inner, max_size=3),
    max_leaves=8,
)
Fields = st.dictionaries(st.sampled_from(["text", "version", "record", "x"]), Values, max_size=4)
# A control character's escape in JSON ends in the letter that a header begins with.
TRAPS = [
    "\x08earer abcdefgh12",
    "\x0bearer abcdefgh12",
    "://a:b\\@",
    f"\n{TOKEN}",
    "bearer\nabcdefgh12",
]


def written(run_dir: Path, *events: dict[str, Any], fresh: bool = True) -> list[dict[str, Any]]:
    """The events as ``append`` returned them."""
    if fresh:
        (run_dir / "journal.jsonl").unlink(missing_ok=True)
    with Journal(run_dir) as journal:
        return [journal.append(EventKind.NOTE, **fields) for fields in events]


@shared_directory
@given(st.lists(Fields | st.sampled_from([{"text": trap} for trap in TRAPS]), max_size=5))
@example([{"text": trap, trap: [trap]} for trap in TRAPS])
def test_what_is_written_is_read(tmp_path: Path, fields: list[dict[str, Any]]) -> None:
    """Any text survives, on one line an event, and the living run sees what a reader will see."""
    events = written(tmp_path, *fields)
    read, torn = read_journal(tmp_path)
    assert torn == b""
    assert read == events
    assert TOKEN not in (tmp_path / "journal.jsonl").read_text(encoding="utf-8")
    for event, given_fields in zip(events, fields, strict=True):
        if "earer" not in str(given_fields) and "://" not in str(given_fields):
            assert {**event, **given_fields} == event or TOKEN in str(given_fields)


def test_no_secret_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not within lists and keys, nor one whose characters JSON writes differently."""
    monkeypatch.setenv("MY_PASSWORD", 'quoted"secret\\word')
    (event,) = written(
        tmp_path,
        {"a": [{"b": f"x {TOKEN}"}], "c": {f"{TOKEN} was sent": 3}, "d": 'my quoted"secret\\word'},
    )
    kept = (tmp_path / "journal.jsonl").read_text(encoding="utf-8")
    assert TOKEN not in kept
    assert "quoted" not in kept
    assert event["a"] == [{"b": "x <secret>"}]
    assert event["c"] == {"<secret> was sent": 3}
    assert event["d"] == "my <MY_PASSWORD>"


def test_a_journal_cut_at_any_byte_loses_one_event_at_most(tmp_path: Path) -> None:
    """What is left of a cut line is set aside, and the journal goes on."""
    events = written(tmp_path, {"text": "one"}, {"text": "zwei – ö"}, {"text": "three"})
    whole = (tmp_path / "journal.jsonl").read_bytes()
    for cut in range(len(whole) + 1):
        (tmp_path / "journal.jsonl").write_bytes(whole[:cut])
        (tmp_path / "journal.torn").unlink(missing_ok=True)
        kept = whole[:cut].count(b"\n")
        read, torn = read_journal(tmp_path)
        assert read == events[:kept]
        assert torn == whole[:cut].rpartition(b"\n")[2]
        if torn:
            repair_torn_line(tmp_path, torn)
            assert (tmp_path / "journal.torn").read_bytes() == torn + b"\n"
        (more,) = written(tmp_path, {"text": "more"}, fresh=False)
        assert read_journal(tmp_path) == ([*events[:kept], more], b"")


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"", b"\xff", b'{"event": "note"}', b'{"event": "x", "at": ""}']
)
def test_damage_within_a_journal_is_named(tmp_path: Path, line: bytes) -> None:
    """A damaged line that is not the last is no accident of the end: nothing is guessed."""
    written(tmp_path, {"text": "one"}, {"text": "two"})
    first, second, _ = (tmp_path / "journal.jsonl").read_bytes().split(b"\n")
    (tmp_path / "journal.jsonl").write_bytes(b"\n".join([first, line, second, b""]))
    with pytest.raises(UsageError, match=r"damaged in line 2\."):
        read_journal(tmp_path)


def test_a_full_disk_is_the_hosts_fault(tmp_path: Path) -> None:
    """One clear line and its exit code; closing the journal does not hide it."""
    (tmp_path / "journal.jsonl").symlink_to("/dev/full")
    with (
        pytest.raises(HostError, match="cannot be written: No space left"),
        Journal(tmp_path) as journal,
    ):
        journal.append(EventKind.NOTE, text="one")


def at(second: int, kind: EventKind, **fields: Any) -> dict[str, Any]:
    """An event of this second."""
    return {"event": kind.value, "at": f"2026-11-22T17:00:{second:02}+00:00", **fields}


def finished(second: int, record: Any) -> dict[str, Any]:
    """The end of a trial."""
    dumped = record.model_dump(mode="json", by_alias=True)
    return at(second, EventKind.TRIAL_FINISHED, record=dumped)


def test_a_state_is_what_its_events_say(tmp_path: Path) -> None:
    """Outcomes, the bug's kind, the weakest failure, and the time at work over two sessions."""
    made = settings(excluded=("0.30.0",))
    note = Finding(status=Status.INTERRUPTED, message="m").model_dump(mode="json")
    first = [
        at(0, EventKind.RUN_STARTED),
        at(1, EventKind.TRIAL_STARTED, version="0.27.1"),
        finished(5, failed("0.27.1", "returned 1 of 2 choices")),
        finished(6, skipped("0.32.0", "exit status 1")),
        finished(7, failed("0.28.0", "returned 1 of 2 choices", fails=2, passes=7)),
        at(8, EventKind.TRIAL_STARTED, version="0.29.0"),
        at(9, EventKind.OBSERVATION, version="0.29.0", partial={"tally": {"pass": 3, "fail": 0}}),
        at(10, EventKind.RUN_STOPPED, finding=note),
    ]
    state = replay(made, first, tmp_path)
    assert state.finding is not None
    assert state.outcomes == {
        0: Outcome.FAIL,
        1: Outcome.FAIL,
        3: Outcome.SKIP,
        4: Outcome.SKIP,
    }
    assert state.reference is FailureKind.CHOICES_MISSING
    assert state.weakest == Counts(7, 2)
    assert state.partial["0.29.0"].tally.passes == 3
    assert state.seconds == 10
    second = [at(40, EventKind.RUN_RESUMED), finished(45, passed("0.29.0"))]
    state = replay(made, [*first, *second], tmp_path)
    assert state.finding is None
    assert state.partial == {}
    assert state.outcomes[2] is Outcome.PASS
    assert state.seconds == 15, "the time between the sessions is not counted"


@pytest.mark.parametrize(
    "event",
    [
        at(3, EventKind.NOTE),
        at(3, EventKind.TRIAL_FINISHED, record={"version": "0.27.1", "outcome": "maybe"}),
        at(3, EventKind.OBSERVATION, version="0.27.1", partial={"tally": {"pass": "x"}}),
        finished(3, passed("9.9.9")),
        {"event": "note", "at": "yesterday", "text": ""},
        {"event": "note", "at": 5, "text": ""},
        {"event": "note", "at": "2026-11-22T17:00:00", "text": "no time zone"},
    ],
)
def test_events_that_make_no_sense_are_named(tmp_path: Path, event: dict[str, Any]) -> None:
    """A line of valid JSON that cannot be is damage too."""
    lines = [at(0, EventKind.RUN_STARTED), event]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    settings().write(tmp_path)
    with pytest.raises(UsageError, match=r"damaged in line 2\."):
        load_state(tmp_path)


def test_a_run_of_nothing_yet_is_readable(tmp_path: Path) -> None:
    """vbisect may be killed between the settings and the first event."""
    settings().write(tmp_path)
    (tmp_path / "journal.jsonl").touch()
    state, torn = load_state(tmp_path)
    assert (state, torn) == (RunState(settings()), b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not a run directory"),
        (b"x = ", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"", "damaged: .*Field required"),
        (b"schema = 'x'", "damaged: schema"),
    ],
)
def test_damaged_settings_are_told(tmp_path: Path, content: bytes | None, words: str) -> None:
    """One line that names the file, never a traceback."""
    if content is not None:
        (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        RunSettings.read(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """Settings are prepared from fixed releases and a model that nobody looks up."""
    with pytest.MonkeyPatch.context() as patch:
        known = KnownReleases(releases(), "package index")
        patch.setattr(preparing, "known_releases", lambda pre: known)
        model = ResolvedModel(name="org/model", path="org/model")
        patch.setattr(preparing, "resolve_model", lambda name, device, skeleton: model)
        patch.setattr(preparing, "gpus", list)
        yield


Words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=12)
Amounts = st.floats(0.001, 1e9) | st.integers(1, 10**9)


def on_command_line(options: RunOptions) -> bool:
    """Whether every option passes vbisect's own checks."""
    try:
        preparing.prepare(options)
    except UsageError:
        return False
    return True


Options = st.builds(
    RunOptions,
    start=st.sampled_from(["0.27.1", "v0.27.1", "0.28"]),
    end=st.sampled_from(["0.32.0", "latest"]),
    skip=st.sampled_from([(), ("0.29.0",), ("0.29.0", "0.30.0..0.30.0")]),
    pre=st.booleans(),
    endpoint=st.sampled_from(["chat", "completions", "generate"]),
    n=st.lists(st.integers(1, 16384), min_size=1, max_size=3).map(tuple),
    stream=st.booleans(),
    temperature=st.floats(0, 2),
    top_p=st.floats(1e-9, 1),
    max_tokens=st.integers(1, 10**9),
    request_timeout=Amounts,
    command=st.just(()) | st.lists(Words, max_size=3).map(lambda words: ("/bin/sh", *words)),
    command_timeout=Amounts,
    model=st.just("org/model"),
    skeleton=st.booleans(),
    device=st.just("cpu"),
    runtime=st.just("venv"),
    serve_args=st.lists(
        Words.map(lambda word: f"--x={shlex.quote(word)}; >=0.30")
        | Words.map(lambda word: f"--x={shlex.quote(word)};"),
        max_size=2,
    ).map(tuple),
    env=st.lists(Words.map(lambda word: f"A={word};"), max_size=2).map(tuple),
    latest_deps=st.booleans(),
    find=st.sampled_from(["auto", "fix", "break"]),
    sweep=st.booleans(),
    confidence=st.floats(0.5, 0.999999999),
    boot_timeout=Amounts,
).filter(on_command_line)


class Parsed(Exception):
    """Carries the options that the command line came to."""


def parsed(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> RunOptions:
    """The options the real command line parser makes of ``words``."""

    def stop(options: RunOptions, results: Path) -> None:
        raise Parsed(options)

    monkeypatch.setattr("vbisect.commands.run.new_run", stop)
    with pytest.raises(Parsed) as caught:
        app(words, standalone_mode=False)
    options = caught.value.args[0]
    assert isinstance(options, RunOptions)
    return options


@shared_directory
@given(Options)
@example(RunOptions("0.27.1", "0.32.0", device="cpu", confidence=0.9999999, max_tokens=1234567))
@example(RunOptions("0.27.1", "0.32.0", device="cpu", env=("A=b;c;",), temperature=0.12345678))
@example(RunOptions("0.27.1", "0.32.0", device="cpu", command=("/bin/sh", "--", "--json", "")))
def test_settings_survive_the_file_and_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: RunOptions
) -> None:
    """``run.toml`` is read back as it was, and the line that repeats a run means the same run."""
    made = preparing.prepare(options)
    made.write(tmp_path)
    assert RunSettings.read(tmp_path) == made
    words = shlex.split(made.replay_command())
    assert words[:2] == ["vbisect", "run"]
    again = preparing.prepare(parsed(monkeypatch, words[1:]))
    assert again.model_copy(update={"run_id": made.run_id}) == made


def test_a_plain_run_is_repeated_by_a_short_line() -> None:
    """What was not asked for is not in the way."""
    options = RunOptions("0.27.1", "latest", device="cpu", model="org/model")
    assert preparing.prepare(options).replay_command() == (
        "vbisect run --from 0.27.1 --to latest --runtime venv --device cpu "
        "--model org/model --endpoint chat --n 8"
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"n": (0,)}, "--n 0"),
        ({"n": (16385,)}, "--n 16385"),
        ({"confidence": 1.0}, "--confidence 1"),
        ({"confidence": float("nan")}, "--confidence nan"),
        ({"temperature": -0.1}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"top_p": 0.0}, "--top-p"),
        ({"max_tokens": 0}, "--max-tokens"),
        ({"request_timeout": float("nan")}, "--request-timeout"),
        ({"boot_timeout": 0}, "--boot-timeout"),
        ({"endpoint": "chats"}, "--endpoint chats: choose one of chat, completions, generate"),
        ({"find": "bug"}, "--find bug"),
        ({"probe": "command"}, "needs a command after --"),
        ({"command": ("/nonesuch/x",)}, "not there or not executable"),
    ],
)
def test_options_that_make_no_sense_are_refused(changed: dict[str, Any], words: str) -> None:
    """Each in one sentence that names the option, before anything starts."""
    options = replace(RunOptions("0.27.1", "0.32.0", device="cpu"), **changed)
    with pytest.raises(UsageError, match=words):
        preparing.prepare(options)


def test_versions_are_in_order() -> None:
    """The run's own record of its candidates is what the search counts by."""
    assert preparing.prepare(RunOptions("0.27.1", "0.32.0", device="cpu")).versions == VERSIONS
    assert asdict(RunOptions("a", "b"))["n"] == (8,)
