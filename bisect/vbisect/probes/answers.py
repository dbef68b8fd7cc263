"""Read the answers of the three endpoints, plain and streamed, into one shape."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from vbisect.probes.interface import FailureKind
from vbisect.text import one_line


class Choice(BaseModel):
    """One of the n results: its index as the server gave it, and what was generated.

    ``logprobs`` tells whether it carries the log probabilities of its tokens.
    """

    model_config = ConfigDict(frozen=True)

    index: int | None
    finish_reason: str | None
    content: str
    logprobs: bool = False


class Answer(BaseModel):
    """The choices of one request; ``broken`` is the error a stream ended with, if it did."""

    model_config = ConfigDict(frozen=True)

    choices: tuple[Choice, ...]
    usage: dict[str, Any] | None = None
    broken: str | None = None
    broken_code: int | None = None


class UnreadableAnswer(Exception):
    """The body is not what this endpoint answers with; the message says how."""


def read_plain(body: str) -> Answer:
    """Read a JSON body. Raises ``UnreadableAnswer``."""
    data = _load(body)
    return Answer(choices=tuple(_choice(item) for item in _choice_list(data)), usage=_usage(data))


def read_stream(lines: Iterable[str]) -> Answer:
    """Read server-sent events, joining the pieces of each index. Raises ``UnreadableAnswer``.

    A stream that does not reach ``[DONE]``, or carries an error, is ``broken``.
    """
    pieces: dict[int | None, list[Choice]] = {}
    usage: dict[str, Any] | None = None
    broken: str | None = None
    code: int | None = None
    done = False
    for line in lines:
        if not line.startswith("data:"):
            continue
        payload = line.removeprefix("data:").strip()
        if payload == "[DONE]":
            done = True
            break
        event = _load(payload)
        if isinstance(event.get("error"), dict):
            broken = one_line(str(event["error"].get("message")), 200)
            found = event["error"].get("code")
            code = found if isinstance(found, int) else None
            continue
        usage = _usage(event) or usage
        for item in _choice_list(event):
            piece = _choice(item)
            pieces.setdefault(piece.index, []).append(piece)
    if not done and broken is None:
        broken = "it ended without [DONE]"
    choices = tuple(
        Choice(
            index=index,
            finish_reason=next((p.finish_reason for p in parts if p.finish_reason), None),
            content="".join(part.content for part in parts),
            logprobs=any(part.logprobs for part in parts),
        )
        for index, parts in pieces.items()
        # chat opens every choice with a piece that holds its role alone: nothing generated yet
        if any(part.content or part.finish_reason for part in parts)
    )
    return Answer(choices=choices, usage=usage, broken=broken, broken_code=code)


def failure_of(answer: Answer, n: int, *, logprobs: bool = False) -> tuple[FailureKind, str] | None:
    """What is wrong with ``answer`` to a request for ``n`` choices; ``None`` when nothing is.

    With ``logprobs`` each choice must carry some.
    """
    got = len(answer.choices)
    if answer.broken is not None:
        return FailureKind.BROKEN_STREAM, f"the stream broke off: {answer.broken}"
    if got != n:
        kind = FailureKind.CHOICES_MISSING if got < n else FailureKind.CHOICES_SURPLUS
        return kind, f"returned {got} of {n} choices" if got < n else f"returned {got} for {n}"
    indices = [choice.index for choice in answer.choices]
    if sorted(indices, key=str) != sorted(range(n), key=str):
        shown = ", ".join(map(str, indices[:16])) + (", …" if n > 16 else "")
        return FailureKind.WRONG_INDICES, f"choice indices are {shown} instead of 0 to {n - 1}"
    unfinished = sum(not choice.finish_reason for choice in answer.choices)
    if unfinished:
        return FailureKind.NO_FINISH_REASON, f"{unfinished} of {n} choices have no finish reason"
    bare = sum(not choice.logprobs for choice in answer.choices) if logprobs else 0
    if bare:
        return FailureKind.NO_LOGPROBS, f"{bare} of {n} choices have no logprobs"
    return None


def _load(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableAnswer(f"not JSON: {one_line(text, 120)}") from None
    if not isinstance(data, dict):
        raise UnreadableAnswer(f"not a JSON object: {one_line(text, 120)}")
    return data


def _choice_list(data: dict[str, Any]) -> list[dict[str, Any]]:
    choices = data.get("choices")
    if not isinstance(choices, list) or not all(isinstance(item, dict) for item in choices):
        raise UnreadableAnswer(f"no list of choices in {one_line(json.dumps(data), 120)}")
    return choices


def _usage(data: dict[str, Any]) -> dict[str, Any] | None:
    usage = data.get("usage")
    return usage if isinstance(usage, dict) else None


def _choice(item: dict[str, Any]) -> Choice:
    index = item.get("index")
    reason = item.get("finish_reason")
    return Choice(
        index=index if type(index) is int else None,
        finish_reason=str(reason) if reason is not None else None,
        content=_content(item),
        logprobs=_has_logprobs(item.get("logprobs")),
    )


def _has_logprobs(value: object) -> bool:
    """Whether there is a list of them, under the name that the endpoint gives it."""
    if not isinstance(value, dict):
        return False
    return any(isinstance(value.get(key), list) for key in ("content", "token_logprobs"))


def _content(item: dict[str, Any]) -> str:
    """The text of a choice, or its token ids where the endpoint gives no text."""
    for part in (item.get("message"), item.get("delta")):
        if isinstance(part, dict):
            return "".join(
                str(part[key])
                for key in ("reasoning", "reasoning_content", "content")
                if part.get(key)
            )
    if item.get("text") is not None:
        return str(item["text"])
    tokens = item.get("token_ids")
    return " ".join(map(str, tokens)) + " " if isinstance(tokens, list) else ""
