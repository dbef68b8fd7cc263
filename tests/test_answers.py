"""Answers of the three endpoints: real ones read right, arbitrary ones never pass by mistake."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vbisect.probes import FailureKind, NoResponse
from vbisect.probes.answers import (
    Answer,
    Choice,
    UnreadableAnswer,
    failure_of,
    read_plain,
    read_stream,
)
from vbisect.probes.exchange import Reply
from vbisect.probes.n_choices import read
from vbisect.reasons import Untestable

DATA = Path(__file__).parent / "data" / "answers"
ENDPOINTS = ("chat", "completions", "generate")
VERSIONS = ("0.28.0", "0.32.0")
STREAMS = [f"{v}-{e}-stream" for v in VERSIONS for e in ENDPOINTS]
WHOLE = [name for name in STREAMS if name != "0.28.0-generate-stream"]
"""Streams without the bug; 0.28.0's own ``generate`` breaks off."""


def sample(name: str) -> bytes:
    """What a real server answered."""
    return (DATA / f"{name}.txt").read_bytes()


def answer(body: str | bytes, *, status: int = 200, stream: bool = False) -> Answer:
    """``body`` as the probe reads it off a response."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    return read(Reply(status, text), stream)


def events(*payloads: Any, done: bool = True) -> str:
    """A stream of ``payloads``."""
    lines = [f"data: {json.dumps(payload, ensure_ascii=False)}\n\n" for payload in payloads]
    return "".join(lines) + ("data: [DONE]\n\n" if done else "")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_real_plain_answers(version: str, endpoint: str) -> None:
    """Two choices were asked for; 0.28.0's ``generate`` is the known bug and returns one."""
    got = answer(sample(f"{version}-{endpoint}"))
    assert all(choice.content and choice.finish_reason for choice in got.choices)
    assert got.usage is not None
    if (version, endpoint) == ("0.28.0", "generate"):
        assert failure_of(got, 2) == (FailureKind.CHOICES_MISSING, "returned 1 of 2 choices")
    else:
        assert failure_of(got, 2) is None


@pytest.mark.parametrize("name", WHOLE)
def test_real_streams(name: str) -> None:
    """A streamed answer is as whole as a plain one: two choices, finished, with their text."""
    got = answer(sample(name), stream=True)
    assert failure_of(got, 2) is None
    assert all(choice.content for choice in got.choices)
    assert failure_of(got, 3) == (FailureKind.CHOICES_MISSING, "returned 2 of 3 choices")


def test_a_real_stream_that_breaks_off() -> None:
    """0.28.0 ends a stream with an error of its own: a failure, with the server's words."""
    found = failure_of(answer(sample("0.28.0-generate-stream"), stream=True), 2)
    assert found == (
        FailureKind.BROKEN_STREAM,
        "the stream broke off: list index out of range",
    )


def test_the_bug_and_its_fix_for_eight() -> None:
    """The first index is lost in 0.28.0 and is there in 0.32.0."""
    broken, fixed = answer(sample("0.28.0-generate-n8")), answer(sample("0.32.0-generate-n8"))
    assert failure_of(broken, 8) == (FailureKind.CHOICES_MISSING, "returned 7 of 8 choices")
    assert failure_of(fixed, 8) is None


def test_usage_at_the_end_of_a_stream_is_kept() -> None:
    """The last event holds the usage and no choices."""
    got = answer(sample("0.28.0-chat-stream-usage"), stream=True)
    assert failure_of(got, 2) is None
    assert got.usage is not None
    assert got.usage["completion_tokens"] > 0


def test_an_error_within_a_stream_is_told_from_a_refusal() -> None:
    """A code of the 400s inside a stream refuses the request; any other code breaks it off."""
    piece = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    error = {"error": {"message": "n must be 1", "code": 400}}
    with pytest.raises(Untestable, match="HTTP 400: n must be 1"):
        answer(events(piece, error), stream=True)
    error["error"]["code"] = 500
    broken = failure_of(answer(events(piece, error), stream=True), 1)
    assert broken == (FailureKind.BROKEN_STREAM, "the stream broke off: n must be 1")


@pytest.mark.parametrize("ping", [{}, {"type": "ping"}, {"usage": None}])
def test_a_ping_without_a_name_is_no_part_of_the_answer(ping: dict[str, Any]) -> None:
    """Wherever it comes; alone it is no answer."""
    piece = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    for payloads in ((ping, piece), (piece, ping), (ping, piece, ping)):
        assert failure_of(answer(events(*payloads), stream=True), 1) is None
    with pytest.raises(NoResponse, match="no list of choices"):
        answer(events(ping), stream=True)


@pytest.mark.parametrize("data", ["", "data:\n", "data: \n", "data: {}\n"])
def test_an_error_without_a_word_is_one(data: str) -> None:
    """It is named by its event alone."""
    piece = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    text = events(piece, done=False) + f"event: error\n{data}\n" + "data: [DONE]\n\n"
    assert failure_of(answer(text, stream=True), 1) == (
        FailureKind.BROKEN_STREAM,
        "the stream broke off: an error without a word",
    )


Indices = st.none() | st.integers(-2, 9)
Choices = st.builds(
    Choice,
    index=Indices,
    finish_reason=st.sampled_from([None, "", "stop", "length"]),
    content=st.text(max_size=3),
)


@st.composite
def nearly_whole(draw: st.DrawFn) -> list[Choice]:
    """The choices of a right answer, with at most two things wrong."""
    count = draw(st.integers(1, 9))
    choices = [Choice(index=i, finish_reason="stop", content="a") for i in range(count)]
    for place in draw(st.lists(st.integers(0, count - 1), max_size=2)):
        choices[place] = draw(Choices)
    return choices


