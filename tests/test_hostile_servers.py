"""Servers that answer with anything: each is judged as what it is, and none fills the memory."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from standin.scripted import Asked, Reply, ScriptedServer
from vbisect.connections import following, new_client
from vbisect.errors import UsageError
from vbisect.launch.readiness import Ready, wait_until_ready
from vbisect.launch.signs import Counters
from vbisect.probes import FailureKind, NChoicesProbe, NChoicesSettings, NoResponse, ProbeTarget
from vbisect.probes.answers import Answer, UnreadableAnswer, read_stream
from vbisect.reasons import SkipReason, Untestable
from vbisect.run.hub import hub_config

CHAT = "/v1/chat/completions"
STREAM = (Path(__file__).parent / "data" / "answers" / "0.32.0-chat-stream.txt").read_text()
PAYLOADS = re.findall(r"^data: (.*)$", STREAM, re.MULTILINE)
HTML = "<!DOCTYPE html><html><body>\n\n<h1>It works</h1></body></html>"
MUCH = 64 << 20
"""Bytes; many times what any of these answers may have."""


def events(*payloads: str, between: str = "") -> str:
    """A stream of ``payloads``, with something ``between`` the events."""
    return between + between.join(f"data: {payload}\n\n" for payload in payloads)


def lines_of(payload: str) -> str:
    """An event whose JSON is spread over several lines."""
    return "".join(f"data:{part}\n" for part in payload.replace(",", ",\n").split("\n")) + "\n"


def named(name: str) -> str:
    """The stream, with this name for every event but the last."""
    return STREAM.replace("data: {", f"event: {name}\ndata: {{")


LEGAL = {
    "as it came": STREAM,
    "CR alone": STREAM.replace("\n", "\r"),
    "CR and LF": STREAM.replace("\n", "\r\n"),
    "each end in turn": STREAM.replace("}\n\n", "}\r\n\r", 3),
    "no space": STREAM.replace("data: ", "data:"),
    "several lines": "".join(map(lines_of, PAYLOADS)),
    "byte order mark": "\ufeff" + STREAM,
    "comments": events(*PAYLOADS, between=": ping - 2026-11-30 12:00:00\n\n:\n"),
    "pings": events(*PAYLOADS, between="event: ping\ndata: 12:00\n\n"),
    "pings of JSON": events(*PAYLOADS, between='event: ping\ndata: {"type": "ping"}\n\n'),
    "ids": events(*PAYLOADS, between="id: 7\nretry: 3000\n\n"),
    "empty events": events(*PAYLOADS, between="\n\ndata:\n\ndata\n\n"),
    "fields of its own": events(*PAYLOADS, between="colour: blue\n"),
    "named message": named("message"),
    "named otherwise": named("chat.completion.chunk"),
    "no line end at its end": STREAM.rstrip(),
    "one line end at its end": STREAM.rstrip() + "\r",
    "more after its end": STREAM + 'data: {"error": {"message": "late"}}\n\n<html>',
    "no error": STREAM.replace('"choices"', '"error": null, "choices"'),
}
NO_STREAM = {
    "nothing": "",
    "a page": HTML,
    "a plain answer": '{"choices": [{"index": 0, "message": {"content": "a"}}]}',
    "comments alone": ": ping\n\n" * 9,
    "pings alone": "event: ping\ndata: 1\n\n" * 9,
    "an event without its end": "data: {}",
    "line ends alone": "\r\n" * 1_000_000,
    "one line": "x" * 1_000_000,
    "zeros": "\0" * 1000,
}


def observed(reply: Reply, directory: Path, *, stream: bool, n: int = 2) -> Any:
    """What the probe makes of a server that gives this answer."""
    with ScriptedServer() as server:
        server.on(CHAT, reply)
        target = ProbeTarget(server.url, "m", "0.32.0", directory, directory)
        return NChoicesProbe(NChoicesSettings(n=(n,), stream=stream)).observe(target)


@pytest.mark.parametrize("name", LEGAL)
def test_every_legal_stream_is_read(name: str, tmp_path: Path) -> None:
    """However it is written down: the same stream passes."""
    seen = observed(Reply(200, LEGAL[name]), tmp_path, stream=True)
    assert seen.passed, seen.signature
    assert read_stream(LEGAL[name]) == read_stream(STREAM)


@pytest.mark.parametrize("name", NO_STREAM)
def test_what_holds_no_event_is_no_stream(name: str, tmp_path: Path) -> None:
    """Whatever answered so said nothing about the bug: a skip, never a failure."""
    with pytest.raises(NoResponse, match=r"^the answer is no stream of events") as skipped:
        observed(Reply(200, NO_STREAM[name]), tmp_path, stream=True)
    assert skipped.value.otherwise is SkipReason.SERVER_ERROR
    assert str(skipped.value).isprintable()


def test_a_page_in_place_of_a_stream_is_told_as_a_server_error() -> None:
    with ScriptedServer() as server:
        server.on("/v1/models", Reply(200, {"data": [{"id": "m"}]}))
        server.on(CHAT, Reply(200, HTML, {"content-type": "text/html"}))
        command = [sys.executable, "-m", "vbisect", "probe", server.url, "--stream", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    told = json.loads(done.stdout)
    assert (done.returncode, told["outcome"], told["reason"]) == (3, "skip", "server error")
    assert told["detail"].startswith("the answer is no stream of events: <!DOCTYPE html>")


ERRORS: dict[str, Callable[[object], str]] = {
    "fields": lambda code: f"data: {json.dumps({'error': {'message': 'too hot', 'code': code}})}",
    "fields beside choices": lambda code: (
        f"data: {json.dumps({'choices': [], 'error': {'message': 'too hot', 'code': code}})}"
    ),
    "as vLLM wrote them": lambda code: (
        f"data: {json.dumps({'object': 'error', 'message': 'too hot', 'code': code})}"
    ),
    "by name": lambda code: (
        f"event: error\ndata: {json.dumps({'message': 'too hot', 'code': code})}"
    ),
    "by name, within": lambda code: (
        f"event: error\ndata: {json.dumps({'error': {'detail': 'too hot', 'code': code}})}"
    ),
}
SENTENCES = {
    "a sentence": 'data: {"error": "too hot"}',
    "a sentence by name": "event: error\ndata: too hot",
    "JSON by name": 'event: error\ndata: "too hot"',
}


@pytest.mark.parametrize("place", ["first", "later"])
@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("code", [400, "422", 500, None, "overheated", True])
def test_an_error_in_a_stream_is_one_in_every_shape(
    name: str, code: object, place: str, tmp_path: Path
) -> None:
    """A status of the 400s is a refusal; any other error breaks the stream off."""
    body = events(*PAYLOADS[:5]) if place == "later" else ""
    body += f"{ERRORS[name](code)}\n\n" + 'data: {"error": {"message": "then", "code": 500}}\n\n'
    reply = Reply(200, body + "data: [DONE]\n\n")
    if code in (400, "422"):
        with pytest.raises(Untestable, match=f"HTTP {code}: too hot") as skipped:
            observed(reply, tmp_path, stream=True)
        assert skipped.value.reason is SkipReason.REQUEST_REJECTED
    else:
        seen = observed(reply, tmp_path, stream=True)
        assert (seen.passed, seen.kind) == (False, FailureKind.BROKEN_STREAM)
        assert seen.signature == "the stream broke off: too hot"


@pytest.mark.parametrize("name", SENTENCES)
def test_an_error_may_be_a_sentence(name: str, tmp_path: Path) -> None:
    body = f"{events(*PAYLOADS[:5])}{SENTENCES[name]}\n\ndata: [DONE]\n\n"
    seen = observed(Reply(200, body), tmp_path, stream=True)
    assert (seen.kind, "too hot" in seen.signature) == (FailureKind.BROKEN_STREAM, True)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, HTML),
        Reply(200, "[" * 500_000),
        Reply(200, '{"choices": [' * 200_000),
        Reply(200, {"error": {"message": "no", "code": 500}}),
        Reply(200, {"choices": {"0": {}}}),
        Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{"),
        Reply(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        Reply(raw=b"HTTP/1.1 2000 Yes\r\n\r\n"),
        Reply(raw=b"SSH-2.0-OpenSSH_9.6\r\n"),
        Reply(raw=b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50_000 + b"\r\n"),
        Reply(raw=b""),
        Reply(500, HTML),
        Reply(503, "\x1b[2J\x00" * 1000),
    ],
    ids=lambda reply: str((reply.raw or reply.content)[:30]),
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_answer_is_no_verdict(reply: Reply, stream: bool, tmp_path: Path) -> None:
    with pytest.raises(NoResponse) as skipped:
        observed(reply, tmp_path, stream=stream)
    assert str(skipped.value).isprintable()
    assert len(str(skipped.value)) < 500


Fields = st.sampled_from(["data", "data:", "data: ", "event: ", "event: error", ":", "id: ", "x: "])
Contents = (
    st.sampled_from(["[DONE]", "{}", '{"choices": []}', '{"error": 1}', '{"error": {"code": 4}}'])
    | st.sampled_from(PAYLOADS)
    | st.text(max_size=5)
)
Ends = st.sampled_from(["\n", "\r", "\r\n", "\n\n", "\r\r", ""])


@given(st.lists(st.tuples(Fields, Contents, Ends).map("".join), max_size=20).map("".join))
def test_any_text_is_a_stream_or_none(text: str) -> None:
    """Never anything else than an answer, or a plain word that it is none."""
    with contextlib.suppress(UnreadableAnswer):
        assert isinstance(read_stream(text), Answer)


@given(st.sets(st.integers(0, len(STREAM))))
def test_line_ends_of_every_kind_may_be_mixed(places: set[int]) -> None:
    text = "".join(
        "\r" if c == "\n" and i in places and STREAM[i : i + 2] != "\n\n" else c
        for i, c in enumerate(STREAM)
    )
    assert read_stream(text) == read_stream(STREAM)


# What a server says of itself


def ready(server: ScriptedServer, directory: Path) -> Ready:
    """What is found out about a server that just started."""
    return wait_until_ready(
        server.url, directory / "log", lambda: None, Counters, 60, threading.Event()
    )


PADDED = {"data": [{"id": "m"}], "version": "0.32.0", "more": "x" * MUCH}


@pytest.mark.parametrize(
    ("path", "reply", "said"),
    [
        ("/v1/models", Reply(200, PADDED), "/v1/models gave no model: more than 1 MiB"),
        ("/version", Reply(200, PADDED), "/version gave no version: more than 1 MiB"),
        ("/v1/models", Reply(200, "[" * 500_000), "/v1/models gave no model: maximum recursion"),
        ("/version", Reply(200, "[" * 500_000), "/version gave no version: maximum recursion"),
        ("/v1/models", Reply(200, {"data": [{"id": None}]}), "its name cannot be sent back"),
        ("/v1/models", Reply(200, {"data": [{"id": "a\r\nb"}]}), "its name cannot be sent back"),
        ("/v1/models", Reply(200, HTML), "/v1/models gave no model"),
        ("/version", Reply(200, "[]"), "/version gave no version"),
        (
            "/version",
            Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
            "gave no version",
        ),
    ],
    ids=range(9),
)
def test_a_ready_server_may_say_anything_of_itself(
    path: str, reply: Reply, said: str, tmp_path: Path
) -> None:
    """A skip with its reason; an answer of any size is not read into memory."""
    with ScriptedServer() as server:
        server.on("/health", Reply(200, b"x" * MUCH))
        server.on("/v1/models", Reply(200, {"data": [{"id": "m"}]}))
        server.on("/version", Reply(200, {"version": "0.32.0"}))
        assert ready(server, tmp_path) == Ready("m", "0.32.0")
        server.on(path, reply)
        with pytest.raises(Untestable, match=re.escape(said)):
            ready(server, tmp_path)


# The hub

CONFIG = "/org/model/resolve/main/config.json"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server in place of the hub."""
    with ScriptedServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_" + "aB3" * 10)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(200, {"model_type": "m", "more": "x" * MUCH}), "it has more than 4 MiB"),
        (Reply(200, HTML), "it is not JSON"),
        (Reply(200, "[" * 500_000), "it is not JSON"),
        (Reply(200, b"\xff\xfe\x00"), "it is not JSON"),
        (Reply(200, "[]"), "is not a model's configuration"),
        (Reply(404, HTML), "HTTP 404"),
        (Reply(302, headers={"location": CONFIG}), "what answers there does not keep to HTTP"),
        (Reply(302, headers={"location": "gopher://x/"}), "does not keep to HTTP"),
        (Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), "does not keep to HTTP"),
    ],
    ids=range(9),
)
def test_a_hub_may_answer_with_anything(hub: ScriptedServer, reply: Reply, said: str) -> None:
    """One line that says what is wrong with it."""
    hub.on(CONFIG, reply)
    with pytest.raises(UsageError, match=re.escape(said)) as told:
        hub_config("org/model")
    assert str(told.value).isprintable()


