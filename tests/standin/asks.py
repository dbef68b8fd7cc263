"""Requests to the stand-in server, checked as vLLM checks them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from .behaviour import Behaviour

MAX_N = 16384
LEAST_TEMPERATURE = 0.01
"""What any temperature between 0 and it is raised to, before the test for greedy sampling."""
KINDS = {
    400: "BadRequestError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    500: "InternalServerError",
}
PREFIX = {"chat": "chatcmpl-", "completions": "cmpl-", "generate": "generate-tokens-"}


class Problem(Exception):
    """A request that is answered with an error."""

    def __init__(
        self, message: str, status: int = 400, param: str | None = None, kind: str = ""
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param = message, status, param
        self.kind = kind or KINDS[status]

    def body(self, flat: bool) -> dict[str, Any]:
        """The error body, in the nested shape or (older releases) the flat one."""
        fields = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.status,
        }
        return {"object": "error", **fields} if flat else {"error": fields}


class Limits(Protocol):
    """The server arguments that bound a request."""

    max_model_len: int
    max_num_seqs: int


@dataclass(frozen=True)
class Ask:
    """One generation request, checked."""

    endpoint: str
    id: str
    model: str
    n: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int | None
    logprobs: int | None
    stream: bool
    usage_in_stream: bool
    prompts: int
    prompt_tokens: int
    newer: bool
    """Answered in the shape that generate has since 0.32.0."""
    prompt: str = ""

    def params(self) -> str:
        """The parameters as vLLM's request log writes them."""
        return (
            f"SamplingParams(n={self.n}, presence_penalty=0.0, frequency_penalty=0.0, "
            f"repetition_penalty=1.0, temperature={self.temperature}, top_p={self.top_p}, "
            f"top_k=0, min_p=0.0, seed={self.seed}, stop=[], stop_token_ids=[], bad_words=[], "
            f"include_stop_str_in_output=False, ignore_eos=False, max_tokens={self.max_tokens}, "
            f"min_tokens=0, logprobs={self.logprobs}, prompt_logprobs=None, "
            "skip_special_tokens=True, spaces_between_special_tokens=True, "
            "structured_outputs=None, extra_args=None)"
        )

    def logged(self, behaviour: Behaviour) -> str:
        """The line of vLLM's request log; the prompt is part of it through 0.11.0."""
        received = replace(self, n=behaviour.logged_n or self.n)
        prompt = f"prompt: {self.prompt!r}, " if behaviour.logs_prompt else ""
        number = "-0" if self.endpoint == "completions" else ""
        rest = "prompt_token_ids: None, " if behaviour.logs_prompt else ""
        return (
            f"Received request {self.id}{number}: {prompt}params: {received.params()}, "
            f"{rest}lora_request: None."
        )


def check(
    endpoint: str,
    raw: bytes,
    names: list[str],
    behaviour: Behaviour,
    limits: Limits,
    header: str | None = None,
) -> Ask:
    """Read and check a request body as vLLM does; `Problem` says what is wrong with it.

    `header` is its X-Request-Id, which vLLM makes part of its own.
    """
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise _invalid("json_invalid", "0", str(error)) from None
    if not isinstance(body, dict):
        raise _invalid("model_attributes_type", "", "Input should be a valid dictionary")
    needed = {"chat": "messages", "completions": "prompt", "generate": "token_ids"}[endpoint]
    for name in (needed, "sampling_params") if endpoint == "generate" else (needed,):
        if body.get(name) is None:
            raise _invalid("missing", name, "Field required")
    model = body.get("model") or names[0]
    if model not in names:
        raise Problem(f"The model `{model}` does not exist.", 404, "model")
    params: Mapping[str, Any] = body["sampling_params"] if endpoint == "generate" else body

    def number(name: str, default: Any, kind: type = float) -> Any:
        value = params.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, kind)):
            raise _invalid(f"{kind.__name__}_type", name, f"Input should be a valid {kind}")
        return value

    logprobs = number("logprobs", None, int) if endpoint != "chat" else None
    if endpoint == "chat" and body.get("logprobs"):
        logprobs = number("top_logprobs", 0, int)
    prompts = body[needed] if endpoint == "completions" else [body[needed]]
    if not isinstance(prompts, list) or (prompts and isinstance(prompts[0], int)):
        prompts = [prompts]
    ask = Ask(
        endpoint=endpoint,
        id=PREFIX[endpoint] + str(header or body.get("request_id") or uuid.uuid4().hex[:16]),
        model=str(model),
        n=number("n", 1, int),
        temperature=_raised(number("temperature", behaviour.default_temperature)),
        top_p=number("top_p", 1.0),
        max_tokens=number("max_tokens", number("max_completion_tokens", 16, int), int),
        seed=number("seed", None, int),
        logprobs=logprobs,
        stream=bool(body.get("stream")),
        usage_in_stream=bool((body.get("stream_options") or {}).get("include_usage")),
        prompts=len(prompts),
        prompt_tokens=sum(len(p) if isinstance(p, list) else len(str(p).split()) for p in prompts),
        newer=behaviour.output_mode,
        prompt=behaviour.logged_prompt or json.dumps(body[needed]),
    )
    _verify(ask, limits)
    return ask


def _invalid(kind: str, name: str, text: str) -> Problem:
    where = f"'loc': ('body', '{name}'), 'msg': {text!r}"
    message = f"1 validation error:\n  {{'type': '{kind}', {where}}}"
    return Problem(message, param=f"body.{name}", kind="Bad Request")


def _raised(temperature: float) -> float:
    return LEAST_TEMPERATURE if 0 < temperature < LEAST_TEMPERATURE else temperature


def _verify(ask: Ask, limits: Limits) -> None:
    """The limits of vLLM's SamplingParams, in its words."""
    if ask.n < 1:
        raise Problem(f"n must be at least 1, got {ask.n}.")
    if ask.n > MAX_N:
        raise Problem(
            f"n must be at most {MAX_N}, got {ask.n}. To increase this limit, set the "
            "VLLM_MAX_N_SEQUENCES environment variable."
        )
    if not 0 <= ask.temperature <= 2:
        text = f"temperature must be in [0, 2], got {ask.temperature}."
        raise Problem(text, param="temperature")
    if ask.temperature == 0 and ask.n > 1:
        raise Problem(f"n must be 1 when using greedy sampling, got {ask.n}.")
    if ask.max_tokens < 1:
        raise Problem(f"max_tokens must be at least 1, got {ask.max_tokens}.", param="max_tokens")
    if ask.max_tokens > limits.max_model_len:
        raise Problem(
            f"max_tokens={ask.max_tokens} cannot be greater than "
            f"max_model_len={limits.max_model_len}. Please request fewer output tokens. "
            f"(parameter=max_tokens, value={ask.max_tokens})",
            param="max_tokens",
        )
    if ask.endpoint == "generate" and ask.n > limits.max_num_seqs:
        raise Problem(
            "sampling_params.n must be at most the server's max_num_seqs "
            f"({limits.max_num_seqs}), got {ask.n}."
        )
