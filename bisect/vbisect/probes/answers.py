"""Read the answers of the three endpoints, plain and streamed, into one shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent
from pydantic import BaseModel, ConfigDict

from vbisect.probes.interface import FailureKind
from vbisect.text import one_line

_PIECE_BYTES = 1 << 16
_UNTOLD = "an error without a word"
_EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8"}


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


class Problem(BaseModel):
    """The error that an answer tells of: a sentence, and the status where it names one."""

    model_config = ConfigDict(frozen=True)

    message: str
    code: int | None = None


class UnreadableAnswer(Exception):
    """The body is not what this endpoint answers with; the message says how."""


def read_plain(body: str) -> Answer:
    """Read a JSON body. Raises ``UnreadableAnswer``."""
    data = _load(body)
    return Answer(choices=tuple(_choice(item) for item in _choice_list(data)), usage=_usage(data))


def read_stream(text: str) -> Answer:
    """Read server-sent events, joining the pieces of each index. Raises ``UnreadableAnswer``.

    A stream that does not reach ``[DONE]``, or carries an error, is ``broken``; one without a
    single event is no stream. Objects without choices, as in a ping, are left out where there are
    others.
    """
    pieces: dict[int | None, list[Choice]] = {}
    usage: dict[str, Any] | None = None
    broken: str | None = None
    code: int | None = None
    done = seen = answered = False
    other: dict[str, Any] | None = None
    for event in _events(text):
        seen = True
        if event.data.strip() == "[DONE]":
            done = True
            break
        chunk = _chunk(event)
        problem = problem_of(chunk)
        if problem is not None:
            if broken is None:  # what follows an error follows from it
                broken, code = problem.message, problem.code
            continue
        usage = _usage(chunk) or usage
        if "choices" not in chunk:
            other = chunk
            continue
        answered = True
        for item in _choice_list(chunk):
            piece = _choice(item)
            pieces.setdefault(piece.index, []).append(piece)
    if not seen:
        raise UnreadableAnswer(f"no stream of events: {one_line(text, 120)}")
    if other is not None and not answered and broken is None:
        _choice_list(other)
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


def problem_of(data: dict[str, Any]) -> Problem | None:
    """The error in a JSON object, in any shape that servers give it, if there is one.

    Those are ``error`` with fields or a sentence, and vLLM's fields at the top level.
    """
    inner = data if data.get("object") == "error" else data.get("error")
    if not inner:
        return None
    if not isinstance(inner, dict):
        return Problem(message=one_line(str(inner)))
    found = inner.get("message") or inner.get("detail") or json.dumps(inner)
    try:
        code = int(str(inner.get("code")))
    except ValueError:
        code = None
    return Problem(message=one_line(str(found)), code=code)


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


def _events(text: str) -> Iterator[ServerSentEvent]:
    """The events with data for us: pings, comments and a server's own notes are left out."""
    text = text.removeprefix("\ufeff")
    if text.rstrip().endswith("[DONE]"):
        text += "\n\n"  # an event counts from the blank line after it on; this one ends all
    body = text.encode()
    # in pieces, or an answer of nothing but line ends would be a list of them all at once
    pieces = (body[at : at + _PIECE_BYTES] for at in range(0, len(body), _PIECE_BYTES))
    whole = httpx.Response(200, headers=_EVENT_STREAM, content=pieces)
    for event in EventSource(whole).iter_sse():
        ours = event.event in ("message", "error") or '"choices"' in event.data
        if ours and (event.data or event.event == "error"):
            yield event


def _chunk(event: ServerSentEvent) -> dict[str, Any]:
    """The object in an event; whatever an event by the name of error holds is an error."""
    if event.event != "error":
        return _load(event.data)
    try:
        data = _load(event.data)
    except UnreadableAnswer:
        return {"error": event.data.strip() or _UNTOLD}
    return data if problem_of(data) else {"error": data or _UNTOLD}


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
