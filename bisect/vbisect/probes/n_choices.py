"""The default probe: a request for n choices must bring n choices."""

from __future__ import annotations

import json
import time
import uuid
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from vbisect.amounts import Amount, Timeout
from vbisect.connections import TooLarge
from vbisect.files import append_to, write_whole
from vbisect.probes.answers import (
    Answer,
    UnreadableAnswer,
    failure_of,
    problem_of,
    read_plain,
    read_stream,
)
from vbisect.probes.exchange import Reply, Unanswered, exchange
from vbisect.probes.interface import NoResponse, Observation, ProbeTarget, SentRequest
from vbisect.reasons import SkipReason, Untestable
from vbisect.text import one_line, redact

LEAST_TEMPERATURE = 0.01
"""What vLLM makes of every temperature between 0 and this, before it looks whether to sample
greedily: only at 0 it does, refuses n > 1 and sets top_p itself (0.7.3 … 0.33.0,
vllm/sampling_params.py, _MAX_TEMP in SamplingParams.__post_init__)."""

_PROMPT = "Write one short sentence about the sea."
_SAMPLING = ("n", "temperature", "top_p", "max_tokens", "seed", "logprobs")
_REQUEST_ID = "X-Request-Id"
"""vLLM puts this id into its own (0.7.3 … 0.33, all endpoints), so that its log can be searched."""

_TOKEN_IDS = list(range(10, 22))  # below every vocabulary's size, and no special tokens


