"""Which of vLLM's two engines an answer is about: asked for, found out, and checked in the log."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driving import Done, Vbisect, counts, events, world
from made import passed, releases, settings
from standin.behaviour import Behaviour
from standin.family import behaviour_of
from standin.index import PackageIndex
from vbisect.errors import UsageError
from vbisect.launch.arguments import parse_variable
from vbisect.launch.engine_version import EngineAsked, engines_of, variables_for
from vbisect.reasons import SkipReason
from vbisect.report.comment import marker
from vbisect.run.common_fault import common_fault, end_to_compare
from vbisect.run.engine_choice import engine_asked, engine_notes, next_choice
from vbisect.run.journal import EventKind
from vbisect.run.records import TrialRecord
from vbisect.run.state import RunState, load_state
from vbisect.search import Outcome

QUICK = ("--confidence", "0.6", "--n", "2")
FLOAT32 = "--dtype float32"


def named(version: str, **changed: Any) -> Behaviour:
    """How vLLM's release of this name behaves, but for what is changed."""
    return replace(behaviour_of("vllm", version, 0.0), **changed)


def every(versions: str, **changed: Any) -> dict[str, Behaviour]:
    """All of these releases, changed alike."""
    return {version: named(version, **changed) for version in versions.split()}


@pytest.fixture
def over(
    tmp_path: Path, command: Callable[..., Vbisect]
) -> Iterator[Callable[[Mapping[str, Behaviour]], Vbisect]]:
    """The command over releases."""
    opened: list[PackageIndex] = []

    def make(made: Mapping[str, Behaviour]) -> Vbisect:
        opened.append(PackageIndex(world(tmp_path / f"wheels-{len(opened)}", made)).__enter__())
        return command(opened[-1])

    yield make
    for index in opened:
        index.__exit__(None, None, None)


Over = Callable[[Mapping[str, Behaviour]], Vbisect]


def engines(done: Done) -> dict[str, str]:
    """Which engine each trial that counts ran."""
    return {version: trial["engine"] for version, trial in done.trials.items()}


def chosen(run_dir: Path) -> list[tuple[str | None, bool]]:
    """The decisions in its journal: engine, and whether it is settled."""
    choices = [e["choice"] for e in events(run_dir) if e["event"] == "engine_chosen"]
    return [(choice["engine"], choice["settled"]) for choice in choices]


