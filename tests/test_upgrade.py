"""The advice of a run: never more than its table shows, and no less where it is sure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from made import failed, passed, releases, settings, skipped
from vbisect.errors import UsageError
from vbisect.launch import Limited
from vbisect.probes import NChoicesSettings
from vbisect.reasons import SkipReason
from vbisect.releases import Device
from vbisect.report.upgrade import Certainty, Side, advise, upgrade_of
from vbisect.report.upgrade.known import Evidence
from vbisect.report.upgrade.speeds import speeds
from vbisect.run.answer import finding_of
from vbisect.run.docker_settings import DockerSettings
from vbisect.run.records import Finding, Seconds, Status, Tally, TrialRecord
from vbisect.run.state import RunState
from vbisect.search import Outcome

LETTERS = {"f": failed, "p": passed, "s": skipped}


def ran(told: str, **changed: object) -> RunState:
    """A finished run over 1.0, 1.1, …: ``f`` fails, ``p`` passes, ``s`` is a skip, ``.`` untested.

    Capitals were booted twice, as the releases are that an answer rests on. ``o`` is a skip that
    failed otherwise.

    ``a`` passes and ``b`` fails now and then.
    """
    versions = [f"1.{number}" for number in range(len(told))]
    made = RunState(settings(candidates=releases(versions), **changed))
    for version, letter in zip(versions, told, strict=True):
        if letter != ".":
            record = _record(version, letter.lower())
            once = record.after(None)
            made.records[version] = record.after(once) if letter.isupper() else once
    made.finding = finding_of(made)
    return made


def _record(version: str, letter: str) -> TrialRecord:
    if letter == "s":
        seconds = {"seconds": Seconds(boot=9.0)}
        return skipped(version, "exit status 1").model_copy(update=seconds)
    if letter == "o":
        odd = {"reason": SkipReason.DIFFERENT_FAILURE, "signature": "it died"}
        return skipped(version, "it died").model_copy(update=odd)
    return passed(version) if letter == "p" else failed(version, "returned 1 of 8 choices")


def test_a_sure_fix_is_said_without_a_hedge() -> None:
    advice = advise(ran("ff.FP.p"))
    assert (advice.on, advice.side, advice.recommended) == ("1.0", Side.BAD, "1.4")
    assert (advice.earliest, advice.newest, advice.stay_on) == ("1.4", "1.6", None)
    assert advice.recommendation == (
        "Upgrade to 1.4: it was fixed in 1.4; 1.3 is the last failing release. "
        "1.6, the newest that was tested, still passes."
    )
    assert advice.broken == "1.0 failed 5 of 5 observations in 1 boot: returned 1 of 8 choices."
    [change] = advice.changes
    assert change.certainty is Certainty.SURE
    assert change.why == (
        "1.3 failed 10 of 10 observations in 2 boots.",
        "1.4 passed 36 of 36 observations in 2 boots.",
        "Confidence 0.991.",
    )
    assert "1.5 was not tested" in " ".join(advice.caveats)


def test_what_was_tried_in_vain_is_not_said_to_be_untested() -> None:
    """It may even have failed, in another way."""
    advice = advise(ran("fs.fpp.p"))
    assert advice.caveats == (
        "1.2 was not tested: between releases that fail, taken to fail too.",
        "1.1 could not be judged: between releases that fail, taken to fail too.",
        "1.6 was not tested: between releases that pass, taken to pass too.",
    )


def test_suspects_are_no_fix() -> None:
    """What could not be tested is never said to be fixed."""
    advice = advise(ran("ffsspp"))
    assert advice.recommended == advice.earliest == "1.4"
    assert "fixed in one of 1.2, 1.3, 1.4; 1.4 is the earliest that is known" in (
        advice.recommendation
    )
    broken = advise(ran("ppssff"), on="1.2")
    assert broken.recommended is None
    assert broken.recommendation == (
        "It was broken in one of 1.2, 1.3, 1.4; 1.1 is the last that passes."
    )
    assert advice.changes[0].certainty is Certainty.ONE_OF_SEVERAL
    assert "Nothing is known of 1.2, 1.3 (not testable: exited before ready)." in (
        advice.changes[0].why
    )


@pytest.mark.parametrize(
    ("told", "excluded", "why"),
    [
        ("fFssPp", (), "could not be"),
        ("fF..Pp", ("1.2", "1.3"), "were left out with --skip"),
        ("fFs.Pp", ("1.3",), "could not be, or were left out with --skip"),
        ("fFs.Pp", (), "could not be, or were not tried after so many skips (1.3)"),
    ],
)
def test_the_verdict_says_why_suspects_are_left(
    told: str, excluded: tuple[str, ...], why: str
) -> None:
    """What a user left out is not said to be untestable."""
    finding = ran(told, excluded=excluded, max_skips=1).finding
    assert finding is not None
    assert finding.message.endswith(f"release tested, and the ones between {why}")


def test_before_a_break_one_stays() -> None:
    advice = advise(ran("p.pff"))
    assert (advice.on, advice.stay_on, advice.recommended) == ("1.0", "1.2", "1.2")
    assert advice.recommendation == (
        "Go no further than 1.2: broken in 1.3; 1.2 is the last passing release."
    )
    later = advise(ran("p.pff"), on="1.4")
    assert later.recommendation == (
        "No newer release was tested: whether one fixes it is not known. "
        "Of the older ones, 1.2 is the newest known to pass."
    )
    assert later.recommended is None


def test_failures_of_another_kind_are_not_counted_as_the_bug() -> None:
    """The table does not count them either."""
    seen = Tally(passes=1, fails=3, other=2)
    assert str(Evidence("1.0", Outcome.FAIL, seen, 1)) == (
        "1.0 failed 3 of 6 observations in 1 boot (2 more in another way)"
    )


def test_each_change_has_its_own_sureness() -> None:
    """An unsure break takes nothing from a sure fix."""
    advice = advise(ran("ffppsfff", sweep=True))
    fix, broken = advice.changes
    assert (fix.certainty, broken.certainty) == (Certainty.SURE, Certainty.ONE_OF_SEVERAL)
    assert "it was fixed in 1.2; 1.1 is" in advice.recommendation
    assert "Later broken in one of 1.4, 1.5; 1.3 is the last that passes." in advice.recommendation
    assert (advice.earliest, advice.newest) == ("1.2", "1.3")


def test_nothing_newer_than_what_was_tested_is_recommended() -> None:
    """The newest tested release is the end of what is known."""
    advice = advise(ran("ffpps"))
    assert advice.newest == "1.3"
    assert "Nothing is known of 1.4: newer than all that were tested." in advice.caveats
    unknown = advise(ran("ffpps"), on="1.4")
    assert unknown.side is Side.UNKNOWN
    assert unknown.broken.endswith("whether it is affected is not known.")


def test_no_change_and_no_end_say_only_what_is_known() -> None:
    broken = advise(ran("f...f"))
    assert broken.recommendation == (
        "No tested release fixes it; 1.4, the newest that was tested, fails too."
    )
    clean = advise(ran("p...p"))
    assert clean.recommendation == (
        "Nothing known is broken from 1.0 to 1.4, the newest known to pass."
    )
    killed = ran("f...p")
    killed.finding = Finding(status=Status.INTERRUPTED, message="interrupted")
    advice = advise(killed)
    assert advice.recommended is None
    assert "which release fixes it, if any, is not known" in advice.recommendation
    assert "The run was not finished" in advice.caveats[0]
    assert advise(RunState(settings())).recommended is None


def test_a_release_that_was_not_asked_about_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--on 9\.9"):
        upgrade_of(ran("fp"), on="9.9")


def test_a_failure_of_another_kind_is_no_missing_test() -> None:
    """Whoever upgrades wants to know of it, though it says nothing of this bug."""
    between = ran("fFoP")
    assert between.finding is not None
    assert between.finding.message.endswith(
        "and the ones between failed in another way, which tells nothing of this one"
    )
    advice = advise(between)
    assert "Nothing is known of 1.2 (failed in another way)." in advice.changes[0].why
    assert advice.caveats == (
        "1.2 failed in another way, which tells nothing of this one: it died.",
    )
    beyond = ran("ffppo")
    advice = advise(beyond)
    assert "1.3, the newest that could be judged, still passes." in advice.recommendation
    assert advice.caveats == (
        "1.4 failed in another way, which tells nothing of this one: it died.",
    )
    assert beyond.finding is not None
    assert (
        "1 candidate beyond it was not judged (1 different failure)."
        in (beyond.finding.warnings[0])
    )


def test_a_release_that_could_not_be_tested_fails_like_no_other() -> None:
    advice = advise(ran("sfss"), "1.0")
    assert "1.1, the newest that was tested, fails." in advice.recommendation


@pytest.mark.parametrize(
    ("docker", "told"),
    [
        ({}, True),
        ({"image_variant": "cu129"}, False),
        ({"images": {"0.20.0": "mine:1"}}, False),
        ({"images": {"0.25.0": "mine:1"}}, True),
    ],
)
def test_the_cuda_of_a_variant_does_not_change(docker: dict[str, Any], told: bool) -> None:
    """Who takes one stays on a driver that way; what is in one's own image is not known."""
    chosen = DockerSettings(image_repo="vllm/vllm-openai", gpus="all", **docker)
    steps = told_of(known("0.19.1", "0.20.0", device=Device.CUDA, docker=chosen))
    assert ("CUDA" in steps, "GPU driver, as CUDA's" in steps) == (told, told)
    assert "torch" in steps


