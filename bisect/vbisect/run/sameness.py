"""What makes two trials the same, and what makes two runs ask the same: all settings but a few.

A setting that is new is part of both keys, until it is named here as one that no server notices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from vbisect.launch import effective_arguments, effective_environment
from vbisect.run.settings import RunSettings
from vbisect.text import is_secret_name

_WHICH_ASKED = {"start", "end", "skip", "pre", "try_all"}
_WHICH_RELEASES = {*_WHICH_ASKED, "excluded", "unfit", "candidates", "releases_from"}
_HOW_TO_SEARCH = {
    *("find", "sweep", "find_all", "hint", "max_skips", "confidence", "fresh"),
    *("jobs", "jobs_asked"),
}
_TOLD_ONLY = {"schema_version", "vbisect", "run_id", "notes", "picture"}
_NOT_NOTICED = frozenset({*_WHICH_RELEASES, *_HOW_TO_SEARCH, *_TOLD_ONLY, "boot_timeout"})
"""What no server is started with or asked; the picture itself is part of the request."""

_BUILDS = {"image_repo", "image_variant", "images", "build", "base_image"}
_FETCHING = {"host", "product", "disk_budget", "pull_timeout"}
"""Of containers: where a build comes from, which its digest tells, and how it comes."""

_OF_ONE_HOST = {"host", "model_path", "control_path"}
_FOLLOWS = {"model_args", "model_env", "log_args"}
_CONTROL = {"control_model", "control_args", "control_env", "control_sees"}
"""What another run that asks the same may have otherwise: its host, and whether there is a control.

What the model and the device need follows from those.
"""

_NO_QUESTION: dict[str, Any] = {
    "timeout": True,
    "request_timeout": True,
    "request": {"request_timeout"},
    "variations": True,
}
"""What of a probe may change and still ask the same; those of a suite follow from its request."""


def trial_key(settings: RunSettings, version: str) -> dict[str, object] | None:
    """All that a trial of ``version`` depends on but its build and engine, which its record tells.

    ``None`` if that is not known.

    What it was started with counts, however that was asked for. Of variables that are passed on by
    their names alone the values are not known; that of a token changes no answer.
    """
    passed_on = {v.text for v in settings.variables if "=" not in v.text and v.applies_to(version)}
    if not all(is_secret_name(name) for name in passed_on):
        return None
    assigned = effective_environment((v for v in settings.variables if "=" in v.text), version)
    given = (*settings.model_args, *settings.log_args, *settings.serve_args)
    return {
        **_fields(settings, _NOT_NOTICED | {"engine", "model_args", "serve_args", "inherited"}),
        "arguments": effective_arguments(given, version),
        "control_args": effective_arguments(settings.control_args, version),
        "model_env": {**settings.model_env, **assigned},
        "env": passed_on,
        "docker": _fields(settings.docker, _BUILDS | _FETCHING) if settings.docker else None,
    }


def question(settings: RunSettings) -> dict[str, object]:
    """What a run asks, and of servers that are started how, as JSON values.

    How long is waited for it is no part of it, nor which of its GPUs a host uses.
    """
    probes = {"n_choices", "suite", "command"}
    besides = {*_NOT_NOTICED, *_OF_ONE_HOST, *_FOLLOWS, *_CONTROL, *probes, "docker", "inherited"}
    told = _told(settings, besides)
    # in which order they are given is no difference
    told |= {
        "serve_args": sorted(map(str, settings.serve_args)),
        "env": sorted(map(str, settings.variables)),
    }
    if settings.docker is not None:
        told["docker"] = _told(settings.docker, {*_FETCHING, "build", "gpus"})
    return {**told, "probe": asked_of_a_server(settings)}


def asked_of_a_server(settings: RunSettings) -> dict[str, object]:
    """The settings of the probe that change what is asked, as JSON values."""
    return settings.probe.model_dump(mode="json", exclude_defaults=True, exclude=_NO_QUESTION)


def _told(model: BaseModel, besides: set[str]) -> dict[str, Any]:
    """As JSON values, without those that are as usual: a new setting changes no older key."""
    return model.model_dump(mode="json", exclude=besides, exclude_defaults=True)


def _fields(model: BaseModel, besides: Iterable[str]) -> dict[str, object]:
    return {name: getattr(model, name) for name in type(model).model_fields if name not in besides}
