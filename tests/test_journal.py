"""The journal: what was written is what is read, after any end of vbisect."""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from made import TOKEN, failed, passed, settings, skipped
from vbisect.errors import HostError, UsageError
from vbisect.probes import FailureKind
from vbisect.reasons import SkipReason
from vbisect.run.journal import EventKind, Journal, read_journal, repair_torn_line
from vbisect.run.records import Finding, Seconds, Status, Tally, TrialRecord
from vbisect.run.state import RunState, load_state, replay
from vbisect.search import CRASHED, Boot, Counts, Outcome

shared_directory = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    "line",
    [
        b"{",
        b"[]",
        b"",
        b"\xff",
        b'{"event": "note"}',
        b'{"event": "x", "at": ""}',
        b'{"event": [], "at": ""}',
    ],
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
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, unlimited[1]))
        with (
            pytest.raises(HostError, match="cannot be written: File too large"),
            Journal(tmp_path) as journal,
        ):
            journal.append(EventKind.NOTE, text="one")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


def test_an_interrupt_within_a_line_leaves_nothing_of_it(tmp_path: Path) -> None:
    """The system takes half of the line, and in the middle of the other half comes the signal."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    events = written(tmp_path, {"text": "one"})
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, interrupt)
    try:
        with Journal(tmp_path) as journal:
            room = (tmp_path / "journal.jsonl").stat().st_size + 10
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited[1]))
            with pytest.raises(KeyboardInterrupt):
                journal.append(EventKind.NOTE, text="two")
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            events.append(journal.append(EventKind.NOTE, text="three"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        signal.signal(signal.SIGXFSZ, ignored)
    assert read_journal(tmp_path) == (events, b"")


def at(second: int, kind: EventKind, **fields: Any) -> dict[str, Any]:
    """An event of this second."""
    return {"event": kind.value, "at": f"2026-11-22T17:00:{second:02}+00:00", **fields}


def finished(second: int, record: Any) -> dict[str, Any]:
    """The end of a trial."""
    dumped = record.model_dump(mode="json", by_alias=True)
    return at(second, EventKind.TRIAL_FINISHED, record=dumped)


def test_a_state_is_what_its_events_say(tmp_path: Path) -> None:
    """Outcomes, the bug's kind, each boot, and the time at work over two sessions."""
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
    assert state.reference == FailureKind.CHOICES_MISSING
    bug = str(FailureKind.CHOICES_MISSING)
    assert state.boots == {0: (Boot(0, {bug: 5}),), 1: (Boot(7, {bug: 2}),), 4: (Boot(),)}
    assert state.seen().boots == {0: (Counts(0, 5),), 1: (Counts(7, 2),), 4: (Counts(),)}
    assert state.partial["0.29.0"].tally.passes == 3
    assert state.seconds == 10
    second = [at(40, EventKind.RUN_RESUMED), finished(45, passed("0.29.0"))]
    state = replay(made, [*first, *second], tmp_path)
    assert state.finding is None
    assert state.partial == {}
    assert state.outcomes[2] is Outcome.PASS
    assert state.seconds == 15, "the time between the sessions is not counted"


def kinds(version: str, seen: dict[str, int], outcome: Outcome = Outcome.FAIL) -> TrialRecord:
    """A boot that failed in these kinds only, as recorded while any of them was the bug."""
    first = next(iter(seen))
    skip = outcome is Outcome.SKIP
    return TrialRecord(
        version=version,
        outcome=outcome,
        reason=SkipReason.DIFFERENT_FAILURE if skip else None,
        signature=f"told: {first}",
        signatures={kind: f"told: {kind}" for kind in seen},
        failure_kind=None if skip else FailureKind(first),
        observations=Tally(fails=0 if skip else sum(seen.values()), kinds=seen),
        seconds=Seconds(boot=9.0),
    )


BUG, CRASH = str(FailureKind.CHOICES_MISSING), CRASHED


def test_records_are_told_anew_once_the_bug_is_another(tmp_path: Path) -> None:
    """A crash at the low end comes first, then what fails steadily at the high one."""
    crash = kinds("0.27.1", {CRASH: 1})
    state = replay(settings(), [at(0, EventKind.RUN_STARTED), finished(1, crash)], tmp_path)
    assert state.reference is None, "one crash may have any cause"
    alone = state.records["0.27.1"]
    assert (alone.outcome, alone.reason) == (Outcome.SKIP, SkipReason.DIFFERENT_FAILURE)
    assert alone.detail == "told: crashed; one crash may have any cause"
    assert state.seen().outcomes == {}, "it is looked at again"
    state.apply(finished(2, crash))
    assert state.reference == CRASH
    assert state.records["0.27.1"].outcome is Outcome.FAIL
    assert state.records["0.27.1"].signature == "told: crashed"
    assert state.seen().boots == {0: (Counts(0, 1), Counts(0, 1))}
    state.apply(finished(3, kinds("0.32.0", {BUG: 5}, Outcome.SKIP)))
    assert state.reference == BUG, "two crashes are too few beside what fails steadily"
    crashed, steady = state.records["0.27.1"], state.records["0.32.0"]
    assert (steady.outcome, steady.reason, steady.detail) == (Outcome.FAIL, None, None)
    assert (steady.signature, steady.failure_kind) == (f"told: {BUG}", FailureKind.CHOICES_MISSING)
    assert steady.observations == Tally(fails=5, kinds={BUG: 5})
    assert (crashed.outcome, crashed.reason) == (Outcome.SKIP, SkipReason.DIFFERENT_FAILURE)
    assert crashed.detail == f"told: crashed; the bug is another failure ({BUG})"
    assert (crashed.failure_kind, crashed.observations.fails) == (None, 0)
    assert crashed.observations == Tally(other=2, kinds={CRASH: 2})
    assert crashed.boots == (Tally(other=1, kinds={CRASH: 1}),) * 2
    assert state.seen().outcomes == {4: Outcome.FAIL}