def test_the_boot_that_is_told_is_one_that_was_measured() -> None:
    """Not the time until a server was given up, nor a share of it for boots of another day."""
    never = skipped("1.0", "never ready").model_copy(update={"seconds": Seconds(boot=600)})
    again = passed("1.1").model_copy(
        update={
            "seconds": Seconds(boot=90),
            "boots": (Tally(passes=18), Tally(passes=18)),
            "measured": {"boot_seconds": 90.0},
        }
    )
    older = passed("1.2").model_copy(
        update={
            "seconds": Seconds(boot=80),
            "reported_version": "1.2",
            "boots": (Tally(passes=18),),
        }
    )
    made = RunState(settings(candidates=releases(("1.0", "1.1", "1.2"))))
    made.records = {record.version: record for record in (never, again, older)}
    assert [(speed.version, speed.boot_seconds) for speed in speeds(made)] == [
        ("1.1", 90.0),
        ("1.2", 80.0),
    ]


def known(*versions: str, arguments: tuple[Limited, ...] = (), **changed: object) -> RunState:
    """A run in which the oldest of real releases fails, and all others pass."""
    made = RunState(
        settings(candidates=releases(versions), serve_args=arguments, model_args=(), **changed)
    )
    for version in versions:
        record = failed(version, "x") if version == versions[0] else passed(version)
        made.records[version] = record.after(None)
    made.finding = finding_of(made)
    return made


