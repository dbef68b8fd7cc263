"""Read the answer of a run from its outcomes, and say it in one sentence."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from functools import reduce

from vbisect.launch.engine_version import has_fallen_back
from vbisect.reasons import CAN_PASS, SkipReason
from vbisect.run.engine_choice import engine_of, is_chosen
from vbisect.run.records import Answer, Finding, Status, TrialRecord
from vbisect.run.state import RunState
from vbisect.run.variations import bug_of
from vbisect.search import (
    Boundary,
    Change,
    Conclusion,
    Counts,
    Ends,
    Find,
    Outcome,
    Verdict,
    conclude_seen,
    other_ends_kind,
)

_TESTABLE = {SkipReason.EXCLUDED, SkipReason.DIFFERENT_FAILURE}
"""Reasons of a skip that do not say that a release cannot be tested."""


def finding_of(state: RunState) -> Finding:
    """What the finished search amounts to, with its confidence and how far the ends moved in."""
    settings = state.settings
    versions = settings.versions
    conclusion = conclude_seen(state.aim, state.seen())
    unsure = conclusion.verdict is Verdict.UNSURE
    changes = tuple(_answer(state, boundary) for boundary in conclusion.boundaries)
    if unsure:  # a boundary that is less likely than not is no change that was seen
        changes = tuple(change for change in changes if change.confidence >= 0.5)
    wanted = [change for change in changes if settings.find.wants(change.change)]
    answer = wanted[-1] if wanted else None
    if unsure and not state.aim.several:
        answer = _unsure(state, conclusion)
    status, message = _verdict(state, conclusion, answer)
    ends = conclusion.ends
    message += _with_other_engines(state)
    if status is Status.NONE and ends and (open_still := _may_be_tested(state, ends)):
        status = Status.INCONCLUSIVE
        message += f"; but {open_still}, so whether there is no change is not known"
    return Finding(
        status=status,
        message=message,
        answer=answer,
        changes=changes,
        tested_from=versions[ends.low] if ends else None,
        tested_to=versions[ends.high] if ends else None,
        warnings=_warnings(state, conclusion, changes),
        excluded=asdict(conclusion.excluded) if conclusion.excluded else None,
    )


def _answer(state: RunState, boundary: Boundary) -> Answer:
    versions = state.settings.versions
    assert boundary.confidence is not None
    return Answer(
        change=boundary.change,
        last_before=versions[boundary.last_before],
        first_after=versions[boundary.first_after],
        exact=boundary.exact,
        suspects=tuple(versions[index] for index in boundary.suspects),
        confidence=_rounded(boundary.confidence),
    )


def _unsure(state: RunState, conclusion: Conclusion) -> Answer | None:
    """The suspects between the nearest tested releases, when no boundary is sure enough.

    ``None`` where it is likelier than not that none of them brought a change.
    """
    versions, outcomes = state.settings.versions, state.outcomes
    judged = [index for index in sorted(outcomes) if outcomes[index] is not Outcome.SKIP]
    if conclusion.likely is None or (conclusion.held or 0.0) < 0.5:
        return None
    before = [index for index in judged if index < conclusion.suspects[0]]
    after = [index for index in judged if index >= conclusion.suspects[-1]]
    if not before or not after:
        return None
    return Answer(
        change=conclusion.likely,
        last_before=versions[before[-1]],
        first_after=versions[after[0]],
        exact=len(conclusion.suspects) == 1,
        suspects=tuple(versions[index] for index in conclusion.suspects),
        confidence=_rounded(conclusion.held or 0.0),
    )


def of_engine(state: RunState) -> str:
    """For which of vLLM's engines an answer is, where it is not for what each release runs."""
    return f" for {state.engine}" if state.engine else ""


def _with_other_engines(state: RunState) -> str:
    """What was seen of the engine that the answer is not about, and no more than that."""
    versions = state.settings.versions
    seen: dict[str, list[str]] = {}
    for record in sorted(state.set_aside, key=lambda r: versions.index(r.version)):
        engine = record.engine or record.engine_asked
        if record.outcome is not Outcome.SKIP and engine:
            verb = "passes" if record.outcome is Outcome.PASS else "fails"
            seen.setdefault(f"{engine} {verb}", []).append(record.version)
        elif record.engine_asked:
            seen.setdefault(f"{record.engine_asked} could not be tested", []).append(record.version)
    told = (f"; {what} in {', '.join(those[:4])}" for what, those in seen.items())
    return "".join(told)


