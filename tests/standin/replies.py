"""What the stand-in server answers, in vLLM's shapes."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .asks import PREFIX, Ask, Problem
from .behaviour import Behaviour


@dataclass(frozen=True)
class Choice:
    """One choice of a response; tokens are small integers, the text is made from them."""

    index: int
    tokens: tuple[int, ...]
    finish_reason: str | None

    @property
    def text(self) -> str:
        """The text of the tokens."""
        return "".join(map(word, self.tokens))


def word(token: int) -> str:
    """The text of one token."""
    return f" w{token}"


class Sampler:
    """Makes the choices of each request; the same boot gives the same sequence of failures."""

    def __init__(self, version: str, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._draws = {
            endpoint: random.Random(f"{behaviour.seed}/{version}/{endpoint}") for endpoint in PREFIX
        }
        self._texts = random.Random(f"{behaviour.seed}/{version}/texts")

    def choices(self, ask: Ask) -> list[Choice]:
        """The choices that `ask` is answered with. Not thread-safe: the caller holds a lock."""
        texts = random.Random(ask.seed) if ask.seed is not None else self._texts
        if ask.temperature == 0:
            texts = random.Random(0)
        made: list[Choice] = []
        for index in range(ask.n * ask.prompts):
            stopped = ask.max_tokens > 2 and texts.random() < 0.25
            length = texts.randrange(2, ask.max_tokens) if stopped else ask.max_tokens
            tokens = tuple(texts.randrange(3, 300) for _ in range(length))
            made.append(Choice(index, tokens, "stop" if stopped else "length"))
        kept = self._kept(ask)
        return self._faulty([choice for choice in made if choice.index in kept])

    def _kept(self, ask: Ask) -> set[int]:
        rate = self._behaviour.fail_rate.get(ask.endpoint, 0.0)
        total, draws = ask.n * ask.prompts, self._draws[ask.endpoint]
        # Drawn for every request, also n = 1, so that the sequence depends on the count alone.
        failing = draws.random() < rate
        if not failing or ask.n == 1:
            return set(range(total))
        keep = self._behaviour.kept_choices
        if keep is not None or rate >= 1.0:
            return set(range(min(keep or 1, total)))
        return set(draws.sample(range(total), draws.randrange(1, ask.n)))

    def _faulty(self, made: list[Choice]) -> list[Choice]:
        fault = self._behaviour.fault
        if fault == "too_many_choices":
            return [*made, replace(made[-1], index=made[-1].index + 1)]
        if fault == "duplicate_index":
            return [*made[:-1], replace(made[-1], index=made[0].index)]
        if fault == "wrong_indices":
            return [replace(choice, index=choice.index + 1) for choice in made]
        if fault == "missing_finish_reason":
            return [*made[:-1], replace(made[-1], finish_reason=None)]
        return made


def _logprobs(ask: Ask, tokens: tuple[int, ...]) -> Any:
    if ask.logprobs is None:
        return None
    if ask.endpoint == "completions":
        return {
            "text_offset": [5 * i for i in range(len(tokens))],
            "token_logprobs": [-1.5] * len(tokens),
            "tokens": [word(t) for t in tokens],
            "top_logprobs": [{word(t): -1.5} for t in tokens],
        }
    content = []
    for token in tokens:
        entry = {"token": word(token), "logprob": -1.5, "bytes": list(word(token).encode())}
        content.append({**entry, "top_logprobs": [entry] * ask.logprobs})
    return {"content": content}


def _usage(ask: Ask, choices: list[Choice]) -> dict[str, Any]:
    done = sum(len(choice.tokens) for choice in choices)
    return {
        "prompt_tokens": ask.prompt_tokens,
        "total_tokens": ask.prompt_tokens + done,
        "completion_tokens": done,
    }


def _head(ask: Ask, kind: str = "") -> dict[str, Any]:
    if ask.endpoint == "generate":
        return {"request_id": ask.id}
    kinds = {"chat": f"chat.completion{kind}", "completions": "text_completion"}
    return {
        "id": ask.id,
        "object": kinds[ask.endpoint],
        "created": int(time.time()),
        "model": ask.model,
    }


def full(ask: Ask, choices: list[Choice]) -> dict[str, Any]:
    """The body of a plain (not streaming) answer."""
    details = {"prompt_tokens_details": None, "completion_tokens_details": None}
    body = _head(ask) | {"model": ask.model, "created": int(time.time())}
    body["choices"] = [_row(ask, choice) for choice in choices]
    body["usage"] = _usage(ask, choices) | details
    nulls = {
        "chat": "service_tier system_fingerprint prompt_logprobs prompt_token_ids prompt_text"
        " metrics",
        "completions": "service_tier system_fingerprint metrics",
        "generate": "prompt_logprobs",
    }[ask.endpoint]
    if ask.endpoint == "generate" and ask.newer:
        body["output_mode"] = "tokens"
        nulls += " prompt_token_id_logprobs prompt_token_ids mm_placeholders metrics"
    return body | dict.fromkeys([*nulls.split(), "kv_transfer_params", "ec_transfer_params"])


def _row(ask: Ask, choice: Choice) -> dict[str, Any]:
    row: dict[str, Any] = {"index": choice.index}
    if ask.endpoint == "chat":
        nulls = ("refusal", "annotations", "audio", "function_call", "reasoning")
        message = {"role": "assistant", "content": choice.text}
        row["message"] = message | dict.fromkeys(nulls)
    elif ask.endpoint == "completions":
        row["text"] = choice.text
    row["logprobs"] = _logprobs(ask, choice.tokens)
    row["finish_reason"] = choice.finish_reason
    if ask.endpoint == "generate":
        return row | _tokens(ask, choice.tokens)
    row |= {"stop_reason": None, "token_ids": None, "routed_experts": None}
    if ask.endpoint == "completions":
        row |= {"prompt_logprobs": None, "prompt_token_ids": None}
    return row


def _tokens(ask: Ask, tokens: tuple[int, ...]) -> dict[str, Any]:
    fields = {"token_ids": list(tokens), "routed_experts": None, "sampling_mask": None}
    if not ask.newer:
        return fields
    span = {"version": "default", "start": 0, "end": len(tokens)}
    return fields | {"stop_reason": None, "weight_versions": [span]}


def chunks(ask: Ask, choices: list[Choice], breaks: bool) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer, without the closing [DONE].

    `breaks`: an error event follows the first tokens of the first choice, as in generate
    through 0.31.0.
    """
    if ask.endpoint == "chat":
        # vLLM sends the role for all n first, whether or not a choice follows it.
        for index in range(ask.n):
            delta = {"role": "assistant", "content": ""}
            row = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            nulls = {"prompt_token_ids": None, "prompt_text": None}
            yield {**_head(ask, ".chunk"), "choices": [row], **nulls}
    if breaks:
        first = replace(choices[0], index=0)
        for place in range(min(2, len(first.tokens))):
            yield _event(ask, _stream_row(ask, first, place))
        yield Problem("list index out of range", 500).body(flat=False)
        return
    for place in range(max((len(choice.tokens) for choice in choices), default=0)):
        for choice in choices:
            if place < len(choice.tokens):
                yield _event(ask, _stream_row(ask, choice, place))
    if ask.usage_in_stream:
        yield {**_head(ask, ".chunk"), "choices": [], "usage": _usage(ask, choices)}


