"""What a run gave its servers: arguments and environment variables by name."""

from __future__ import annotations

import shlex

from vbisect.releases.changes import Changes
from vbisect.run.settings import RunSettings


def used_arguments(settings: RunSettings, known: Changes) -> dict[str, bool]:
    """The names of the serve arguments, and whether the run limited each to some versions."""
    used: dict[str, bool] = {}
    for argument in (*settings.serve_args, *settings.model_args):
        for word in _words(argument.text):
            if word.startswith("-") and not word.lstrip("-")[:1].isdigit():
                name = known.argument_name(word)
                used[name] = used.get(name, True) and bool(argument.specifier)
    return used


def used_variables(settings: RunSettings) -> dict[str, bool]:
    """The names of the environment variables, and whether each was limited to some versions."""
    used = dict.fromkeys(settings.model_env, False)
    for variable in settings.variables:
        name = variable.text.partition("=")[0]
        used[name] = used.get(name, True) and bool(variable.specifier)
    return used


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a recorded line that nobody could have run
        return text.split()
