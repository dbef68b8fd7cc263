"""What earlier runs know counts again, and nothing that only looks like it."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from made import TOKEN, VERSIONS, failed, passed, releases, settings, skipped
from vbisect.launch import Limited
from vbisect.locks import file_lock
from vbisect.probes import CommandSettings, Endpoint, FailureKind, NChoicesSettings
from vbisect.reasons import SkipReason, Untestable
from vbisect.releases import Device, Release
from vbisect.run import earlier, trials
from vbisect.run.control import control_context
from vbisect.run.docker_settings import DockerSettings
from vbisect.run.earlier import Earlier, EarlierTrials, usable
from vbisect.run.journal import EventKind, Journal
from vbisect.run.records import Build, ControlRecord, Partial, Seconds, Tally, TrialRecord
from vbisect.run.runtimes import Fetched, Runtime
from vbisect.run.settings import RunSettings, read_settings
from vbisect.run.slots import Slot, SlotPool
from vbisect.run.state import RunState
from vbisect.run.teardown import Teardown
from vbisect.run.trust import enter
from vbisect.run.weights import Weights
from vbisect.search import Aim, Counts, Outcome, Seen, boot_context, passes_to_show
from vbisect.search.requests import passes_needed

DIGEST = "sha256:aa"
OTHER_DIGEST = "sha256:bb"
VERSION = "0.29.0"


def built(record: TrialRecord, digest: str = DIGEST, **changed: Any) -> TrialRecord:
    """``record`` as a trial of a build."""
    build = Build(kind="venv", ref="~/e", digest=digest)
    own = {"build": build, "seconds": Seconds(boot=90.0), "boots": (record.observations,)}
    return record.model_copy(update=own | changed)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own, with the ledger of the runs that were begun here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBISECT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def write_run(
    results: Path,
    name: str,
    records: Iterable[TrialRecord] | None = None,
    *,
    ours: bool = True,
    **changed: Any,
) -> Path:
    """The directory of a run that tested ``records`` and was then killed."""
    run_dir = results / name
    (run_dir / "trials").mkdir(parents=True)
    settings(run_id=name, **changed).write(run_dir)
    if ours:
        enter(run_dir, read_settings(run_dir))
    with Journal(run_dir) as journal:
        journal.append(EventKind.RUN_STARTED, vbisect="0.1", argv="")
        for record in [built(passed(VERSION))] if records is None else records:
            journal.append(EventKind.TRIAL_STARTED, version=record.version)
            dumped = record.model_dump(mode="json", by_alias=True)
            journal.append(EventKind.TRIAL_FINISHED, record=dumped)
    return run_dir


def found(results: Path, version: str = VERSION, **changed: Any) -> Earlier | None:
    """What a run of these settings finds; it may be found exactly when anything is."""
    trials = EarlierTrials(results, settings(run_id="own", **changed), results / "own")
    earlier_trial = trials.find(version, DIGEST)
    if earlier_trial is not None:
        fresh = EarlierTrials(results, settings(run_id="own", **changed), results / "own")
        assert trials.may_find(version)
        assert fresh.may_find(version), "asking first, before anything was replayed"
    return earlier_trial


def test_the_same_trial_counts_again(tmp_path: Path) -> None:
    """Passes and fails, also of a run that was killed, also one with other candidates."""
    fail = built(failed("0.27.1", "returned 1 of 2 choices"))
    write_run(tmp_path, "a", [fail, built(passed(VERSION))])
    assert found(tmp_path) == Earlier(built(passed(VERSION)), "a")
    assert found(tmp_path, "0.27.1", confidence=0.5, jobs=4) == Earlier(fail, "a")
    assert found(tmp_path, "0.28.0") is None


def test_a_run_that_somebody_sent_decides_nothing(tmp_path: Path) -> None:
    """It may name this host: who we are stands in every report that we publish."""
    write_run(tmp_path, "sent", ours=False, model="tiny:sent")
    assert found(tmp_path, model="tiny:sent") is None
    write_run(tmp_path, "ours", model="tiny:sent")
    assert found(tmp_path, model="tiny:sent") is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"device": Device.CUDA},
        {"tensor_parallel": 8},
        {"slots_per_gpu": 2},
        {"gpu_models": ("NVIDIA H20",)},
        {"runtime": "docker", "docker": DockerSettings(image_repo="a/b", gpus="none")},
        {"model": "tiny:qwen2_5_vl"},
        {"model_path": "/models/other"},
        {"model_args": (Limited(text="--dtype bfloat16"),)},
        {"model_env": {"A": "1"}},
        {"serve_args": (Limited(text="--enforce-eager"),)},
        {"log_args": (Limited(text="--enable-log-requests", specifier=">=0.10.1"),)},
        {"env": (Limited(text="A=1"),)},
        {"failure": "returned 1 of"},
        {"n_choices": NChoicesSettings(temperature=0.8)},
        {"n_choices": NChoicesSettings(n=(8, 16))},
        {"n_choices": NChoicesSettings(endpoint=Endpoint.GENERATE)},
        {"n_choices": NChoicesSettings(image="data:image/png;base64,AA==")},
        {"n_choices": NChoicesSettings(request_timeout=5)},
        {"host": "elsewhere"},
        {"n_choices": None, "command": CommandSettings(command=("/bin/true",))},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_question_is_another_trial(tmp_path: Path, changed: dict[str, Any]) -> None:
    """Whatever the answer depends on has to be equal, in either direction."""
    write_run(tmp_path, "plain")
    assert found(tmp_path) is not None
    assert found(tmp_path, **changed) is None
    assert not EarlierTrials(tmp_path, settings(**changed), tmp_path / "own").may_find(VERSION)
    write_run(tmp_path, "changed", **changed)
    assert found(tmp_path, **changed) == Earlier(built(passed(VERSION)), "changed")
    assert found(tmp_path) == Earlier(built(passed(VERSION)), "plain")


def test_another_command_is_another_probe(tmp_path: Path) -> None:
    """Its words and how long it may take are compared like any other probe's settings."""
    command = CommandSettings(command=("/bin/sh", "-c", "true"))
    write_run(tmp_path, "a", n_choices=None, command=command)
    assert found(tmp_path, n_choices=None, command=command) is not None
    for other in ({"command": ("/bin/sh", "-c", "false")}, {"timeout": 5}):
        changed = command.model_copy(update=other)
        assert found(tmp_path, n_choices=None, command=changed) is None