def _engines_unlike(state: RunState, changes: tuple[Answer, ...]) -> list[str]:
    """Changes that may be those of the engine, and releases that did not run their usual one."""
    variables = state.settings.variables
    if state.engine is not None:
        silent = [r.version for r in state.records.values() if r.engine_asked and _is_silent(r)]
        told = f"the logs of {', '.join(silent)} do not say which engine ran"
        return [f"{told}: that it was {state.engine} is not checked"] if silent else []
    warnings = []
    for change in changes:
        pair = [state.records.get(v) for v in (change.last_before, change.first_after)]
        ran = [engine_of(record, variables) if record else None for record in pair]
        if None not in ran and ran[0] != ran[1]:
            warnings.append(
                f"{change.last_before} ran {ran[0]} and {change.first_after} {ran[1]}: the change "
                "may be that of the engine; --engine v1 or v0 compares like with like"
            )
    fallen = [
        version
        for version in state.settings.versions
        if (record := state.records.get(version))
        and has_fallen_back(record.engine, version)
        and not is_chosen(variables, version)
    ]
    if fallen:
        warnings.append(f"{', '.join(fallen)} ran V0, though V1 is what they usually run")
    return warnings


def _is_silent(record: TrialRecord) -> bool:
    """Whether a server was asked, and its log names no engine."""
    return record.outcome is not Outcome.SKIP and record.engine is None


def _rounded(confidence: float) -> float:
    """Rounded down: nothing is said to be surer than it is."""
    return int(confidence * 10_000) / 10_000


def _verdict(state: RunState, conclusion: Conclusion, answer: Answer | None) -> tuple[Status, str]:
    settings = state.settings
    tested = [r for r in state.records.values() if r.outcome is not Outcome.SKIP]
    if conclusion.verdict is Verdict.TOO_FEW:
        only = f"only {tested[0].version} could be tested" if tested else "no release could be"
        return Status.INCONCLUSIVE, f"{only}{'' if tested else ' tested'}: there is no answer"
    if answer is None:
        return _no_change(state, conclusion, tested)
    verb = "fixed" if answer.change is Change.FIX else "broken"
    before = "failing" if answer.change is Change.FIX else "passing"
    unsure = conclusion.verdict is Verdict.UNSURE
    if unsure and not state.aim.several and not answer.exact:
        return (
            Status.INCONCLUSIVE,
            f"probably {verb} in one of {', '.join(answer.suspects)}{of_engine(state)}: what was "
            f"seen does not carry a confidence of {settings.confidence:g} for one of them",
        )
    last = f"{answer.last_before} {reckoned(state, answer)} the last {before} release"
    if answer.exact:
        told = f"{verb} in {answer.first_after}{of_engine(state)}; {last}"
        if failing := failing_variations(state, answer):
            told += f" ({', '.join(failing)})"
    else:
        told = f"{verb} in one of {', '.join(answer.suspects)}{of_engine(state)}; {last} tested, "
        told += f"and the ones between {_why_open(state, answer)}"
    if answer.confidence < settings.confidence:
        told = (
            f"probably {told}, but with confidence {answer.shown_confidence}, "
            f"below the {settings.confidence:g} asked for"
        )
    elif unsure:
        told += f"; but {_what_is_unsure(state, conclusion)}"
    elif answer.exact:
        return Status.FOUND, told
    return Status.INCONCLUSIVE, told


def reckoned(state: RunState, answer: Answer) -> str:
    """Among flaky releases the last one before a change need not have looked like it."""
    before = Outcome.FAIL if answer.change is Change.FIX else Outcome.PASS
    record = state.records.get(answer.last_before)
    return "is" if record is not None and record.outcome is before else "is reckoned"


def _what_is_unsure(state: RunState, conclusion: Conclusion) -> str:
    """Why a change that is sure is not all of the answer."""
    if not state.aim.several:
        return "not enough was seen of the releases beside it"
    doubtful = [state.settings.versions[index] for index in conclusion.doubtful]
    if not doubtful:
        return "another change is not as sure"
    verb = "is" if len(doubtful) == 1 else "are"
    return f"on which side {' and '.join(doubtful)} {verb}, is not sure"


def _why_open(state: RunState, answer: Answer) -> str:
    records, excluded = state.records, state.settings.excluded
    skipped = [r for v in answer.suspects if (r := records.get(v)) and r.outcome is Outcome.SKIP]
    left = [v for v in answer.suspects if v not in records and v not in excluded]
    otherwise = [r for r in skipped if r.reason is SkipReason.DIFFERENT_FAILURE]
    why = ["could not be"] if len(skipped) > len(otherwise) else []
    why += ["failed in another way, which tells nothing of this one"] if otherwise else []
    why += ["were left out with --skip"] if set(excluded) & set(answer.suspects) else []
    why += [f"were not tried after so many skips ({', '.join(left)})"] if left else []
    return ", or ".join(why)