@given(nearly_whole() | st.lists(Choices, max_size=9), st.integers(1, 9))
def test_only_exactly_n_finished_choices_pass(choices: list[Choice], n: int) -> None:
    """Nothing is wrong if and only if every index from 0 to n-1 is there once and finished."""
    whole = {choice.index for choice in choices if choice.finish_reason} == set(range(n))
    found = failure_of(Answer(choices=tuple(choices)), n)
    assert (found is None) == (whole and len(choices) == n)


@given(st.permutations(range(12)), st.integers(1, 12), st.sampled_from(["plain", "stream"]))
def test_choices_pass_in_any_order(order: Sequence[int], n: int, how: str) -> None:
    """Servers answer in the order in which choices finish."""
    items = [{"index": i, "text": f"{i}", "finish_reason": "stop"} for i in order if i < n]
    if how == "plain":
        got = answer(json.dumps({"choices": items}))
    else:
        got = answer(events(*({"choices": [item]} for item in items)), stream=True)
    assert failure_of(got, n) is None
    assert failure_of(got.model_copy(update={"broken": "it ended"}), n) is not None


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "index", "finish_reason", "message", "delta", "text", "usage"]
            )
            | st.text(max_size=2),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
LikeAnswers = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.dictionaries(
                st.sampled_from(
                    ["index", "delta", "message", "text", "finish_reason", "token_ids"]
                ),
                Json,
                max_size=4,
            ),
            max_size=3,
        )
        | Json
    },
    optional={"usage": Json, "error": Json},
)


@given(Json | LikeAnswers)
@example({"choices": [], "usage": "many"})
@example({"choices": [{"index": 0, "finish_reason": "stop", "text": "a"}], "usage": [1]})
def test_any_json_is_read_or_unreadable(data: Any) -> None:
    """Whatever JSON a server answers with, plain or streamed, it is an answer or unreadable."""
    text = json.dumps(data)
    for stream in (False, True):
        got: Answer | None = None
        with contextlib.suppress(UnreadableAnswer):
            got = read_stream(events(data)) if stream else read_plain(text)
        assert got is None or failure_of(got, 4) is not None, "no such answer has four choices"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        "<html>",
        '{"choices": null}',
        '{"choices": [1]}',
        "[" * 100_000,
        '{"choices":' + "[" * 100_000,
        "\x00",
        "9" * 10_000,
    ],
    ids=lambda body: str(body)[:14],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bodies_of_another_kind_are_unreadable(body: str, stream: bool) -> None:
    """A body that is no answer is a skip with its reason, never a verdict."""
    with pytest.raises(NoResponse) as silence:
        answer(f"data: {body}\n\n" if stream else body, stream=stream)
    assert silence.value.detail.startswith("the answer is n")
    assert len(silence.value.detail) < 400


@pytest.mark.parametrize("index", [True, 0.0, "0", None, [0]])
def test_an_index_is_a_whole_number(index: object) -> None:
    """What merely equals an index is a wrong one."""
    item = {"index": index, "text": "a", "finish_reason": "stop"}
    other = {"index": 1 if index is not True else 0, "text": "a", "finish_reason": "stop"}
    found = failure_of(answer(json.dumps({"choices": [item, other]})), 2)
    assert found is not None
    assert found[0] is FailureKind.WRONG_INDICES


@pytest.mark.parametrize("name", STREAMS)
def test_streams_cut_anywhere_never_pass(name: str) -> None:
    """However many bytes of a real stream arrive, without its end it is broken or unreadable."""
    whole = sample(name)
    end = whole.index(b"data: [DONE]") + len(b"data: [DONE]")
    # every byte near an event's edge, and a few within
    cuts = {c for c in range(end) if c % 23 == 0 or b"\n\n" in whole[max(c - 12, 0) : c + 12]}
    assert len(cuts) > 20
    for cut in cuts:
        try:
            got = read_stream(whole[:cut].decode("utf-8", errors="replace"))
        except UnreadableAnswer:
            continue
        found = failure_of(got, 2)
        assert found is not None
        assert found[0] is FailureKind.BROKEN_STREAM


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\x0c"])
def test_separators_inside_json_do_not_end_a_line(separator: str) -> None:
    """JSON may hold what Python takes for the end of a line; an event ends at a newline only."""
    text = f"a{separator}data: [DONE]{separator}b"
    piece = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    if separator < " ":
        body = events(piece).replace(json.dumps(separator)[1:-1], separator)
        with pytest.raises(NoResponse):  # raw control characters are no JSON
            answer(body, stream=True)
        body = events(json.loads(json.dumps(piece)))
    else:
        body = events(piece)
        assert separator in body
    got = answer(body, stream=True)
    assert got.choices[0].content == text
    assert failure_of(got, 1) is None


def test_a_choice_that_was_only_opened_is_missing() -> None:
    """Chat opens every choice with its role; one that brings nothing more was not generated."""
    opened = [
        {"choices": [{"index": i, "delta": {"role": "assistant", "content": ""}}]} for i in (0, 1)
    ]
    first = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    found = failure_of(answer(events(*opened, first), stream=True), 2)
    assert found == (FailureKind.CHOICES_MISSING, "returned 1 of 2 choices")


def test_reasoning_counts_as_text() -> None:
    """A choice that only reasoned was generated all the same, under either name of the field."""
    for key in ("reasoning", "reasoning_content"):
        message = {"content": None, key: "hm"}
        item = {"index": 0, "message": message, "finish_reason": "length"}
        assert answer(json.dumps({"choices": [item]})).choices[0].content == "hm"