class Endpoint(StrEnum):
    """The endpoints that take ``n``; ``generate`` is vLLM's token-in, token-out endpoint."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    GENERATE = "generate"

    @property
    def path(self) -> str:
        """The path of the endpoint on the server."""
        return _PATHS[self]


_PATHS = {
    Endpoint.CHAT: "/v1/chat/completions",
    Endpoint.COMPLETIONS: "/v1/completions",
    Endpoint.GENERATE: "/inference/v1/generate",
}


_LOGPROBS: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: {"logprobs": True, "top_logprobs": 1},
}
"""How logprobs are asked for where ``logprobs`` is not the number of alternatives."""


class NChoicesSettings(BaseModel):
    """``n`` holds one or several counts, all asked in each observation.

    ``image`` is a data URL sent with chat requests; ``request_timeout`` is in seconds. With
    ``logprobs`` each choice must carry the log probabilities of its tokens.
    """

    model_config = ConfigDict(frozen=True)

    endpoint: Endpoint = Endpoint.CHAT
    n: tuple[Annotated[int, Field(ge=0, le=10**6)], ...] = Field((8,), min_length=1)
    stream: bool = False
    temperature: float = Field(0.7, ge=0, allow_inf_nan=False)
    top_p: float = Field(0.9, gt=0, le=1)
    max_tokens: Amount = 16
    seed: int | None = None
    logprobs: bool = False
    image: str | None = None
    request_timeout: Timeout = 300


class NChoicesProbe:
    """Asks for n choices; passes when exactly n come back, indexed 0 to n-1 and finished.

    ``label`` tells its requests from those of other probes of the same server, in the evidence.
    """

    def __init__(self, settings: NChoicesSettings, label: str | None = None) -> None:
        self._settings = settings
        self._label = label

    def observe(self, target: ProbeTarget) -> Observation:
        """Send one request for each ``n``; the first that fails decides."""
        seconds = 0.0
        evidence: dict[str, Any] = {}
        for n in self._settings.n:
            started = time.monotonic()
            answer = self._ask(target, n)
            latency = time.monotonic() - started
            seconds += latency
            evidence[f"n={n}"] = _measured(answer, latency)
            failure = failure_of(answer, n, logprobs=self._settings.logprobs)
            if failure is not None:
                kind, sentence = failure
                several = len(self._settings.n) > 1
                return Observation(
                    passed=False,
                    kind=kind,
                    signature=f"n={n}: {sentence}" if several else sentence,
                    seconds=seconds,
                    requests=len(evidence),
                    evidence=evidence,
                )
        return Observation(passed=True, seconds=seconds, requests=len(evidence), evidence=evidence)

    def request_body(self, model: str, n: int) -> dict[str, Any]:
        """The request, with every sampling parameter the verdict could depend on sent explicitly.

        A model's own generation_config is applied to what is left out (from vLLM 0.8.0), and with a
        temperature near zero there all choices would be nearly the same.
        """
        s = self._settings
        sampling: dict[str, Any] = {
            "n": n,
            "temperature": s.temperature,
            "top_p": s.top_p,
            "max_tokens": s.max_tokens,
        }
        if s.seed is not None:
            sampling["seed"] = s.seed
        if s.logprobs:
            sampling |= _LOGPROBS.get(s.endpoint, {"logprobs": 1})
        body: dict[str, Any]
        if s.endpoint is Endpoint.GENERATE:
            body = {"model": model, "token_ids": _TOKEN_IDS, "sampling_params": sampling}
        elif s.endpoint is Endpoint.COMPLETIONS:
            body = {"model": model, "prompt": _PROMPT, **sampling}
        else:
            content: str | list[dict[str, Any]] = _PROMPT
            if s.image is not None:
                picture = {"type": "image_url", "image_url": {"url": s.image}}
                content = [picture, {"type": "text", "text": _PROMPT}]
            body = {"model": model, "messages": [{"role": "user", "content": content}], **sampling}
        if s.stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        return body

    def _ask(self, target: ProbeTarget, n: int) -> Answer:
        return read(self.send(target, n), self._settings.stream)

    def send(self, target: ProbeTarget, n: int) -> Reply:
        """What is answered to a request for ``n`` choices. Raises ``NoResponse``."""
        body = self.request_body(target.model, n)
        path = self._settings.endpoint.path
        identity = f"vbisect-{uuid.uuid4().hex}"
        _keep_request(target, self._label, path, body)
        request = SentRequest(id=identity, parameters=sampling_parameters(body))
        target.sent.append(request)
        started = time.monotonic()
        try:
            reply = exchange(
                "POST",
                target.base_url + path,
                headers={**target.headers, _REQUEST_ID: identity},
                direct=not target.trust_env,
                seconds=self._settings.request_timeout,
                json=body,
            )
        except Unanswered as error:
            raise NoResponse(SkipReason.NO_ANSWER, str(error)) from None
        except TooLarge as error:
            raise NoResponse(SkipReason.SERVER_ERROR, str(error)) from None
        took = time.monotonic() - started
        _keep_response(target, self._label, n, identity, reply, took)
        if reply.status >= 400:
            target.sent.remove(request)  # vLLM logs a request once it has accepted it
        return reply


def sampling_parameters(body: dict[str, Any]) -> dict[str, int | float | None]:
    """What vLLM makes of a request ``body``, as far as it was sent, by its own names.

    A chat asks for log probabilities with ``logprobs``, and for how many with ``top_logprobs``.
    """
    asked = body.get("sampling_params", body)
    sent = {name: asked[name] for name in _SAMPLING if name in asked}
    sent = {name: value for name, value in sent.items() if _is_number(value)}
    if "messages" in body and "logprobs" in sent:
        sent["logprobs"] = asked.get("top_logprobs", 0) if sent["logprobs"] else None
    return sent


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, int | float)


def read(reply: Reply, stream: bool) -> Answer:
    """The answer, or the skip that a refusal is. Raises ``Untestable`` or ``NoResponse``."""
    status, text = reply.status, reply.text
    if status >= 500:
        raise NoResponse(SkipReason.SERVER_ERROR, f"HTTP {status}: {message_of(text)}")
    model_unknown = '"NotFoundError"' in text.replace(" ", "")
    if status in (403, 405) or (status == 404 and not model_unknown):
        raise Untestable(SkipReason.ENDPOINT_NOT_SERVED, f"HTTP {status}: {message_of(text)}")
    if status != 200:
        raise Untestable(SkipReason.REQUEST_REJECTED, refusal_of(reply))
    try:
        answer = read_stream(text) if stream else read_plain(text)
    except UnreadableAnswer as error:
        raise NoResponse(SkipReason.SERVER_ERROR, f"the answer is {error}") from None
    if answer.broken_code is not None and 400 <= answer.broken_code < 500:
        raise Untestable(SkipReason.REQUEST_REJECTED, f"HTTP {answer.broken_code}: {answer.broken}")
    return answer


def refusal_of(reply: Reply) -> str:
    """What an answer says that is none, in one line."""
    told = message_of(reply.text)
    if reply.location is not None and 300 <= reply.status < 400:
        told = f"it is elsewhere, at {one_line(reply.location)}"
    return f"HTTP {reply.status}: {told}" if told else f"HTTP {reply.status}"


def message_of(text: str) -> str:
    """The sentence in an error body, whatever its shape."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(text)
    problem = problem_of({"error": data.get("error") or data}) if isinstance(data, dict) else None
    return problem.message if problem else one_line(text)


def _measured(answer: Answer, latency: float) -> dict[str, Any]:
    return {
        "choices": len(answer.choices),
        "distinct_texts": len({choice.content for choice in answer.choices}),
        "finish_reasons": sorted({choice.finish_reason or "none" for choice in answer.choices}),
        "usage": answer.usage and {k: v for k, v in answer.usage.items() if isinstance(v, int)},
        "seconds": round(latency, 4),
    }


def _keep_request(target: ProbeTarget, label: str | None, path: str, body: dict[str, Any]) -> None:
    text = json.dumps({"method": "POST", "path": path, "body": body}, indent=1) + "\n"
    write_whole(target.directory / "request.json", text)
    if label is not None:
        write_whole(target.directory / f"request-{label}.json", text)


def _keep_response(
    target: ProbeTarget,
    label: str | None,
    n: int,
    identity: str,
    reply: Reply,
    seconds: float,
) -> None:
    line = {
        **({"variation": label} if label is not None else {}),
        "n": n,
        "request_id": identity,
        "status": reply.status,
        "seconds": round(seconds, 4),
        "body": redact(reply.text),
    }
    with append_to(target.directory / "responses.jsonl") as handle:
        handle.write(json.dumps(line).encode() + b"\n")