def _no_change(
    state: RunState, conclusion: Conclusion, tested: list[TrialRecord]
) -> tuple[Status, str]:
    if conclusion.verdict is Verdict.UNSURE:
        if conclusion.more_changes:
            return Status.INCONCLUSIVE, "what was seen cannot come from one change"
        asked = state.settings.confidence
        sure = [each for each in conclusion.boundaries if (each.confidence or 0) >= asked]
        if sure:
            kind = "change" if state.settings.find is Find.AUTO else state.settings.find
            told = f"whether there is a {kind} in range is not sure"
            return Status.INCONCLUSIVE, f"{told}: it {_seen_between(state, sure[-1])}"
        return Status.INCONCLUSIVE, "what was seen allows no answer"
    if conclusion.verdict is Verdict.OTHER_CHANGE and not conclusion.boundaries:
        told = f"no {state.settings.find} in range{of_engine(state)} ({_tested(state, tested)})"
        return Status.NONE, told
    if conclusion.verdict is Verdict.OTHER_CHANGE:
        between = _seen_between(state, conclusion.boundaries[-1])
        return Status.NONE, f"no {state.settings.find} in range{of_engine(state)}: it {between}"
    told = _tested(state, tested)
    seen = reduce(Counts.plus, (record.observations.counts for record in tested), Counts())
    if seen.fails and seen.passes:
        told = f"{seen.fails} of {seen.total} requests failed; {told}"
        often = f"fails now and then{of_engine(state)}"
        return Status.NONE, f"{often}, in no release more than in others ({told})"
    verb = "fails" if seen.fails else "passes"
    every = f"{verb} in every tested release{of_engine(state)} ({told})"
    excluded = conclusion.excluded
    if excluded is None:
        return Status.NONE, every
    what = "what passes" if seen.fails else "a failure"
    request, boot = in_words(excluded.per_request, "request"), in_words(excluded.per_boot, "boot")
    return Status.NONE, f"{every}; {what} would have shown if in {request}, or in {boot}"


def in_words(share: float, unit: str) -> str:
    """A share for people, at least as large: 0.08 is "1 request of 12", 0.78 "4 requests of 5"."""
    if share <= 0.3:
        return f"1 {unit} of {math.floor(1 / share)}"
    for of in range(2, 21):
        number = math.ceil(share * of - 1e-9)
        if number < of and number / of - share < 0.05:
            return f"{number} {unit}{'s' * (number > 1)} of {of}"
    return f"every {unit}"


def _seen_between(state: RunState, change: Boundary) -> str:
    """What a change looks like."""
    low, high = (state.settings.versions[i] for i in (change.last_before, change.first_after))
    if change.change is Change.BREAK:
        return f"passes in {low} and fails in {high}"
    return f"fails in {low} and passes in {high}"


def _tested(state: RunState, tested: list[TrialRecord]) -> str:
    """What the verdict rests on, so that nobody takes it for more than that."""
    versions = state.settings.versions
    names = sorted((record.version for record in tested), key=versions.index)
    shown = ", ".join(names) if len(names) <= 4 else f"{names[0]}, …, {names[-1]}"
    return f"{shown}: {len(names)} of {len(versions)} candidates"


def _warnings(
    state: RunState, conclusion: Conclusion, changes: tuple[Answer, ...]
) -> tuple[str, ...]:
    warnings = []
    if conclusion.ends is not None:
        warnings += moved_ends(state, conclusion.ends.low, conclusion.ends.high)
    if len(changes) > 1:
        warnings.append(f"the outcome changes {len(changes)} times in this range")
    elif conclusion.more_changes:
        warnings.append("what was seen cannot come from one change: --sweep shows them all")
    earlier = {r.version: r.earlier_run for r in state.records.values() if r.earlier_run}
    if earlier:
        runs = ", ".join(sorted(set(earlier.values())))
        warnings.append(
            f"{', '.join(earlier)} as tested by {runs}: same build, probe and arguments. "
            "--fresh tests again"
        )
    warnings += _engines_unlike(state, changes)
    warnings += _flakes(state, conclusion)
    bug = state.reference
    if (other := other_ends_kind(state.boots, bug)) is not None and state.settings.failure is None:
        warnings.append(
            f"the ends fail in different ways, {bug} and {other}: this is about the first, which "
            "is steadier or older. --failure TEXT chooses by a piece of what a failure is told as"
        )
    longest = state.aim.longest_agreeing
    if state.settings.find_all and longest and len(state.records) < len(state.settings.versions):
        within = "one release" if longest == 1 else f"{longest} releases"
        warnings.append(
            f"a change undone within {within} may have been missed: --sweep tests every release"
        )
    for name in elsewhere(state, changes):
        warnings.append(
            f"{name} fails at the failing end too, and changes elsewhere: see its column, or "
            f"--bisect-on {name}"
        )
    for record in state.records.values():
        if record.reason is SkipReason.DIFFERENT_FAILURE:
            warnings.append(f"{record.version} fails in another way: {record.signature}")
    return tuple(warnings)


