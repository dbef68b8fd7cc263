"""Requests of the default probe say everything; what a server refuses is a skip, not a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vbisect.probes import Endpoint, NChoicesProbe, NChoicesSettings, NoResponse
from vbisect.probes.exchange import Reply
from vbisect.probes.n_choices import read
from vbisect.reasons import SkipReason, Untestable

DATA = Path(__file__).parent / "data" / "answers"


def refused(body: str | bytes, status: int) -> None:
    """A response of this status, as the probe reads it."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    read(Reply(status, text), stream=False)


@pytest.mark.parametrize(
    ("name", "status", "reason", "words"),
    [
        ("chat-unknown-model", 404, SkipReason.REQUEST_REJECTED, "`nonesuch` does not exist"),
        ("chat-temperature0", 400, SkipReason.REQUEST_REJECTED, "n must be 1 when using greedy"),
        ("chat-bad-body", 400, SkipReason.REQUEST_REJECTED, "1 validation error: {'type'"),
        ("generate-temperature0", 400, SkipReason.REQUEST_REJECTED, "n must be 1"),
        ("unknown-endpoint", 404, SkipReason.ENDPOINT_NOT_SERVED, "Not Found"),
        ("generate-not-enabled", 403, SkipReason.ENDPOINT_NOT_SERVED, "--enable-scale-out"),
    ],
)
def test_real_refusals_are_skips(name: str, status: int, reason: SkipReason, words: str) -> None:
    """Only the bug counts as a failure: a refusal is a skip that quotes the server."""
    version = "0.32.0" if name == "generate-not-enabled" else "0.28.0"
    with pytest.raises(Untestable) as skip:
        refused((DATA / f"{version}-error-{name}.txt").read_bytes(), status)
    assert skip.value.reason is reason
    assert skip.value.detail.startswith(f"HTTP {status}: ")
    assert words in skip.value.detail
    assert skip.value.detail.isprintable()


def test_server_errors_leave_the_verdict_to_the_process() -> None:
    """A 5xx is neither pass nor fail until it is known whether the server died."""
    with pytest.raises(NoResponse) as silence:
        refused('{"error": {"message": "boom"}}', 500)
    assert silence.value.otherwise is SkipReason.SERVER_ERROR
    assert silence.value.detail == "HTTP 500: boom"


@pytest.mark.parametrize("body", ["", "<html>", "[" * 100_000, '{"error": "x"}', '{"error": [1]}'])
def test_error_bodies_of_any_kind_are_quoted(body: str) -> None:
    """What cannot be read for its message is quoted as it is."""
    with pytest.raises(NoResponse) as silence:
        refused(body, 503)
    assert silence.value.detail.startswith("HTTP 503: ")
    assert len(silence.value.detail.splitlines()) == 1


@pytest.mark.parametrize("endpoint", Endpoint)
@pytest.mark.parametrize("stream", [False, True])
def test_request_bodies_say_everything_explicitly(endpoint: Endpoint, stream: bool) -> None:
    """Whatever a model's own generation_config says, sampling is as vbisect was told."""
    settings = NChoicesSettings(endpoint=endpoint, stream=stream, image="data:image/png;base64,AA")
    body = NChoicesProbe(settings).request_body("m", 16)
    sampling = body["sampling_params"] if endpoint is Endpoint.GENERATE else body
    wanted = {"n": 16, "temperature": 0.7, "top_p": 0.9, "max_tokens": 16}
    assert {key: sampling[key] for key in wanted} == wanted
    assert body["model"] == "m"
    assert body.get("stream", False) is stream
    assert ("image_url" in json.dumps(body)) == (endpoint is Endpoint.CHAT)
    asked = {Endpoint.CHAT: "messages", Endpoint.COMPLETIONS: "prompt"}.get(endpoint, "token_ids")
    assert body[asked]


def test_a_chat_without_an_image_is_plain_text() -> None:
    """Old servers of text models take a string as content, not a list of parts."""
    body = NChoicesProbe(NChoicesSettings()).request_body("m", 2)
    assert isinstance(body["messages"][0]["content"], str)