def test_an_argument_for_other_versions_changes_nothing(tmp_path: Path) -> None:
    """What counts is what the server of this version is given, however it was asked for."""
    write_run(tmp_path, "a", [built(passed(version)) for version in ("0.28.0", "0.32.0")])
    limited = (Limited(text="--enable-scale-out", specifier=">=0.30"),)
    assert found(tmp_path, "0.28.0", serve_args=limited) is not None
    assert found(tmp_path, "0.32.0", serve_args=limited) is None
    split = {"model_args": (), "serve_args": (Limited(text="'--dtype'  float32"),)}
    assert found(tmp_path, "0.32.0", **split) is not None


def test_another_build_is_another_trial(tmp_path: Path) -> None:
    """The digest decides; that one exists by another digest is said before it is fetched."""
    write_run(tmp_path, "a", [built(passed(VERSION), OTHER_DIGEST)])
    trials = EarlierTrials(tmp_path, settings(), tmp_path / "own")
    assert trials.find(VERSION, DIGEST) is None
    assert trials.may_find(VERSION)
    assert not trials.may_find("0.28.0")


def test_a_skip_never_counts(tmp_path: Path) -> None:
    """Nor does a record without a build."""
    write_run(tmp_path, "a", [built(skipped(VERSION, "exit status 1")), passed("0.28.0")])
    for version in (VERSION, "0.28.0"):
        assert found(tmp_path, version) is None
        assert not EarlierTrials(tmp_path, settings(), tmp_path / "own").may_find(version)


def test_the_newest_trial_counts(tmp_path: Path) -> None:
    """Not the one whose run was written to last."""
    first = write_run(tmp_path, "z", [built(passed(VERSION, 18))])
    write_run(tmp_path, "a", [built(passed(VERSION, 19))])
    assert found(tmp_path) == Earlier(built(passed(VERSION, 19)), "a")
    with Journal(first) as journal:
        journal.append(EventKind.RUN_RESUMED, vbisect="0.1")
    later = time.time() + 60
    os.utime(first / "journal.jsonl", (later, later))
    assert found(tmp_path) == Earlier(built(passed(VERSION, 19)), "a")
    write_run(tmp_path, "m", [built(skipped(VERSION, "exit status 1"))])
    assert found(tmp_path) == Earlier(built(passed(VERSION, 19)), "a"), "a skip takes nothing back"