def test_the_founding_bug_is_that_of_v1(over: Over) -> None:
    """0.7.3 runs V0 by itself, which returns all choices; its V1 ignores n, and V1 was mended.

    The documented first command; the same of what it recorded, and of what later runs take of it.
    """
    vbisect = over(every("0.7.3 0.8.0 0.8.5 0.10.2 0.11.0 0.32.0"))
    done = vbisect.run("--from", "0.7.3", "--to", "nightly", "--n", "8", fresh=False)
    assert done.returncode == 0, done.stderr
    assert done.json["message"].startswith("fixed in 0.8.0 for V1; 0.7.3 is the last failing")
    assert done.json["message"].endswith("; V0 passes in 0.7.3")
    assert "NOTE 0.7.3 ran V0 and 0.32.0 V1: 0.7.3 is booted once more with V1" in done.stderr
    assert done.json["engine"]["of_answer"] == "V1"
    [aside] = done.json["engine"]["set_aside"]
    assert (aside["version"], aside["engine"], aside["outcome"]) == ("0.7.3", "V0", "pass")
    assert set(engines(done).values()) == {"V1"}
    assert "fixed in 0.8.0 for V1" in (done.run_dir / "report.md").read_text()
    again, _ = load_state(done.run_dir)
    assert again.engine == "V1"
    assert {v: r.outcome for v, r in again.records.items()} == {
        v: t["outcome"] for v, t in done.trials.items()
    }
    # killed after the switch, it goes on with the engine it had
    killed = done.run_dir.with_name("killed")
    shutil.copytree(done.run_dir, killed)
    lines = (killed / "journal.jsonl").read_text().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if '"engine_chosen"' in line)
    (killed / "journal.jsonl").write_text("".join(lines[: at + 1]))
    resumed = vbisect.resume(killed)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.json["message"] == done.json["message"]
    assert chosen(killed) == chosen(done.run_dir) == [("V1", False), ("V1", True)]
    # what is known counts again, of each engine by itself
    known = vbisect.run("--from", "0.7.3", "--to", "nightly", "--n", "8", fresh=False)
    assert known.json["message"] == done.json["message"]
    assert (
        counts(known.run_dir, "trial_started").total()
        < counts(done.run_dir, "trial_started").total()
    )
    forced = vbisect.run("--from", "0.7.3", "--to", "0.8.0", "--n", "8", "--engine", "v0")
    assert forced.returncode == 1, forced.stderr
    assert forced.json["message"].startswith("passes in every tested release for V0 (0.7.3, 0.8.0")
    assert engines(forced) == {"0.7.3": "V0", "0.8.0": "V0"}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        pytest.param(
            every("0.7.3 0.8.0 0.11.0", ignores_n=()),
            "passes in every tested release (0.7.3, 0.11.0: 2 of 3 candidates)…V1 passes in 0.7.3",
            id="neither has a bug",
        ),
        pytest.param(
            every("0.7.3 0.8.0 0.11.0", ignores_n=("V1",)),
            "fails in every tested release for V1 (0.7.3, 0.11.0: 2 of 3 candidates)…"
            "V0 passes in 0.7.3",
            id="V1 never worked",
        ),
        pytest.param(
            every("0.7.3 0.8.0", ignores_n=()) | every("0.8.5 0.11.0", ignores_n=("V1",)),
            "broken in 0.8.5 for V1; 0.8.0 is the last passing release; V0 passes in 0.7.3",
            id="V1 broke",
        ),
        pytest.param(
            every("0.7.3 0.8.0", ignores_n=("V0",)) | every("0.9.0 0.11.0", ignores_n=()),
            "fixed in 0.9.0 for V0; 0.8.0 is the last failing release; V1 passes in 0.7.3, 0.11.0",
            id="V0 was mended",
        ),
        pytest.param(
            every("0.8.0", not_in_v1=FLOAT32, ignores_n=("V0",)) | every("0.9.0 0.11.0"),
            "fixed in 0.9.0; 0.8.0 is the last failing release; V1 could not be tested in 0.8.0",
            id="V1 cannot be had at the older end",
        ),
        pytest.param(
            every("0.7.3 0.8.0", ignores_n=("V0",)) | every("0.9.0 0.11.0", ignores_n=("V0", "V1")),
            "broken in 0.9.0 for V1; 0.8.0 is the last passing release; V0 fails in 0.7.3",
            id="V1 broke, and V0 never worked",
        ),
        pytest.param(
            every("0.9.0", ignores_n=("V1",)) | every("0.9.1 0.11.0"),
            "fixed in 0.9.1; 0.9.0 is the last failing release",
            id="both ends run V1",
        ),
        pytest.param(
            every("0.9.0 0.9.1", ignores_n=("V0",)) | every("0.10.0"),
            "fixed in 0.10.0 for V0; 0.9.1 is the last failing release; V1 passes in 0.9.0, 0.10.0",
            id="both ends pass with V1",
        ),
    ],
)
def test_the_run_goes_on_with_the_engine_that_fails(
    over: Over, made: dict[str, Behaviour], message: str
) -> None:
    """And says of the other one what was seen of it, no more."""
    first, last = next(iter(made)), list(made)[-1]
    done = over(made).run("--from", first, "--to", last, *QUICK)
    begin, _, end = message.partition("…")
    assert done.json["message"].startswith(begin), done.json["message"]
    assert done.json["message"].endswith(end), done.json["message"]
    unlike = any("may be that of the engine" in warning for warning in done.json["warnings"])
    assert unlike == ("could not be tested" in message)


def test_logs_that_name_no_engine_hide_no_bug(over: Over) -> None:
    """As with VLLM_LOGGING_LEVEL=WARNING: what releases run by themselves is known all the same."""
    vbisect = over(every("0.7.3 0.8.0 0.10.2 0.11.0", names_engine=False))
    done = vbisect.run("--from", "0.7.3", "--to", "0.11.0", *QUICK)
    assert done.json["message"].startswith("fixed in 0.8.0 for V1; 0.7.3 is the last failing")
    assert "NOTE 0.7.3 ran V0 and 0.11.0 V1: 0.7.3 is booted once more with V1" in done.stderr
    assert any(
        "0.7.3" in told and "that it was V1 is not checked" in told
        for told in done.json["warnings"]
    )


