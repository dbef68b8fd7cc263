"""What a run says of what its servers take from the user's environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vbisect.engine import Engine
from vbisect.launch import Limited
from vbisect.launch.engine_version import VARIABLE, EngineAsked
from vbisect.launch.inherited import (
    own_names,
    unreachable,
    variables_for_containers,
    variables_of_vllm,
)
from vbisect.run.settings import RunSettings


def inherited_variables(
    given: Iterable[Limited], engine: EngineAsked, runtime: str
) -> tuple[Limited, ...]:
    """The variables of vLLM that the servers of a run take from the environment, as it is now.

    ``given`` are those of ``--env``; what they give to every version is not taken, nor what says
    which of its engines vLLM is to run where ``engine`` does.
    """
    besides = [v.text.partition("=")[0] for v in given if not v.specifier]
    besides += [VARIABLE] if engine is not EngineAsked.AUTO else []
    return variables_of_vllm(containers=runtime == "docker", besides=besides)


def environment_notes(
    inherited: Sequence[Limited], engine: Engine | None = None
) -> tuple[str, ...]:
    """What servers, in containers of ``engine`` if there is one, take from the environment.

    And what they cannot use of it.
    """
    notes = []
    if inherited:
        it = "it" if len(inherited) == 1 else "them"
        notes.append(
            f"Taken from your environment: {_listed(inherited)}; unset {it} for a clean answer."
        )
    names = own_names()
    left: tuple[str, ...] = ()
    if engine is not None:
        passed = variables_for_containers(remote=engine.remote, proxies=not engine.own_proxies)
        names = tuple(name for name in names if name in passed)
        left = unreachable()
    if names:
        notes.append(f"Passed on from your environment: {', '.join(names)}.")
    if left:
        notes.append(
            f"Not passed on: {', '.join(left)}, for containers do not reach this machine's "
            "loopback. Give an address that they reach, as that of Docker's bridge."
        )
    return tuple(notes)


def resumed_elsewhere(settings: RunSettings) -> tuple[str, ...]:
    """What to say where the environment is not the one that the run began in."""
    now = inherited_variables(settings.env, settings.engine, settings.runtime)
    if now == settings.inherited:
        return ()
    began = _listed(settings.inherited) or "none"
    return (
        f"The run goes on with the variables of vLLM that it began with ({began}), not with those "
        f"of your environment now ({_listed(now) or 'none'}).",
    )


def _listed(variables: Sequence[Limited]) -> str:
    return ", ".join(variable.text for variable in variables)