def test_a_trial_that_counted_again_keeps_its_origin(tmp_path: Path) -> None:
    """However often it is handed on."""
    write_run(tmp_path, "later", [built(passed(VERSION), earlier_run="original")])
    again = found(tmp_path)
    assert again is not None
    assert again.run_id == "original"


def test_unreadable_runs_are_left_out(tmp_path: Path) -> None:
    """Damaged, foreign, of another schema or with a journal that is none: no word about them."""
    for name, line in {"middle": b"{\n", "unknown": b'{"event": "x", "at": ""}\n'}.items():
        journal = write_run(tmp_path, name) / "journal.jsonl"
        journal.write_bytes(line + journal.read_bytes())
    malformed = write_run(tmp_path, "malformed") / "journal.jsonl"
    malformed.write_bytes(malformed.read_bytes() + b'{"event": "trial_finished", "at": "now"}\n')
    (write_run(tmp_path, "torn toml") / "run.toml").write_text("schema = 1\nvb", encoding="utf-8")
    (write_run(tmp_path, "no toml") / "run.toml").unlink()
    newer = write_run(tmp_path, "newer") / "run.toml"
    newer.write_text(newer.read_text().replace("schema = 1", "schema = 2"), encoding="utf-8")
    odd = write_run(tmp_path, "odd") / "run.toml"
    odd.write_text(odd.read_text().replace("--dtype float32", "--dtype 'float32"))
    (write_run(tmp_path, "no journal") / "journal.jsonl").unlink()
    pipe = write_run(tmp_path, "pipe") / "journal.jsonl"
    pipe.unlink()
    os.mkfifo(pipe)
    (tmp_path / "empty" / "journal.jsonl").mkdir(parents=True)
    (tmp_path / "table.csv").touch()
    assert found(tmp_path) is None
    assert not EarlierTrials(tmp_path, settings(), tmp_path / "own").may_find(VERSION)
    write_run(tmp_path, "good")
    assert found(tmp_path) is not None