def test_an_engine_that_is_asked_for_is_checked(over: Over) -> None:
    """A release without it, one that refuses it and one that runs another are no evidence."""
    vbisect = over(
        {
            **every("0.7.3 0.11.0"),
            "0.8.0": named("0.8.0", not_in_v1=FLOAT32),
            "0.8.1": named("0.8.1", not_in_v1=FLOAT32, falls_back_though_asked=True),
            "0.8.2": named("0.8.2"),
        }
    )
    done = vbisect.run("--from", "0.7.3", "--to", "0.11.0", "--engine", "v1", "--sweep", *QUICK)
    reasons = {version: trial["reason"] for version, trial in done.trials.items()}
    assert reasons == {
        "0.7.3": None,
        "0.8.0": "engine not used",
        "0.8.1": "engine not used",
        "0.8.2": None,
        "0.11.0": None,
    }
    assert "--dtype float32 is not supported by the V1 Engine" in done.trials["0.8.1"]["detail"]
    assert done.json["message"].startswith("fixed in one of 0.8.0, 0.8.1, 0.8.2 for V1")
    assert shlex.split(done.json["replay"]).count("--engine") == 1
    for version in ("0.7.3", "0.8.2", "0.11.0"):
        facts = json.loads((done.run_dir / "trials" / version / "environment.json").read_text())
        assert ("VLLM_USE_V1" in facts["variables"]) == (version != "0.11.0")
    done = vbisect.run("--from", "0.8.1", "--to", "0.11.0", "--env", "VLLM_USE_V1=0", *QUICK)
    assert done.trials["0.11.0"]["reason"] == "engine not in this release"
    assert done.trials["0.11.0"]["build"] is None, "nothing is fetched for it"
    done = vbisect.run("--from", "0.8.0", "--to", "0.8.2", *QUICK, "--sweep")
    assert any("0.8.0, 0.8.1 ran V0, though V1" in told for told in done.json["warnings"])


def test_both_engines_are_tried_where_that_is_asked(over: Over) -> None:
    """Though the ends ran the same, and one of them failed already."""
    vbisect = over(every("0.9.0 0.9.1", ignores_n=("V1",)) | every("0.10.0"))
    done = vbisect.run("--from", "0.9.0", "--to", "0.10.0", "--engine", "both", *QUICK)
    assert done.json["message"] == (
        "fixed in 0.10.0 for V1; 0.9.1 is the last failing release; V0 passes in 0.9.0"
    )
    assert chosen(done.run_dir) == [("V0", False), ("V1", True)]


@pytest.mark.parametrize(
    ("option", "env", "found", "left"),
    [
        ("auto", [], "auto", 0),
        ("auto", ["VLLM_USE_V1=1"], "v1", 0),
        ("auto", ["VLLM_USE_V1=0", "A=1"], "v0", 1),
        ("v1", ["VLLM_USE_V1=1"], "v1", 0),
        ("v1", ["VLLM_USE_V1=1; <0.9"], "v1", 0),
        ("auto", ["VLLM_USE_V1=0; <0.11"], "auto", 1),
        ("auto", ["VLLM_USE_V1"], "auto", 1),
        ("v0", ["VLLM_USE_V1=1"], None, 0),
        ("both", ["VLLM_USE_V1=1"], None, 0),
        ("v1", ["VLLM_USE_V1=0; <0.9"], None, 0),
        ("v1", ["VLLM_USE_V1=yes"], None, 0),
        ("v2", [], None, 0),
    ],
)
def test_the_variable_is_the_option(
    option: str, env: list[str], found: str | None, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both given and not the same is the user's error."""
    monkeypatch.delenv("VLLM_USE_V1", raising=False)
    given = [parse_variable(value) for value in env]
    if found is None:
        with pytest.raises(UsageError, match="--engine"):
            engine_asked(option, given)
        return
    asked, others = engine_asked(option, given)
    assert (asked, len(others)) == (found, left)


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ("0.7.2", ("V0",)),
        ("0.7.3", ("V0", "V1")),
        ("0.10.2", ("V0", "V1")),
        ("0.10.3.dev1+g1", ("V0", "V1")),
        ("0.11.0rc1", ("V1",)),
        ("0.27.1rc1.dev949", ("V1",)),
    ],
)
def test_which_engines_a_release_has(version: str, has: tuple[str, ...]) -> None:
    """And what it has to be told to run one of them."""
    assert engines_of(version) == has
    for engine, value in (("V0", "0"), ("V1", "1")):
        told = variables_for(engine, version) if engine in has else {}
        assert told == ({"VLLM_USE_V1": value} if len(has) == 2 else {})
    assert variables_for(None, version) == {}