def _event(ask: Ask, row: dict[str, Any]) -> dict[str, Any]:
    event = {**_head(ask, ".chunk"), "choices": [row]}
    if ask.endpoint == "generate":
        event |= {"usage": None} | ({"output_mode": "tokens"} if ask.newer else {})
    return event


def _stream_row(ask: Ask, choice: Choice, place: int) -> dict[str, Any]:
    token, last = choice.tokens[place], place == len(choice.tokens) - 1
    row: dict[str, Any] = {"index": choice.index}
    if ask.endpoint == "chat":
        row["delta"] = {"content": word(token)}
    elif ask.endpoint == "completions":
        row["text"] = word(token)
    row["logprobs"] = _logprobs(ask, (token,))
    row["finish_reason"] = choice.finish_reason if last else None
    if ask.endpoint == "generate":
        return row | _tokens(ask, (token,))
    if last or ask.endpoint == "completions":
        row["stop_reason"] = None
    if ask.endpoint == "completions":
        row["prompt_token_ids"] = None
    return row | {"token_ids": None}


def models(names: list[str], root: str, max_model_len: int) -> dict[str, Any]:
    """The body of /v1/models."""
    now = int(time.time())
    permission = {
        "id": f"modelperm-{uuid.uuid4().hex[:16]}",
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    card = {"object": "model", "created": now, "owned_by": "vllm", "root": root, "parent": None}
    data = [
        {"id": name, **card, "max_model_len": max_model_len, "permission": [permission]}
        for name in names
    ]
    return {"object": "list", "data": data}