def test_a_torn_last_line_costs_nothing_else(tmp_path: Path) -> None:
    """A killed run knows what it had recorded."""
    with (write_run(tmp_path, "a") / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"event": "no')
    assert found(tmp_path) is not None


@pytest.mark.parametrize("name", ["missing", "file"])
def test_results_that_are_no_folder_hold_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    assert found(tmp_path / name) is None


def test_a_run_at_work_and_the_own_one_are_left_out(tmp_path: Path) -> None:
    """A run that goes on may still change its mind about a failure."""
    run_dir = write_run(tmp_path, "a")
    with file_lock(run_dir / "lock"):
        assert found(tmp_path) is None
    assert found(tmp_path) is not None
    assert EarlierTrials(tmp_path, settings(), run_dir).find(VERSION, DIGEST) is None


def test_a_variable_passed_on_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its value then is unknown, so it counts only where values change no answer: a token's."""
    for name, value in {"HF_TOKEN": TOKEN, "VLLM_USE_V1": "1"}.items():
        monkeypatch.setenv(name, value)
        passed_on = {"env": (Limited(text=name),)}
        assert found(tmp_path, **passed_on) is None, "a run without it may differ"
        write_run(tmp_path, name, **passed_on)
        monkeypatch.setenv(name, f"{value}-changed")
        assert (found(tmp_path, **passed_on) is not None) == (name == "HF_TOKEN")
    elsewhere = (Limited(text="VLLM_USE_V1", specifier="<0.1"),)
    assert found(tmp_path, env=elsewhere) is None
    write_run(tmp_path, "plain")
    assert found(tmp_path, env=elsewhere) is not None


def test_a_trial_counts_for_the_engine_that_ran(tmp_path: Path) -> None:
    """Whatever was asked for; what a release does by itself is only what it did unasked."""
    ran = {
        "0.7.3": ("V0", None),
        "0.8.5": ("V1", "V1"),
        "0.9.0": ("V1", None),
        "0.32.0": ("V1", None),
    }
    told = [
        built(passed(v), engine=engine, engine_asked=asked) for v, (engine, asked) in ran.items()
    ]
    world = {"candidates": releases(ran)}
    write_run(tmp_path, "a", told, **world)
    counts = {
        engine: [
            v
            for v in ran
            if EarlierTrials(tmp_path, settings(**world), tmp_path / "own").find(v, DIGEST, engine)
        ]
        for engine in (None, "V0", "V1")
    }
    assert counts == {
        None: ["0.7.3", "0.9.0", "0.32.0"],
        "V0": ["0.7.3"],
        "V1": ["0.8.5", "0.9.0", "0.32.0"],
    }


def test_a_check_that_was_changed_is_another_probe(tmp_path: Path) -> None:
    """The command's words stay the same when the script behind them is edited."""
    script, results = tmp_path / "check.py", tmp_path / "results"
    script.write_text("exit(0)")
    for words in (("/usr/bin/env", "python", str(script)), ("/usr/bin/env", f"--x={script}")):
        probe = {"n_choices": None, "command": CommandSettings(command=words)}
        write_run(results, f"before {len(words)}", **probe)
        assert found(results, **probe) is not None
        time.sleep(0.02)  # file systems keep time in ticks
        script.write_text("exit(1)")
        assert found(results, **probe) is None
        time.sleep(0.02)
        write_run(results, f"after {len(words)}", **probe)
        assert found(results, **probe) is not None
    folder = CommandSettings(command=("/usr/bin/env", "pytest", str(tmp_path)))
    write_run(results, "folder", n_choices=None, command=folder)
    assert found(results, n_choices=None, command=folder) is None
    text = CommandSettings(command=("/bin/sh", "-c", "y" * 5000))
    write_run(results, "text", n_choices=None, command=text)
    assert found(results, n_choices=None, command=text) is not None


def test_a_local_model_that_was_changed_is_another_model(tmp_path: Path) -> None:
    """A folder of weights keeps its name when it is trained on."""
    model, results = tmp_path / "model", tmp_path / "results"
    model.mkdir()
    (model / "config.json").write_text("{}")
    local = {"model": str(model), "model_path": str(model)}
    time.sleep(0.02)
    write_run(results, "a", **local)
    assert found(results, **local) is not None
    (model / "config.json").write_text("{ }")
    assert found(results, **local) is None


def test_a_file_that_a_server_is_given_counts_as_it_is(tmp_path: Path) -> None:
    """A chat template keeps its name when it is edited."""
    template, results = tmp_path / "chat.jinja", tmp_path / "results"
    template.write_text("a")
    for name, asked in {
        "two words": {"serve_args": (Limited(text=f"--chat-template {template}"),)},
        "one word": {"serve_args": (Limited(text=f"--config={template}"),)},
        "variable": {"env": (Limited(text=f"VLLM_LOGGING_CONFIG_PATH={template}"),)},
    }.items():
        time.sleep(0.02)
        write_run(results, name, **asked)
        assert found(results, **asked) is not None
        time.sleep(0.02)
        template.write_text("b")
        assert found(results, **asked) is None


def test_little_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No journal of a run that asked something else, and only the latest runs at all."""
    read: list[str] = []
    real = earlier.read_journal
    monkeypatch.setattr(earlier, "read_journal", lambda d: read.append(d.name) or real(d))
    settings_read: list[str] = []
    real_settings = RunSettings.read
    monkeypatch.setattr(
        RunSettings, "read", lambda d: settings_read.append(d.name) or real_settings(d)
    )
    for number, changed in enumerate([{}, {"model": "m"}, {}, {"model": "m"}, {}]):
        journal = write_run(tmp_path, str(number), **changed) / "journal.jsonl"
        os.utime(journal, (1e9 + number, 1e9 + number))
    trials = EarlierTrials(tmp_path, settings(), tmp_path / "own")
    assert (read, settings_read) == ([], [])
    assert trials.may_find(VERSION)
    assert (read, settings_read) == (["4"], ["4"])
    assert trials.find(VERSION, OTHER_DIGEST) is None
    assert read == ["4"], "no other journal has that digest"
    assert trials.find(VERSION, DIGEST) is not None
    assert trials.find(VERSION, DIGEST) is not None
    assert (read, settings_read) == (["4"], ["4", "3", "2", "1", "0"])
    read.clear()
    assert not EarlierTrials(tmp_path, settings(), tmp_path / "own").may_find("0.28.0")
    assert read == [], "no journal has that version"
    for most, run_id in ((2, "3"), (1, None)):
        monkeypatch.setattr(earlier, "MOST_RUNS", most)
        again = EarlierTrials(tmp_path, settings(model="m"), tmp_path / "own").find(VERSION, DIGEST)
        assert (again.run_id if again else None) == run_id


Trials = st.lists(
    st.tuples(
        st.sampled_from(VERSIONS[:3]),
        st.sampled_from(["pass", "fail", "skip"]),
        st.sampled_from([DIGEST, OTHER_DIGEST]),
    ),
    max_size=4,
    unique_by=lambda trial: trial[0],
)


@hypothesis_settings(max_examples=40)
@given(st.lists(st.tuples(Trials, st.booleans()), max_size=4))
def test_any_history_gives_its_newest_trial(
    history: list[tuple[list[tuple[str, str, str]], bool]],
) -> None:
    """Of any runs, written one after the other, some of which asked something else."""
    make = {"pass": passed, "fail": lambda v: failed(v, "f"), "skip": lambda v: skipped(v, "s")}
    expected: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        for number, (trials, alike) in enumerate(history):
            records = [built(make[kind](v), digest) for v, kind, digest in trials]
            write_run(results, str(number), records, **({} if alike else {"model": "m"}))
            if alike:
                judged = [(v, digest) for v, kind, digest in trials if kind != "skip"]
                expected |= dict.fromkeys(judged, str(number))
        made = EarlierTrials(results, settings(), results / "own")
        for version in VERSIONS:
            keys = [(version, DIGEST), (version, OTHER_DIGEST)]
            assert made.may_find(version) == any(key in expected for key in keys)
            for key in keys:
                again = made.find(*key)
                assert (again.run_id if again else None) == expected.get(key)


BUG = FailureKind.CHOICES_MISSING


def is_usable(
    record: TrialRecord,
    reference: str | None = None,
    *,
    index: int = 2,
    seen: Seen | None = None,
    control: Counts | None = None,
    confidence: float = 0.95,
) -> bool:
    """Whether it settles candidate ``index`` of five, by what is ``seen`` of the others."""
    context = boot_context(Aim(5, confidence=confidence), seen or Seen({}), index)
    whole = record.after(None)
    return usable(whole, context, control_context(context, whole, [control or Counts()]), reference)


MIXED = Seen({0: Outcome.FAIL, 4: Outcome.PASS}, {0: (Counts(5, 5),), 4: (Counts(40, 0),)})


@pytest.mark.parametrize(
    ("record", "reference", "settles"),
    [
        (passed(VERSION, 5), None, True),
        (passed(VERSION, 4), None, False),
        (passed(VERSION, 5), BUG, True),
        (failed(VERSION, "f", fails=5), None, True),
        (failed(VERSION, "f", fails=5), BUG, True),
        (failed(VERSION, "f", fails=5), FailureKind.CRASHED, False),
        (failed(VERSION, "f", fails=4), BUG, False),
        (failed(VERSION, "f", fails=20, passes=20), BUG, True),
        (failed(VERSION, "f", fails=1, passes=1), BUG, False),
        (skipped(VERSION, "s"), None, False),
        (passed(VERSION, 0), None, False),
    ],
)
def test_what_settles_a_release(record: TrialRecord, reference: str | None, settles: bool) -> None:
    """As many observations as a boot of this run would need, and this run's bug."""
    assert is_usable(record, reference) is settles


def test_an_end_takes_more_passes_while_nothing_failed() -> None:
    """The bug would have to show there."""
    assert not is_usable(passed(VERSION, 19), index=0)
    assert is_usable(passed(VERSION, 20), index=0)
    assert is_usable(passed(VERSION, 5), index=0, seen=Seen({4: Outcome.FAIL}))


def test_where_requests_fail_now_and_then_a_pass_takes_more() -> None:
    """As a boot of this run would be asked more."""
    assert not is_usable(passed(VERSION, 3), seen=MIXED)
    assert is_usable(passed(VERSION, 60), seen=MIXED)


def test_boots_do_not_add_up() -> None:
    """One of them has to have been asked enough."""
    twice = passed(VERSION, 4).after(None)
    assert not is_usable(passed(VERSION, 4).after(twice))
    assert is_usable(passed(VERSION, 5).after(twice))


def test_a_crash_is_settled_by_one() -> None:
    """A crash ends the boot, so a trial of this run would not see more either."""
    crash = failed(VERSION, "died", fails=1).model_copy(
        update={"failure_kind": FailureKind.CRASHED}
    )
    assert is_usable(crash)
    assert is_usable(crash, FailureKind.CRASHED, seen=MIXED)
    assert not is_usable(crash, BUG)


def test_a_failure_of_another_kind_is_neither() -> None:
    """The passes beside it count, itself does not."""
    for passes, settles in ((5, True), (4, False)):
        seen = Tally(passes=passes, other=1, kinds={"crashed": 1})
        record = passed(VERSION).model_copy(update={"observations": seen})
        assert is_usable(record) is settles


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.5, 0.999))
def test_a_pass_carries_its_confidence(passes: int, asked: int, confidence: float) -> None:
    """A pass settles exactly what a boot of this run would, and so does its control."""
    needed = passes_needed(confidence)
    record = passed(VERSION, passes)
    assert is_usable(record, confidence=confidence) is (passes >= needed)
    tally = Tally(passes=asked)
    control = ControlRecord(model="m", outcome=Outcome.PASS, observations=tally)
    both = record.model_copy(update={"control": control})
    enough = passes >= needed and asked >= needed
    assert is_usable(both, confidence=confidence) is enough
    rare = passes_to_show(1 / 4, confidence)
    assert is_usable(both, confidence=confidence, control=Counts(3, 1)) is (
        passes >= needed and asked >= rare
    )


