"""Which of vLLM's engines a run is about, where it finds that out itself.

Where the ends ran different engines, or all passes, the older end is booted once more with its
other engine, and the run goes on with the engine that fails. That is a decision of the run, in its
journal; the search only sees the trials that count for the engine of the moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from vbisect.errors import UsageError
from vbisect.launch import Limited
from vbisect.launch.engine_version import (
    V0,
    V1,
    VARIABLE,
    EngineAsked,
    engines_of,
    usual_engine,
)
from vbisect.releases.fitness import stretch
from vbisect.run.asked import one_of
from vbisect.run.records import EngineChoice, TrialRecord
from vbisect.run.state import RunState
from vbisect.search import Find, Outcome, find_ends

_VALUES = {"0": EngineAsked.V0, "1": EngineAsked.V1}


def engine_asked(asked: str, env: Iterable[Limited]) -> tuple[EngineAsked, tuple[Limited, ...]]:
    """The engine that ``--engine`` and ``--env VLLM_USE_V1=…`` ask for, and the other variables.

    A variable that is limited to some versions stays one, and decides for those. Raises
    ``UsageError`` where the two are not the same.
    """
    engine = EngineAsked(one_of("--engine", asked, list(EngineAsked)))
    env = tuple(env)
    others = tuple(variable for variable in env if not _is_choice(variable))
    for variable in (each for each in env if _is_choice(each)):
        name, equals, value = variable.text.partition("=")
        meant = _VALUES.get(value if equals else os.environ.get(name, ""))
        if engine is EngineAsked.AUTO and (variable.specifier or meant is None):
            return engine, env
        if engine not in (EngineAsked.AUTO, meant):
            raise UsageError(
                f"--engine {engine} and --env '{variable}' do not agree: leave one of them out."
            )
        engine = meant or engine
    return engine, others


def engine_notes(engine: EngineAsked, versions: Sequence[str]) -> tuple[str, ...]:
    """Which of the releases to be tested have not got the one engine that is asked for.

    Raises ``UsageError`` where fewer than two have it.
    """
    lacking = [v for v in versions if engine.only and engine.only not in engines_of(v)]
    if not lacking:
        return ()
    told = f"{stretch(lacking)} {'has' if len(lacking) == 1 else 'have'} no {engine.only}"
    if len(versions) - len(lacking) < 2:
        raise UsageError(
            f"--engine {engine}: {told}; both engines are in 0.7.3 … 0.10.2. Choose another range, "
            "or leave --engine out."
        )
    return (f"{told}, which --engine {engine} asks for: skipped without a boot.",)


def _is_choice(variable: Limited) -> bool:
    return variable.text.partition("=")[0] == VARIABLE


def is_chosen(env: Iterable[Limited], version: str) -> bool:
    """Whether a variable among ``env`` says which engine ``version`` is to run."""
    return any(_is_choice(variable) and variable.applies_to(version) for variable in env)


def engine_of(record: TrialRecord, env: Iterable[Limited]) -> str | None:
    """The engine that a trial ran: by its log, else the one that was asked for, or is usual.

    A server may be told to log less than that. ``env`` are the variables given to all servers.
    """
    if record.engine is not None or is_chosen(env, record.version):
        return record.engine
    return record.engine_asked or usual_engine(record.version)


def next_choice(state: RunState, *, over: bool) -> EngineChoice | None:
    """What is to be decided of the engine now, if anything; ``over`` once the search is."""
    if state.settings.engine not in (EngineAsked.AUTO, EngineAsked.BOTH):
        return None
    if not state.engine_choices:
        return _comparison(state, over=over)
    last = state.engine_choices[-1]
    return None if last.settled else _settlement(state, last, over=over)


def _comparison(state: RunState, *, over: bool) -> EngineChoice | None:
    """Boot the older end with its other engine, where that may tell something."""
    settings, seen = state.settings, state.seen()
    ends = find_ends(len(settings.versions), seen)
    judged = seen.judged
    if ends is None or ends.low == ends.high or not {ends.low, ends.high} <= set(judged):
        return None
    low, high = (state.records[settings.versions[index]] for index in (ends.low, ends.high))
    if len(engines_of(low.version)) == 1 or is_chosen(settings.variables, low.version):
        return None
    engine, newer = (engine_of(record, settings.variables) for record in (low, high))
    other = V1 if engine == V0 else V0
    ran = f"{low.version} ran {engine}"
    again = f"{low.version} is booted once more with {other}"
    if newer is not None and engine != newer:
        text = f"{ran} and {high.version} {newer}: {again}, to compare like with like."
    elif settings.engine is EngineAsked.BOTH:
        text = f"{ran}: {again}, as --engine both asks."
    elif over and settings.find is not Find.BREAK and _all_pass(state):
        text = f"All that was tested passes, and {ran}: {again}, which it has too."
    else:
        return None
    return EngineChoice.model_validate({"engine": other, "version": low.version, "text": text})


def _settlement(state: RunState, compared: EngineChoice, *, over: bool) -> EngineChoice | None:
    """Go on with the engine that fails, once it is known what the older end does with the other."""
    version, other, variables = compared.version, compared.engine, state.settings.variables
    outcome = state.seen().outcomes.get(state.settings.versions.index(version))
    if outcome is None and not over:
        return None
    mine = (r for r in state.set_aside if r.version == version and r.engine_asked is None)
    before, now = next(mine, None), state.records.get(version)
    engine: str | None = None
    if outcome is Outcome.FAIL:
        engine = other
    elif outcome is Outcome.PASS:
        newest = _newest_by_default(state)
        # where both fail, the newest one has come to it since, with the engine that passes here
        order = (before, newest) if state.settings.find is Find.FIX else (newest, before)
        failing = [r for r in order if r is not None and r.outcome is Outcome.FAIL]
        engine = engine_of(failing[0], variables) if failing else None
    told = f"{version} {_did(now, other)}"
    told += f" and {_did(before, engine_of(before, variables))}" if before else ""
    on = f"the run goes on with {engine}" if engine else "each release runs its own engine again"
    choice = {"engine": engine, "version": version, "settled": True, "text": f"{told}: {on}."}
    return EngineChoice.model_validate(choice)


def _did(record: TrialRecord | None, engine: str | None) -> str:
    if record is None or record.outcome is Outcome.SKIP:
        why = f" ({record.reason})" if record is not None else ""
        return f"could not be tested with {engine}{why}"
    return f"{'passes' if record.outcome is Outcome.PASS else 'fails'} with {engine}"


def _newest_by_default(state: RunState) -> TrialRecord | None:
    """The newest release that was judged with the engine it runs by itself."""
    tested = (*state.set_aside, *state.records.values())
    judged = [r for r in tested if r.engine_asked is None and r.outcome is not Outcome.SKIP]
    return max(judged, key=lambda r: state.settings.versions.index(r.version), default=None)


def _all_pass(state: RunState) -> bool:
    seen = [record for record in state.records.values() if record.outcome is not Outcome.SKIP]
    return all(record.outcome is Outcome.PASS and not record.observations.fails for record in seen)