def _flakes(state: RunState, conclusion: Conclusion) -> list[str]:
    """Releases that were recorded on one side, and are on the other by all that was seen."""
    boundaries = conclusion.boundaries
    if conclusion.verdict is not Verdict.FOUND or not boundaries:
        return []
    texts = []
    for index, outcome in sorted(state.outcomes.items()):
        changed = sum(boundary.first_after <= index for boundary in boundaries) % 2 == 1
        fails = changed == (boundaries[0].change is Change.BREAK)
        if outcome is (Outcome.PASS if fails else Outcome.FAIL):
            record = state.records[state.settings.versions[index]]
            seen = record.observations
            texts.append(
                f"{record.version} failed {seen.fails} of {seen.total} times: reckoned as a "
                f"{'failing release that flakes' if fails else 'good release that flakes'}"
            )
    return texts


def failing_variations(state: RunState, answer: Answer) -> list[str]:
    """The variations that fail in the failing one of the two releases of ``answer``."""
    suite = state.settings.suite
    failing = answer.last_before if answer.change is Change.FIX else answer.first_after
    record = state.records.get(failing)
    if suite is None or record is None:
        return []
    names = {name for name, _ in bug_of(record, suite)}
    return [variation.name for variation in suite.variations if variation.name in names]


def elsewhere(state: RunState, changes: tuple[Answer, ...]) -> list[str]:
    """Variations that fail at the failing end, and beside no change that was found."""
    found = {name for change in changes for name in failing_variations(state, change)}
    bug = {name for name, _ in state.bug}
    suite = state.settings.suite
    if suite is None or not changes:
        return []
    return [v.name for v in suite.variations if v.name in bug - found]


def _may_be_tested(state: RunState, ends: Ends) -> str | None:
    """What of the candidates beyond the ends was skipped for a reason that can pass, in words."""
    versions = state.settings.versions
    beyond = (*versions[: ends.low], *versions[ends.high + 1 :])
    skipped = [r for v in beyond if (r := state.records.get(v)) and r.reason in CAN_PASS]
    if not skipped:
        return None
    told = ", ".join(f"{record.version} ({record.reason})" for record in skipped[:4])
    more = f" and {len(skipped) - 4} more" if len(skipped) > 4 else ""
    return f"{told}{more} may be tested another time"


def moved_ends(state: RunState, low: int, high: int) -> list[str]:
    """What to say of candidates below ``low`` and above ``high`` that could not be tested.

    Nothing of a side where there are none, or whose end has not been tried.
    """
    versions, outcomes = state.settings.versions, state.outcomes
    texts = []
    for which, asked, tested, beyond in (
        ("LOWER", versions[0], versions[low], range(low)),
        ("UPPER", versions[-1], versions[high], range(high + 1, len(versions))),
    ):
        tried = [index for index in beyond if index in outcomes]
        outermost = versions.index(asked)
        if outermost in tried and all(outcomes[index] is Outcome.SKIP for index in tried):
            why = Counter(
                str(record.reason)
                if (record := state.records.get(versions[i]))
                else SkipReason.EXCLUDED
                for i in tried
            )
            reasons = ", ".join(f"{number} {reason}" for reason, number in why.most_common())
            verb = "was" if len(tried) == 1 else "were"
            told = "cannot be tested" if not _TESTABLE & set(why) else f"{verb} not judged"
            between = len(beyond) - len(tried)
            untested = f"; {between} between them left out" if between else ""
            texts.append(
                f"THE {which} END MOVED from {asked} to {tested}: {len(tried)} "
                f"candidate{'s' * (len(tried) > 1)} beyond it {told} ({reasons}){untested}."
            )
    return texts