def told_of(state: RunState) -> dict[str, tuple[str, str]]:
    """Name to release and text of every step to the recommended release."""
    return {s.name: (s.since, s.text) for s in upgrade_of(state).steps if not s.beyond}


def test_only_what_the_run_used_is_told() -> None:
    """Arguments that go on the way, by whatever spelling; of the hundreds of others, nothing."""
    arguments = (
        Limited(text="--swap_space=4 --device cpu --no-enable-prefix-caching"),
        Limited(text="--num-scheduler-steps 8", specifier="<0.10"),
    )
    told = told_of(known("0.9.2", "0.18.0", arguments=arguments, device=Device.CUDA))
    assert set(told) == {
        *("--swap-space", "--device", "--num-scheduler-steps"),
        *("engine", "CUDA", "GPU driver, as CUDA's", "torch", "Python"),
    }
    assert told["--device"] == (
        "0.10.0",
        "Gone: no longer known. The device is found without it.",
    )
    assert told["--swap-space"][0] == "0.18.0"
    assert "The run limited it" in told["--num-scheduler-steps"][1]
    assert told["engine"] == ("0.11.0", "V1, V0 for some flags and hardware → V1")
    assert told["CUDA"] == ("0.11.1", "12.8 → 12.9 (0.11.1)")
    assert told["Python"][1].startswith(
        "<3.13,>=3.9 → <3.14,>=3.9 (0.10.2) → <3.14,>=3.10 (0.11.1)"
    )


def test_what_comes_and_what_changes_its_default_is_told() -> None:
    arguments = (Limited(text="--gpu-memory-utilization 0.5 --enable-log-requests"),)
    variables = (Limited(text="VLLM_USE_V1=0"), Limited(text="NOT_OF_VLLM=1"))
    state = known("0.10.0", "0.20.0", arguments=arguments, env=variables)
    told = told_of(state)
    assert "CUDA" not in told  # a run on CPUs has none
    assert told["--gpu-memory-utilization"] == (
        "0.20.0",
        "Its default changed from 0.9 to 0.92; the run sets it.",
    )
    assert told["--enable-log-requests"][0] == "0.10.1"
    assert told["VLLM_USE_V1"] == ("0.11.1", "Gone: no longer known.")
    assert "NOT_OF_VLLM" not in told
    many = known("0.18.0", "0.19.0", n_choices=NChoicesSettings(n=(20000,)))
    assert told_of(many)["n"][0] == "0.19.0"