def test_a_record_names_its_origin(tmp_path: Path) -> None:
    """And one of an older vbisect, which could not, is still read."""
    record = built(passed(VERSION), earlier_run="original")
    dumped = record.model_dump(mode="json", by_alias=True)
    assert TrialRecord.model_validate(json.loads(json.dumps(dumped))) == record
    del dumped["earlier_run"]
    assert TrialRecord.model_validate(dumped).earlier_run is None
    assert record.outcome is Outcome.PASS


class NothingFetched:
    """A runtime that has the build that earlier runs tested, and cannot fetch it again."""

    lookahead = 1

    def digest(self, release: Release) -> str:
        """That of ``built``."""
        return DIGEST

    def fetch(self, release: Release, given_up: threading.Event) -> Fetched:
        """So every trial that is begun is a skip."""
        raise Untestable(SkipReason.NOT_PULLABLE, "it is gone")

    def arrived(self, releases: Sequence[Release]) -> dict[str, float]:
        """Nothing."""
        return {}

    def expect(self, releases: Sequence[Release], keep: Sequence[Release], *, of_use: int) -> None:
        """Nothing is fetched ahead."""


@pytest.mark.parametrize("begun", [False, True])
def test_what_this_run_saw_itself_is_not_given_up_for_an_earlier_run(
    tmp_path: Path, begun: bool
) -> None:
    """Its observations, of a trial that was interrupted, are what the trial goes on from."""
    write_run(tmp_path, "earlier")
    own = tmp_path / "own"
    state = RunState(settings(run_id="own"))
    if begun:
        partial = Partial(tally=Tally(fails=1), kind=FailureKind.CHOICES_MISSING)
        state.partial[VERSION] = partial
    told: list[dict[str, Any]] = []
    with Teardown(overlapped=False) as teardown:
        own_trials = trials.Trials(
            state,
            own,
            lambda kind, **fields: told.append({"event": kind, **fields}),
            threading.RLock(),
            runtime=cast(Runtime, NothingFetched()),
            teardown=teardown,
            slots=SlotPool([Slot(0)]),
            weights=Weights(state, print, print),
        )
        own_trials.test(VERSIONS.index(VERSION), threading.Event())
    [record] = [e["record"] for e in told if e["event"] is EventKind.TRIAL_FINISHED]
    assert record["earlier_run"] == (None if begun else "earlier")
    seen = {"pass": 0 if begun else 18, "fail": int(begun), "other": 0, "kinds": {}}
    assert record["observations"] == seen
