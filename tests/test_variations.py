"""What the variations of a suite say of a release, whatever the servers answered."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made import VERSIONS, settings
from standin.scripted import Asked, Reply, ScriptedServer
from vbisect.probes import (
    Endpoint,
    FailureKind,
    NChoicesSettings,
    Observation,
    ProbeTarget,
    SentRequest,
    SuiteSettings,
)
from vbisect.probes.suite import probe_of, variations
from vbisect.reasons import SkipReason, Untestable
from vbisect.report.csv import to_csv
from vbisect.report.markdown import to_markdown
from vbisect.report.terminal import answer_lines
from vbisect.report.variations import cell, variation_rows
from vbisect.run.answer import finding_of
from vbisect.run.records import ControlRecord, Finding, Status, Tally, TrialRecord, VariationRecord
from vbisect.run.rounds import ALONG, Rounds
from vbisect.run.scope import Scope, scope_of
from vbisect.run.state import RunState
from vbisect.run.variations import against, bug_of, nothing_to_ask
from vbisect.search import Outcome

KINDS = (FailureKind.CHOICES_MISSING, FailureKind.BROKEN_STREAM, FailureKind.NOT_REFUSED)
NAMES = ("n=1", "stream", "n=0")
CHAT = variations(Endpoint.CHAT)


def suite(names: Sequence[str] = NAMES, bisect_on: str | None = None) -> SuiteSettings:
    """A suite of these variations, without the versions they are limited to."""
    found = tuple(v.model_copy(update={"specifier": ""}) for v in CHAT if v.name in names)
    return SuiteSettings(request=NChoicesSettings(), variations=found, bisect_on=bisect_on)


Variations = st.builds(
    lambda name, outcome, kind, reason: VariationRecord(
        name=name,
        outcome=outcome,
        failure_kind=kind if outcome is Outcome.FAIL else None,
        signature=f"{kind}" if outcome is Outcome.FAIL else None,
        reason=reason if outcome is Outcome.SKIP else None,
        observations=Tally(passes=outcome is Outcome.PASS, fails=outcome is Outcome.FAIL),
    ),
    st.just(""),
    st.sampled_from(Outcome),
    st.sampled_from(KINDS),
    st.sampled_from([SkipReason.VARIATION_NOT_ASKED, SkipReason.SERVER_ERROR]),
)


def record(version: str, cells: Sequence[VariationRecord], on: str | None) -> TrialRecord:
    """What a trial of these variations comes to."""
    named = tuple(c.model_copy(update={"name": n}) for n, c in zip(NAMES, cells, strict=True))
    deciding = [v for v in named if on in (None, v.name)]
    failing = [v for v in deciding if v.outcome is Outcome.FAIL]
    unjudged = [
        v
        for v in deciding
        if v.outcome is Outcome.SKIP and v.reason is not SkipReason.VARIATION_NOT_ASKED
    ]
    asked = [v for v in deciding if v.outcome is not Outcome.SKIP]
    outcome = Outcome.FAIL if failing else Outcome.SKIP if unjudged or not asked else Outcome.PASS
    return TrialRecord(
        version=version,
        outcome=outcome,
        variations=named,
        reason=SkipReason.SERVER_ERROR if outcome is Outcome.SKIP else None,
        signature=failing[0].signature if failing else None,
        failure_kind=failing[0].failure_kind if failing else None,
        observations=Tally(passes=0 if failing else 18, fails=5 if failing else 0),
    )


def finished(made: TrialRecord) -> dict[str, Any]:
    """The event that a trial has ended."""
    return {
        "event": "trial_finished",
        "at": "2026-11-26T20:00:00+00:00",
        "record": made.model_dump(mode="json", by_alias=True),
    }


@given(
    st.lists(
        st.tuples(st.sampled_from(VERSIONS), st.tuples(Variations, Variations, Variations)),
        unique_by=lambda pair: pair[0],
        min_size=1,
    ),
    st.none() | st.sampled_from(NAMES),
)
def test_a_run_is_about_one_bug(
    tested: list[tuple[str, tuple[VariationRecord, ...]]], on: str | None
) -> None:
    """Releases on both sides of any answer were asked what fails, whatever order they came in."""
    state = RunState(settings(suite=suite(bisect_on=on), n_choices=None))
    for version, cells in tested:
        state.apply(finished(record(version, cells, on)))
    bug = state.bug
    assert all(on in (None, name) for name, _ in bug)
    for told in state.records.values():
        by_name = {v.name: v for v in told.variations}
        if told.outcome is Outcome.FAIL:
            assert bug & bug_of(told, suite(bisect_on=on))
        if told.outcome is Outcome.PASS:
            assert all(by_name[name].outcome is Outcome.PASS for name, _ in bug)
            assert not any(
                v.outcome is Outcome.FAIL for v in told.variations if on in (None, v.name)
            )
        if told.outcome is Outcome.SKIP:
            assert told.reason is not None
    if bug:
        first = next(r for v, _ in tested if (r := state.records[v]).outcome is Outcome.FAIL)
        assert bug_of(first, suite(bisect_on=on)) == bug
    finding_of(state)


@dataclass
class Server:
    """Answers as a script says, and tells whether it is asked once it is dead."""

    script: list[Outcome | FailureKind | SkipReason]
    dead: bool = False
    asked: int = 0
    seen: list[object] = field(default_factory=list)

    def ask(self, probe: object) -> Observation:
        """The next answer of the script, passes once it has ended."""
        assert not self.dead, "asked after its death"
        self.asked += 1
        step = self.script.pop(0) if self.script else Outcome.PASS
        self.seen.append(step)
        if isinstance(step, SkipReason):
            raise Untestable(step, "scripted")
        if isinstance(step, FailureKind):
            self.dead = step is FailureKind.CRASHED
            return Observation(passed=False, kind=step, signature=str(step), seconds=1.0)
        return Observation(passed=True, seconds=1.0)

    def rounds(self, asked: SuiteSettings, **changed: Any) -> Rounds:
        """The rounds in which it is asked."""
        given = {"bug": frozenset(), "ask": self.ask, "alive": lambda: not self.dead}
        return Rounds(asked, "0.30.0", **(given | changed))


Steps = st.lists(
    st.just(Outcome.PASS)
    | st.sampled_from([*KINDS, FailureKind.CRASHED])
    | st.sampled_from([SkipReason.SERVER_ERROR, SkipReason.REQUEST_REJECTED]),
    max_size=12,
)


@given(Steps, st.integers(1, 6), st.none() | st.sampled_from(NAMES))
def test_every_answer_is_counted_once(script: list[Any], times: int, on: str | None) -> None:
    """Nothing is asked of a dead server, nor again what could not be judged; all else counts."""
    server = Server(list(script))
    rounds = server.rounds(suite(bisect_on=on))
    done = 0
    with suppress(Untestable):  # once nothing that decides can be asked any more
        while done < times and not rounds.crashed:
            told = rounds.deciding()
            assert told.shows_bug is not told.observation.passed
            done += 1
        while rounds.along(done) is not None:
            pass
    counted = sum(r.observations.total for r in rounds.records.values())
    skipped = [r for r in rounds.records.values() if r.reason is not None]
    assert counted + len(skipped) == server.asked
    for told_of in rounds.records.values():
        total = told_of.observations.total
        assert total <= (done + 1 if rounds.suite.decides(told_of.name) else ALONG)
        if told_of.outcome is Outcome.PASS:
            assert told_of.observations == Tally(passes=total)
        if told_of.outcome is Outcome.FAIL:
            assert told_of.failure_kind is not None
    crashes = [r for r in rounds.records.values() if r.failure_kind is FailureKind.CRASHED]
    assert len(crashes) <= 1
    unjudged = rounds.without_verdict()
    deciding = [r for r in skipped if rounds.suite.decides(r.name)]
    assert (unjudged is not None) is bool(deciding)


@given(Steps, st.integers(0, 3))
def test_an_interruption_loses_nothing(script: list[Any], before: int) -> None:
    """Asked in two sittings, the variations come to what they come to in one."""
    script = [step for step in script if step is not FailureKind.CRASHED]

    def sit(rounds: Rounds, times: int) -> None:
        for _ in range(times):
            try:
                rounds.deciding()
            except Untestable:
                return

    one = Server(list(script))
    whole = one.rounds(suite())
    sit(whole, 4)
    two = Server(list(script))
    first = two.rounds(suite())
    sit(first, before)
    second = two.rounds(suite(), earlier=tuple(first.records.values()))
    sit(second, 4 - before)
    assert second.records == whole.records


def test_an_error_in_place_of_a_refusal_is_a_failure() -> None:
    """Of a living server; a request that has to be answered is another matter."""
    server = Server([Outcome.PASS, SkipReason.SERVER_ERROR, SkipReason.SERVER_ERROR])
    rounds = server.rounds(suite())
    rounds.deciding()
    assert rounds.records["stream"].reason is SkipReason.SERVER_ERROR
    assert rounds.records["n=0"].failure_kind is FailureKind.SERVER_ERROR
    assert rounds.records["n=0"].signature == "scripted, instead of a refusal"


@pytest.mark.parametrize(("status", "accepted"), [(400, [1]), (200, [0])])
def test_what_a_server_refused_is_not_looked_for_in_its_log(
    tmp_path: Path, status: int, accepted: list[int]
) -> None:
    """All that was accepted is, of this variation and of those before it."""

    def answer(asked: Asked) -> Reply:
        wrong = json.loads(asked.body)["n"] == 0
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": "x"}}
        return Reply(status if wrong else 200, {"choices": [] if wrong else [choice]})

    [refused] = suite(("n=0",)).variations
    before = SentRequest(id="before", parameters={"n": 8})
    with ScriptedServer() as server:
        server.on(Endpoint.CHAT.path, answer)
        target = ProbeTarget(server.url, "m", "0.30.0", tmp_path, tmp_path, sent=[before])
        seen = probe_of(refused, NChoicesSettings()).observe(target)
    assert seen.passed is (status == 400)
    assert target.sent[0] == before
    assert [request.parameters["n"] for request in target.sent[1:]] == accepted


def test_an_endpoint_that_is_not_there_ends_the_trial() -> None:
    """One answer is enough, and no variation is to blame."""
    server = Server([SkipReason.ENDPOINT_NOT_SERVED])
    with pytest.raises(Untestable) as skip:
        server.rounds(suite()).deciding()
    assert skip.value.reason is SkipReason.ENDPOINT_NOT_SERVED
    assert server.asked == 1


@pytest.mark.parametrize(
    ("endpoint", "version", "missing"),
    [
        (Endpoint.CHAT, "0.7.3", {"n=16385"}),
        (Endpoint.CHAT, "0.19.0", set()),
        (Endpoint.COMPLETIONS, "0.19.0rc1", {"n=16385"}),
        (Endpoint.CHAT, "0.34.0.dev3+gabcdef0", set()),
        (Endpoint.GENERATE, "0.27.1", {"n=0", "greedy", "n=16385"}),
        (Endpoint.GENERATE, "0.28.0", set()),
        (Endpoint.CHAT, "", {"n=16385"}),
    ],
)
def test_who_is_asked_what(endpoint: Endpoint, version: str, missing: set[str]) -> None:
    """Only what is known to be refused in a version has to be refused there."""
    made = variations(endpoint)
    assert {v.name for v in made if not v.applies_to(version)} == missing
    one = SuiteSettings(request=NChoicesSettings(), variations=made, bisect_on="n=16385")
    assert (nothing_to_ask(one, version) is not None) is ("n=16385" in missing)


def test_a_variation_differs_in_what_it_says_alone() -> None:
    """Everything else is as the run asks."""
    request = NChoicesSettings(endpoint=Endpoint.GENERATE, temperature=0.9, max_tokens=7)
    bodies = {
        v.name: probe_of(v, request).request_body("m", v.n)  # type: ignore[attr-defined]
        for v in variations(Endpoint.GENERATE)
        if not v.refused
    }
    for name, body in bodies.items():
        asked = body["sampling_params"]
        assert (asked["temperature"], asked["max_tokens"]) == (0.9, 7)
        assert body.get("stream", False) is (name == "stream")
        assert ("seed" in asked, "logprobs" in asked) == (name == "seed", name == "logprobs")


def test_the_kind_is_the_bugs_as_soon_as_it_shows() -> None:
    """Failures in another way count as other ones, whichever came first."""
    bug = frozenset({("stream", FailureKind.BROKEN_STREAM)})
    script = [FailureKind.CHOICES_MISSING, FailureKind.BROKEN_STREAM, FailureKind.CHOICES_MISSING]
    rounds = Server(list(script)).rounds(suite(("stream",)), bug=bug)
    shown = [rounds.deciding().shows_bug for _ in script]
    assert shown == [False, True, False]
    told = rounds.records["stream"]
    assert told.failure_kind is FailureKind.BROKEN_STREAM
    assert told.observations == Tally(fails=1, other=2)


def test_a_control_that_fails_in_other_variations_has_another_bug() -> None:
    """The kind alone does not make two failures one."""
    failing = VariationRecord(
        name="stream",
        outcome=Outcome.FAIL,
        failure_kind=FailureKind.CHOICES_MISSING,
        observations=Tally(fails=5),
    )
    for name, scope in (("n=1", Scope.DIFFERENT), ("stream", Scope.UNKNOWN)):
        control = ControlRecord(
            model="control",
            outcome=Outcome.FAIL,
            signature=f"{name}: x",
            failure_kind=FailureKind.CHOICES_MISSING,
            observations=Tally(fails=5),
            variations=(failing.model_copy(update={"name": name}),),
        )
        made = TrialRecord(
            version="0.27.1",
            outcome=Outcome.FAIL,
            failure_kind=FailureKind.CHOICES_MISSING,
            observations=Tally(fails=5),
            variations=(failing,),
            control=control,
        )
        passes = made.model_copy(
            update={
                "version": "0.32.0",
                "outcome": Outcome.PASS,
                "failure_kind": None,
                "observations": Tally(passes=18),
                "variations": (failing.model_copy(update={"outcome": Outcome.PASS}),),
                "control": None,
            }
        )
        own = suite(("n=1", "stream"))
        chosen = settings(suite=own, n_choices=None, control_model="c", control_path="/c")
        state = RunState(chosen)
        for each in (made, passes):
            state.apply(finished(each))
        found = scope_of(state)
        assert found is not None
        assert found.scope is scope, found.message


def test_a_bug_that_was_not_asked_about_is_not_fixed() -> None:
    """Nor is a failure elsewhere taken for it."""
    asked = suite()
    bug = frozenset({("stream", FailureKind.BROKEN_STREAM)})
    good = VariationRecord(name="", outcome=Outcome.PASS, observations=Tally(passes=1))
    unknown = VariationRecord(
        name="", outcome=Outcome.SKIP, reason=SkipReason.VARIATION_NOT_ASKED, detail="x"
    )
    told = against(record("0.29.0", (good, unknown, good), None), bug, asked)
    assert (told.outcome, told.reason) == (Outcome.SKIP, SkipReason.VARIATION_NOT_ASKED)
    assert told.detail == "stream: fails at the failing end, and was not asked here"
    assert against(record("0.29.0", (good, good, unknown), None), bug, asked).outcome == "pass"


@given(st.text(max_size=40), st.text(max_size=40))
def test_reports_hold_up_against_what_servers_say(signature: str, detail: str) -> None:
    """One line for each thing told, and no more cells than columns."""
    hostile = ["=1+1 ", "| a | @everyone </details> `", "\x1b[31m\u202e", "\ud800"]
    cells = tuple(
        VariationRecord(
            name=name,
            outcome=outcome,
            signature=s + signature,
            detail=s + detail,
            reason=SkipReason.SERVER_ERROR if outcome is Outcome.SKIP else None,
            failure_kind=FailureKind.CHOICES_MISSING,
            observations=Tally(fails=1),
        )
        for name, outcome, s in zip(
            NAMES, (Outcome.FAIL, Outcome.SKIP, Outcome.PASS), hostile, strict=False
        )
    )
    made = TrialRecord(
        version="0.27.1",
        outcome=Outcome.FAIL,
        signature=signature,
        variations=cells,
        failure_kind=FailureKind.CHOICES_MISSING,
        observations=Tally(fails=5),
    )
    finding = Finding(status=Status.NONE, message="m")
    state = RunState(settings(suite=suite(), n_choices=None), {"0.27.1": made}, finding=finding)
    report = to_markdown(state)
    assert "\x1b" not in report
    assert "</details>" not in report
    assert "@everyone" not in report
    [row] = [line for line in report.splitlines() if line.startswith("| 0.27.1 | fail 0/1")]
    assert row == "| 0.27.1 | fail 0/1 | skip: server error | pass 0/1 |"
    lines = answer_lines(state, Path("/r"))
    told = [line for line in lines if "0.27.1" in line]
    assert not [c for line in told for c in line if c in "\x1b\u202e\ud800\n\r"]
    table = list(csv.DictReader(io.StringIO(to_csv(state))))
    assert table[0]["variation stream"] == "skip: server error"
    assert list(table[0])[-3:] == [f"variation {name}" for name in NAMES]


def test_cells_say_what_happened() -> None:
    """A pass, a failure, a skip with its reason, and what was not asked."""
    some = VariationRecord(name="x", outcome=Outcome.SKIP)
    assert cell(None) == cell(some) == ""
    not_asked = some.model_copy(update={"reason": SkipReason.VARIATION_NOT_ASKED})
    assert cell(not_asked) == "n/a"
    assert variation_rows(RunState(settings())) == []