def test_a_record_is_told_by_the_bug() -> None:
    """Passes stay, failures of another kind are neither, and nothing is lost on the way."""
    seen = Tally(passes=3, fails=2, other=1, kinds={BUG: 2, CRASH: 1})
    record = kinds("0.28.0", {BUG: 2, CRASH: 1}).model_copy(update={"observations": seen})
    record = record.after(None)
    other = record.told_by(CRASH, Outcome.FAIL, CRASH)
    assert other.observations == Tally(passes=3, fails=1, other=2, kinds=seen.kinds)
    assert other.boots == (other.observations,)
    assert (other.signature, other.failure_kind) == ("told: crashed", FailureKind.CRASHED)
    clean = record.told_by("server error", Outcome.PASS, "server error")
    assert (clean.outcome, clean.signature, clean.failure_kind) == (Outcome.PASS, None, None)
    assert clean.observations == Tally(passes=3, other=3, kinds=seen.kinds)
    assert clean.told_by(BUG, Outcome.FAIL, BUG) == record


def test_a_record_without_kinds_fails_in_the_kind_it_has(tmp_path: Path) -> None:
    """Older journals have no kinds: such a failure and one of today are the same bug."""
    old = finished(1, failed("0.27.1", "returned 1 of 2 choices"))
    for tally in (old["record"]["observations"], *old["record"]["boots"]):
        del tally["kinds"]
    del old["record"]["signatures"]
    state = replay(settings(), [at(0, EventKind.RUN_STARTED), old], tmp_path)
    state.apply(finished(2, kinds("0.28.0", {BUG: 5})))
    state.apply(finished(3, passed("0.32.0")))
    assert state.reference == BUG
    assert [state.outcomes[index] for index in (0, 1, 4)] == [
        Outcome.FAIL,
        Outcome.FAIL,
        Outcome.PASS,
    ]
    assert state.seen().boots == {0: (Counts(0, 5),), 1: (Counts(0, 5),), 4: (Counts(18, 0),)}
    given = replay(settings(failure="returned"), [at(0, EventKind.RUN_STARTED), old], tmp_path)
    assert given.seen().boots == {0: (Counts(0, 5),)}


@pytest.mark.parametrize(
    "event",
    [
        at(3, EventKind.NOTE),
        at(3, EventKind.TRIAL_FINISHED, record={"version": "0.27.1", "outcome": "maybe"}),
        at(3, EventKind.OBSERVATION, version="0.27.1", partial={"tally": {"pass": "x"}}),
        finished(3, passed("9.9.9")),
        {"event": "note", "at": "yesterday", "text": ""},
        {"event": "note", "at": 5, "text": ""},
        at(3, EventKind.NOTE, text="", elapsed="long"),
        at(3, EventKind.NOTE, text="", elapsed=float("inf")),
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


def test_time_goes_on_whatever_is_done_to_the_clock(tmp_path: Path) -> None:
    """Sessions are added up by what a steady clock says; without one, time may stand still."""
    events = [
        at(30, EventKind.RUN_STARTED, elapsed=0.0),
        at(5, EventKind.NOTE, text="set back", elapsed=4.5),
        at(1, EventKind.RUN_RESUMED, elapsed=0.0),
        at(59, EventKind.NOTE, text="set forward", elapsed=2.0),
    ]
    assert replay(settings(), events, tmp_path).seconds == 6.5
    old = [at(30, EventKind.RUN_STARTED), at(33, EventKind.NOTE, text=""), at(5, EventKind.NOTE)]
    state = replay(settings(), old[:2], tmp_path)
    state.apply({**old[2], "text": "set back"})
    assert state.seconds == 3.0


def test_a_journal_tells_what_has_elapsed(tmp_path: Path) -> None:
    """In each session anew."""
    for fresh in (True, False):
        first, second = written(tmp_path, {"text": "a"}, {"text": "b"}, fresh=fresh)
        assert 0 <= first["elapsed"] <= second["elapsed"] < 3600


def trials(times: int) -> list[dict[str, Any]]:
    """Trials of two releases in turn, which fail in two ways, pass, and come to skips."""
    kept = [
        kinds("0.27.1", {BUG: 3}),
        passed("0.32.0"),
        kinds("0.27.1", {CRASH: 1}),
        skipped("0.32.0", "the log is empty"),
    ]
    return [at(0, EventKind.RUN_STARTED), *(finished(1, kept[i % 4]) for i in range(times))]


@pytest.mark.parametrize("first", range(4))
def test_a_journal_read_at_once_tells_what_it_told_the_run(tmp_path: Path, first: int) -> None:
    """Whatever came first, and whichever failure was the bug on the way."""
    began, *others = trials(16)
    events = [began, *others[first:]]
    state = RunState(settings())
    for event in events:
        state.apply(event)
    assert replay(settings(), events, tmp_path) == state


def test_a_journal_twice_as_long_is_twice_the_work(tmp_path: Path) -> None:
    """Counted in calls, which no busy machine makes more of."""

    def calls(times: int) -> int:
        events, made = trials(times), 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            replay(settings(), events, tmp_path)
        finally:
            sys.setprofile(None)
        return made

    assert calls(800) < 2.2 * calls(400)


def test_a_run_of_nothing_yet_is_readable(tmp_path: Path) -> None:
    """vbisect may be killed between the settings and the first event."""
    settings().write(tmp_path)
    (tmp_path / "journal.jsonl").touch()
    state, torn = load_state(tmp_path)
    assert (state, torn) == (RunState(settings()), b"")