def test_the_form_of_an_argument_is_told_where_it_changes() -> None:
    """Both forms between: whoever upgrades can change it on the way."""
    arguments = (Limited(text="--limit-mm-per-prompt image=2"),)
    steps = upgrade_of(known("0.8.4", "0.10.0", arguments=arguments)).steps
    told = {s.since: s.text for s in steps if s.name == "--limit-mm-per-prompt"}
    assert list(told) == ["0.8.5", "0.10.0"]
    assert ("JSON too" in told["0.8.5"], "JSON only" in told["0.10.0"]) == (True, True)


def test_the_engine_that_ran_is_told_before_the_default() -> None:
    """0.8.5 can fall back to V0; what its log says counts."""
    state = known("0.8.5", "0.12.0")
    assert told_of(state)["engine"][1] == "V1, V0 for some flags and hardware → V1"
    for ran, told in (("V0", "V0 ran in 0.8.5, V1 in 0.12.0"), ("V1", None)):
        for version, engine in (("0.8.5", ran), ("0.12.0", "V1")):
            record = state.records[version].model_copy(update={"engine": engine})
            state.records[version] = record
        assert told_of(state).get("engine", ("", None))[1] == told


def test_releases_that_were_not_read_are_said() -> None:
    assert upgrade_of(known("0.9.0", "0.9.1")).steps_limits is None
    newer = upgrade_of(known("0.33.0", "0.33.1"))
    assert "0.7.3 to 0.33.0" in (newer.steps_limits or "")
    assert set(upgrade_of(known("0.9.0", "0.9.1")).notes) == {"0.9.1"}


def flaky(version: str, passes: int, fails: int) -> TrialRecord:
    """A release that was booted twice, and failed now and then."""
    record = failed(version, "returned 1 of 8 choices", fails=fails, passes=passes)
    boot = Tally(passes=passes // 2, fails=fails // 2)
    rest = Tally(passes=passes - passes // 2, fails=fails - fails // 2)
    outcome = Outcome.FAIL if fails else Outcome.PASS
    return record.model_copy(update={"boots": (boot, rest), "outcome": outcome})


Seen = st.one_of(
    st.sampled_from(["f", "p", "p", "f", "s", "."]),
    st.tuples(st.integers(0, 40), st.integers(0, 6)).filter(any),
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(Seen, min_size=2, max_size=9), st.booleans(), st.integers(0, 8), st.booleans())
def test_the_advice_never_contradicts_the_table(
    world: list[str | tuple[int, int]], sweep: bool, on: int, over: bool
) -> None:
    """Whatever was seen, in any run: only what passed is recommended, and nothing unseen."""
    versions = [f"1.{number}" for number in range(len(world))]
    made = RunState(settings(candidates=releases(versions), sweep=sweep))
    for version, seen in zip(versions, world, strict=True):
        if isinstance(seen, tuple):
            made.records[version] = flaky(version, *seen)
        elif seen != ".":
            made.records[version] = _record(version, seen).after(None)
    made.finding = finding_of(made) if over else None
    tested = [i for i, o in made.outcomes.items() if o is not Outcome.SKIP]
    advice = advise(made, versions[on % len(versions)])
    for named in (advice.earliest, advice.newest, advice.stay_on, advice.recommended):
        if named is not None:
            assert made.records[named].outcome is Outcome.PASS
            assert named in advice.recommendation
            assert versions.index(named) >= versions.index(advice.on)
    if advice.earliest is not None and advice.newest is not None:
        low, high = versions.index(advice.earliest), versions.index(advice.newest)
        assert low <= high <= max(tested)
    for change in advice.changes:
        hedged = "probably" in change.sentence
        assert hedged == (change.certainty is Certainty.PROBABLE)
        assert hedged or change.confidence >= made.settings.confidence
        if len(change.suspects) > 1:
            assert "in one of" in change.sentence
    if not over:
        assert advice.changes == ()
        assert advice.earliest is None
    for step in (advice.broken, advice.recommendation, *advice.caveats):
        assert "None" not in step
        assert step.endswith(".")
