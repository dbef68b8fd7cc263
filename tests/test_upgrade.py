"""The advice of a run: never more than its table shows, and no less where it is sure."""

from __future__ import annotations

import pytest

from made import failed, passed, releases, settings, skipped
from vbisect.errors import UsageError
from vbisect.report.upgrade import Certainty, Side, advise, upgrade_of
from vbisect.run.answer import finding_of
from vbisect.run.records import Finding, Status, TrialRecord
from vbisect.run.state import RunState

LETTERS = {"f": failed, "p": passed, "s": skipped}


def ran(told: str, **changed: object) -> RunState:
    """A finished run over 1.0, 1.1, …: ``f`` fails, ``p`` passes, ``s`` is a skip, ``.`` untested.

    ``a`` passes and ``b`` fails now and then.
    """
    versions = [f"1.{number}" for number in range(len(told))]
    made = RunState(settings(candidates=releases(versions), **changed))
    for version, letter in zip(versions, told, strict=True):
        if letter != ".":
            record = _record(version, letter)
            made.records[version] = record.after(None)
    made.finding = finding_of(made)
    return made


def _record(version: str, letter: str) -> TrialRecord:
    if letter == "s":
        return skipped(version, "exit status 1")
    return passed(version) if letter == "p" else failed(version, "returned 1 of 8 choices")


def test_a_sure_fix_is_said_without_a_hedge() -> None:
    advice = advise(ran("ff.fp.p"))
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
        "1.3 failed 5 of 5 observations in 1 boot.",
        "1.4 passed 18 of 18 observations in 1 boot.",
        "Confidence 0.950.",
    )
    assert "1.5 was not tested" in " ".join(advice.caveats)


def test_suspects_are_no_fix() -> None:
    """What could not be tested is never said to be fixed."""
    advice = advise(ran("ffsspp"))
    assert advice.recommended == advice.earliest == "1.4"
    assert "fixed in one of 1.2, 1.3, 1.4; 1.4 is the earliest that is known" in (
        advice.recommendation
    )
    assert advice.changes[0].certainty is Certainty.ONE_OF_SEVERAL
    assert "Nothing is known of 1.2, 1.3 (not testable: exited before ready)." in (
        advice.changes[0].why
    )


def test_before_a_break_one_stays() -> None:
    advice = advise(ran("p.pff"))
    assert (advice.on, advice.stay_on, advice.recommended) == ("1.0", "1.2", "1.2")
    assert advice.recommendation == (
        "Go no further than 1.2: broken in 1.3; 1.2 is the last passing release."
    )
    later = advise(ran("p.pff"), on="1.4")
    assert later.recommendation.startswith("No newer release was tested")
    assert later.recommended is None


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
        "Nothing known is broken from 1.0 to 1.4, the newest that was tested."
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