def test_an_engine_that_releases_lack_is_told_before_they_are_tried() -> None:
    """And where too few have it, nothing begins."""
    assert engine_notes(EngineAsked.AUTO, ("0.10.2", "0.11.0")) == ()
    assert engine_notes(EngineAsked.V0, ("0.10.0", "0.10.2", "0.11.0")) == (
        "0.11.0 has no V0, which --engine v0 asks for: skipped without a boot.",
    )
    with pytest.raises(UsageError, match=r"^--engine v0: 0.11.0 to 0.12.0 \(4 releases\) have no"):
        engine_notes(EngineAsked.V0, ("0.10.2", "0.11.0", "0.11.1", "0.11.2", "0.12.0"))


def test_each_engine_is_another_question() -> None:
    """It has a comment of its own."""
    asked = [marker(settings(engine=engine)) for engine in EngineAsked]
    assert len(set(asked)) == len(asked)
    assert marker(settings(candidates=releases())) == asked[0]


def test_a_plan_reckons_with_the_other_engine(over: Over) -> None:
    """The boots that may be needed to find out which engine the question is about."""
    vbisect = over(every("0.7.3 0.8.0 0.11.0 0.12.0"))
    cpu = ("--device", "cpu", "--json", "--results", str(vbisect.results))
    most = {}
    for engine in ("auto", "v1"):
        done = vbisect("plan", "--from", "0.7.3", "--to", "0.12.0", "--engine", engine, *cpu)
        plan = json.loads(done.stdout)
        most[engine] = plan["boots_worst"]
        assert any("0.7.3 has two engines" in n for n in plan["notes"]) == (engine == "auto")
    assert most["auto"] > most["v1"]
    done = vbisect.run("--from", "0.7.3", "--to", "0.12.0")
    assert done.returncode == 0
    assert counts(done.run_dir, "trial_started").total() <= most["auto"]


def test_several_at_once_go_on_with_one_engine(over: Over) -> None:
    """What still runs when the ends are known is waited for; nothing of another engine counts."""
    vbisect = over(every("0.7.3 0.8.0 0.8.5 0.9.0 0.11.0"))
    done = vbisect.run("--from", "0.7.3", "--to", "0.11.0", "--jobs", "3", "--n", "2")
    assert done.returncode == 0, done.stderr
    assert done.json["message"].startswith("fixed in 0.8.0 for V1; 0.7.3 is the last failing")
    assert set(engines(done).values()) == {"V1"}
    begun, told = set(), events(done.run_dir)
    for event in told:
        if event["event"] == "trial_started":
            begun.add(event["version"])
        elif event["event"] in ("trial_finished", "trial_given_up"):
            begun.discard(event.get("version") or event["record"]["version"])
        assert event["event"] != "engine_chosen" or not begun
    assert chosen(done.run_dir) == [("V1", False), ("V1", True)]


def test_a_fault_of_one_engine_is_none_of_the_run() -> None:
    """Servers of the other one were ready: what both ends lack now, this engine takes more of."""
    versions = ("0.8.0", "0.8.5", "0.9.0")
    state = RunState(settings(candidates=releases(versions)))
    number = 0

    def take(kind: EventKind, **fields: Any) -> None:
        nonlocal number
        number += 1
        at = f"2026-01-01T00:00:{number:02}+00:00"
        state.apply({"event": kind, "at": at, "elapsed": float(number), **fields})

    def finished(record: TrialRecord) -> None:
        take(EventKind.TRIAL_FINISHED, record=record.model_dump(mode="json", by_alias=True))

    take(EventKind.RUN_STARTED)
    for version in ("0.8.0", "0.9.0"):
        finished(passed(version).model_copy(update={"engine": "V0"}))
    choice = next_choice(state, over=True)
    assert choice is not None
    take(EventKind.ENGINE_CHOSEN, choice=choice.model_dump(mode="json"))
    for version in ("0.8.0", "0.9.0"):
        assert end_to_compare(state, state.seen()) is None
        skip = TrialRecord(
            version=version,
            outcome=Outcome.SKIP,
            reason=SkipReason.OUT_OF_MEMORY,
            detail="CUDA out of memory",
            engine_asked="V1",
        )
        finished(skip)
    assert common_fault(state) is None
    settled = next_choice(state, over=True)
    assert settled is not None
    assert (settled.engine, settled.settled) == (None, True)
