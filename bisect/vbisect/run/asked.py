"""What the options of the command line ask of a server."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from vbisect.amounts import MOST
from vbisect.errors import UsageError
from vbisect.launch.arguments import refuse_secrets
from vbisect.probes import CommandSettings, Endpoint, NChoicesSettings, SuiteSettings, Variation
from vbisect.probes.suite import variations
from vbisect.run.options import RunOptions

_LARGEST_N = 16384
"""vLLM's own default limit, VLLM_MAX_N_SEQUENCES, from 0.19 on."""


class Asked(BaseModel):
    """The settings of the one probe that was chosen; the others are ``None``."""

    model_config = ConfigDict(frozen=True)

    n_choices: NChoicesSettings | None = None
    suite: SuiteSettings | None = None
    command: CommandSettings | None = None

    @property
    def image(self) -> str | None:
        """The picture that is sent, as a data URL."""
        request = self.suite.request if self.suite else self.n_choices
        return request.image if request else None

    def with_image(self, image: str | None) -> Asked:
        """The same with this picture, where requests are vbisect's own."""
        if self.suite is not None:
            request = self.suite.request.model_copy(update={"image": image})
            return Asked(suite=self.suite.model_copy(update={"request": request}))
        if self.n_choices is not None:
            return Asked(n_choices=self.n_choices.model_copy(update={"image": image}))
        return self


def what_is_asked(options: RunOptions) -> Asked:
    """The probe that ``options`` amount to; raises ``UsageError`` for those that make no sense."""
    _check_request(options)
    endpoint = Endpoint(one_of("--endpoint", options.endpoint, list(Endpoint)))
    command = _command(options)
    _check_suite(options, endpoint)
    if command is not None:
        return Asked(command=command)
    request = NChoicesSettings(
        endpoint=endpoint,
        n=options.n or NChoicesSettings().n,
        stream=options.stream,
        temperature=options.temperature,
        top_p=options.top_p,
        max_tokens=options.max_tokens,
        request_timeout=options.request_timeout,
    )
    suite = _suite(options, request)
    return Asked(suite=suite) if suite else Asked(n_choices=request)


def one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    """``value`` where it is allowed; raises ``UsageError``."""
    if value not in allowed:
        raise UsageError(f"{option} {value}: choose one of {', '.join(allowed)}.")
    return value


def check_amount(option: str, value: float) -> None:
    """Raise ``UsageError`` unless ``value`` is an amount of something, as of seconds."""
    if not value > 0:  # nor is "not a number"
        raise UsageError(f"{option} {value:g}: it must be above 0.")
    if value > MOST:
        raise UsageError(f"{option} {value:g}: it must be at most {MOST:g}.")


def _check_request(options: RunOptions) -> None:
    for n in options.n:
        if not 1 <= n <= _LARGEST_N:
            raise UsageError(f"--n {n}: n must be between 1 and {_LARGEST_N}.")
    for flag, value in (
        ("--request-timeout", options.request_timeout),
        ("--command-timeout", options.command_timeout),
        ("--max-tokens", options.max_tokens),
    ):
        check_amount(flag, value)
    if not 0 <= options.temperature < math.inf:
        raise UsageError(f"--temperature {options.temperature:g}: it must be a number from 0 on.")
    if not 0 < options.top_p <= 1:
        raise UsageError(f"--top-p {options.top_p:g}: it must be above 0 and at most 1.")


def _command(options: RunOptions) -> CommandSettings | None:
    one_of("--probe", options.probe, ["n-choices", "command"])
    if options.probe == "command" and not options.command:
        raise UsageError("--probe command needs a command after --, as in: -- ./check.sh")
    if not options.command:
        return None
    found = shutil.which(options.command[0])
    if found is None:
        raise UsageError(f"The command {options.command[0]} is not there or not executable.")
    refuse_secrets("The command", options.command)
    program = str(Path(found).absolute())
    return CommandSettings(command=(program, *options.command[1:]), timeout=options.command_timeout)


def _check_suite(options: RunOptions, endpoint: Endpoint) -> None:
    """Raise ``UsageError`` for options that do not go with ``--suite``, or that need it."""
    names = [variation.name for variation in _variations(options, endpoint)]
    if not options.suite:
        if options.bisect_on is not None:
            raise UsageError(
                f"--bisect-on {options.bisect_on}: it needs --suite, and names one of its "
                f"variations: {', '.join(names)}."
            )
        return
    for flag, given in (
        ("--n", options.n),
        ("--stream", options.stream),
        ("a command", options.command),
    ):
        if given:
            raise UsageError(f"--suite asks {', '.join(names)} by itself: leave out {flag}.")
    if options.bisect_on is not None:
        one_of("--bisect-on", options.bisect_on, names)
    if not options.temperature:
        raise UsageError(
            "--temperature 0: --suite asks for several choices, which vLLM refuses without "
            "randomness."
        )


def _suite(options: RunOptions, request: NChoicesSettings) -> SuiteSettings | None:
    if not options.suite:
        return None
    return SuiteSettings(
        request=request,
        variations=_variations(options, request.endpoint),
        bisect_on=options.bisect_on,
    )


def _variations(options: RunOptions, endpoint: Endpoint) -> tuple[Variation, ...]:
    """Those of the endpoint; where the limit of n is another one, none just above the usual one."""
    given = (*options.env, *os.environ)
    limited = any(value.startswith("VLLM_MAX_N_SEQUENCES") for value in given)
    return tuple(v for v in variations(endpoint) if not (limited and v.n > _LARGEST_N))