def test_a_model_that_moved_is_found_and_the_token_stays(hub: ScriptedServer) -> None:
    """The hub renames models; where it sends to another host, that one is not told the token."""
    with ScriptedServer() as elsewhere:
        hub.on(CONFIG, Reply(307, headers={"location": "/new" + CONFIG}))
        hub.on("/new" + CONFIG, Reply(302, headers={"location": elsewhere.url + "/file"}))
        elsewhere.on("/file", Reply(200, {"model_type": "m"}))
        assert hub_config("org/model") == {"model_type": "m"}
        assert all(
            asked.headers["authorization"].startswith("Bearer hf_") for asked in hub.requests
        )
        assert "authorization" not in elsewhere.requests[0].headers


@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_ENDPOINT", "http://x:y:z"), ("HF_ENDPOINT", "no"), ("HF_TOKEN", "hunter\N{SNOWMAN}")],
)
def test_settings_of_the_hub_may_be_anything(
    hub: ScriptedServer, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"--skeleton needs config\.json of org/model") as told:
        hub_config("org/model")
    assert "hunter" not in str(told.value)


def test_what_a_redirect_holds_is_not_read() -> None:
    """It is of no use, and may have no end."""
    sent: list[Asked] = []

    def first(asked: Asked) -> Reply:
        sent.append(asked)
        return Reply(302, b"", {"location": "/there", "content-length": str(MUCH)})

    with ScriptedServer() as server:
        server.on("/here", first)
        server.on("/there", Reply(200, b"found"))
        with new_client(direct=True, connect=60, read=60) as client:
            asked = client.build_request("GET", f"{server.url}/here")
            with following(client, asked) as response:
                assert response.read() == b"found"
    assert len(sent) == 1
