"""`vbisect probe` against servers that run already: exit codes, what is told, and the metrics."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from standin.behaviour import Behaviour
from standin.running import Running, Servers
from standin.scripted import Asked, Reply, ScriptedServer
from standin.wheels import write_package
from vbisect.errors import UsageError
from vbisect.probes import NChoicesProbe, NChoicesSettings, ProbeTarget
from vbisect.reasons import SkipReason
from vbisect.run.records import Tally, VariationRecord
from vbisect.search import Outcome
from vbisect.watch.address import Address
from vbisect.watch.metrics import MOST_SIGNATURES, Metrics
from vbisect.watch.sighting import Sighting

KEY = "sk-local-0123456789abcdef"


class World:
    """Stand-in servers, and the command to look at them with."""

    def __init__(self, directory: Path, servers: Servers) -> None:
        self._directory, self._servers = directory, servers
        self._packages = 0

    def server(self, behaviour: Behaviour, version: str = "0.30.0") -> Running:
        """A ready server."""
        self._packages += 1
        package = write_package(self._directory / f"p{self._packages}", version, behaviour)
        model = self._directory / "model"
        model.mkdir(exist_ok=True)
        env = {"PYTHONPATH": str(package), "PATH": os.environ["PATH"]}
        command = (sys.executable, "-m", "vllm.standin_server", "serve", model)
        return self._servers.start(*command, env=env).ready()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    """Servers that end with the test."""
    with Servers(tmp_path) as servers:
        yield World(tmp_path, servers)


def environment(**changed: str) -> dict[str, str]:
    """The environment of the command: no key but the one a test gives."""
    kept = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    return kept | {"COLUMNS": "200"} | changed


def vbisect(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`vbisect probe …` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "vbisect", "probe", *words],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=300,
    )


class Watching:
    """A `vbisect probe … --every`, and the lines that it prints."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "vbisect", "probe", *words, "--json"]
        self.process = subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(300, self.process.kill)
        self._watchdog.start()

    def said(self) -> str:
        """The next line on stderr."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def until(self, outcome: str) -> dict[str, Any]:
        """The next sighting of this outcome; the test fails when it ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            seen: dict[str, Any] = json.loads(line)
            if seen["outcome"] == outcome:
                return seen
        raise AssertionError("it ended")

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.communicate()


def metrics(url: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """What is served there: value by name and by label values, ordered by the names of labels."""
    text = httpx.get(url, timeout=60, trust_env=False).text
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_exit_codes_tell_what_was_seen(made: World) -> None:
    good = made.server(Behaviour())
    done = vbisect(good.base + "/v1")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"  pass  as asked \(.* 8 choices, vLLM 0\.30\.0, model tiny\)", done.stdout)
    bad = made.server(Behaviour(fail_rate={"chat": 1.0}))
    done = vbisect(bad.base, "--n", "4", "--repeat", "2", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["outcome"]) == (1, "fail")
    assert told["observations"] == {"pass": 0, "fail": 2, "skip": 0}
    assert (told["signature"], told["choices"]) == ("returned 1 of 4 choices", 1)
    assert told["url"] == bad.base
    assert vbisect(bad.base, "--n", "1", "--model", "tiny").returncode == 0
    refused = vbisect(good.base, "--model", "other")
    assert refused.returncode == 3
    assert "request rejected: HTTP 404: The model `other` does not exist" in refused.stdout


def test_no_answer_is_told_in_a_line() -> None:
    done = vbisect("http://user:wordword@127.0.0.1:9/v1")
    assert done.returncode == 3
    assert "skip  no answer: http://127.0.0.1:9 does not answer: " in done.stdout
    assert "wordword" not in done.stdout + done.stderr
    assert done.stderr == "vbisect: no answer: Is the server running, and is this its address?\n"


def test_a_suite_asks_all_variations(made: World) -> None:
    server = made.server(Behaviour(stream_error=("chat",), quirks={"seed": "400"}))
    done = vbisect(server.base, "--suite", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["signature"].startswith("stream: the stream broke off")
    outcomes = {v["name"]: v["outcome"] for v in told["variations"]}
    assert (outcomes.pop("stream"), outcomes.pop("seed")) == ("fail", "skip")
    assert set(outcomes.values()) == {"pass"}
    assert {"n=1", "n=16", "logprobs", "n=0", "greedy", "n=16385"} == set(outcomes) - {"n=2", "n=8"}
    quiet = made.server(Behaviour(quirks={"seed": "400"}))
    done = vbisect(quiet.base, "--suite")
    assert done.returncode == 3
    assert "request rejected: seed: HTTP 400" in done.stdout


def test_a_command_is_told_the_server_and_the_key(made: World, tmp_path: Path) -> None:
    server = made.server(Behaviour())
    check = tmp_path / "check.sh"
    check.write_text(
        f'#!/bin/sh\nenv | grep -E "^(VBISECT|OPENAI)" > {tmp_path}/seen\nexit $EXIT_WITH\n'
    )
    check.chmod(0o755)
    for status, code in (("0", 0), ("7", 1), ("125", 3), ("200", 3)):
        env = {"EXIT_WITH": status, "OPENAI_API_KEY": KEY}
        done = vbisect(server.base, "--", str(check), **env)
        assert done.returncode == code, done.stdout + done.stderr
        assert KEY not in done.stdout + done.stderr
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert seen["VBISECT_BASE_URL"] == server.base
    assert (seen["VBISECT_VERSION"], seen["VBISECT_MODEL"]) == ("0.30.0", "tiny")
    assert seen["OPENAI_API_KEY"] == KEY


def test_the_key_is_sent_and_never_shown() -> None:
    def echo(asked: Asked) -> Reply:
        return Reply(400, {"error": {"message": f"bad {asked.headers.get('authorization')}"}})

    with ScriptedServer() as server:
        server.on("/v1/models", Reply(200, {"data": [{"id": "m"}]}))
        server.on("/v1/chat/completions", echo)
        done = vbisect(server.url, OPENAI_API_KEY=KEY)
        assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {KEY}"}
        with_password = server.url.replace("//", "//user:wordword@")
        second = vbisect(with_password, "--json")
        sent = {r.headers.get("authorization") for r in server.requests[-2:]}
    assert done.returncode == second.returncode == 3
    assert KEY not in done.stdout + done.stderr
    assert sent == {"Basic dXNlcjp3b3Jkd29yZA=="}
    assert json.loads(second.stdout)["url"] == server.url


def test_watching_goes_on_and_counts(made: World) -> None:
    server = made.server(Behaviour(fail_rate={"chat": 1.0}))
    words = (server.base, "--n", "4", "--every", "0.05s", "--metrics-port", "0")
    with Watching(*words) as watching:
        address = watching.said().split()[-1]
        seen = watching.until("fail")
        assert (seen["version"], seen["model"]) == ("0.30.0", "tiny")
        found = metrics(address)
        label = ("choices missing: returned N of N choices", "")
        assert found["vbisect_probe_failures_total", label] >= 1
        assert found["vbisect_probe_up", ()] == 1
        assert found["vbisect_probe_choices", ()] == 1
        assert found["vbisect_probe_server_info", ("tiny", "0.30.0")] == 1
        assert found["vbisect_probe_request_seconds_count", ()] >= 1
        assert found["vbisect_probe_last_success_timestamp_seconds", ()] == 0
        server.process.kill()
        server.process.wait()
        gone = watching.until("skip")
        assert gone["reason"] == "no answer"
        watching.until("skip")
        found = metrics(address)
        assert found["vbisect_probe_unjudged_total", ("no answer", "")] >= 1
        assert found["vbisect_probe_up", ()] == 0
        watching.process.send_signal(signal.SIGINT)
        assert watching.process.wait(300) == 0


def test_a_server_that_comes_back_is_seen_again() -> None:
    choices = [{"index": i, "finish_reason": "stop", "message": {"content": "x"}} for i in range(2)]
    with ScriptedServer() as server:
        server.on("/version", Reply(200, {"version": "0.30.0"}), Reply(200, {"version": "0.31.0"}))
        server.on("/v1/models", Reply(503), Reply(200, {"data": [{"id": "m"}]}))
        server.on("/v1/chat/completions", Reply(200, {"choices": choices}))
        words = (server.url, "--n", "2", "--every", "0.05", "--metrics-port", "0")
        with Watching(*words) as watching:
            address = watching.said().split()[-1]
            assert watching.until("skip")["reason"] == "no answer"
            assert watching.until("pass")["version"] == "0.31.0"
            found = metrics(address)
            assert found["vbisect_probe_last_success_timestamp_seconds", ()] > 0
            assert found["vbisect_probe_passes_total", ("",)] >= 1
            watching.process.send_signal(signal.SIGTERM)
            assert watching.process.wait(300) == 0


def test_a_server_that_answers_some_requests_is_up() -> None:
    """It is there; that the others were not answered is told by their reasons."""
    silent = VariationRecord(name="n=16", outcome=Outcome.SKIP, reason=SkipReason.NO_ANSWER)
    good = VariationRecord(name="n=1", outcome=Outcome.PASS, observations=Tally(passes=1))
    for variations, up in (((good, silent), 1), ((silent,), 0), ((), 0)):
        told = Metrics()
        told.count(
            Sighting(
                at="2026-11-26T20:00:00+00:00",
                outcome=Outcome.SKIP,
                reason=SkipReason.NO_ANSWER,
                variations=variations,
            )
        )
        assert told.registry.get_sample_value("vbisect_probe_up") == up


def test_a_server_that_names_itself_is_at_its_address() -> None:
    """One that then does not answer has another trouble."""
    with ScriptedServer() as server:
        server.on("/version", Reply(200, {"version": "0.30.0"}))
        server.on("/v1/models", Reply(200, {"data": [{"id": "m"}]}))
        server.on("/v1/chat/completions", Reply(raw=b""))
        done = vbisect(server.url)
    assert done.returncode == 3
    assert done.stderr.startswith("vbisect: no answer: It is there, but gave no whole answer;")


@pytest.mark.parametrize(
    ("models", "words", "said", "advice"),
    [
        (Reply(200, "[" * 200_000), (), "server error: /v1/models names no model", "error"),
        (Reply(200, {"data": [{"id": None}]}), (), "names no model", "error"),
        (Reply(200, '{"data": [{"id": "\\ud800"}]}'), (), "names no model", "error"),
        (Reply(200, {"data": [{"id": "a\0b"}]}), ("--", "true"), "names no model", "error"),
        (
            Reply(401, {"error": {"message": "No key"}}),
            (),
            "request rejected: /v1/models: HTTP 401: No key",
            "set OPENAI_API_KEY",
        ),
        (
            Reply(307, headers={"location": "https://there/v1"}),
            (),
            "/v1/models: HTTP 307: it is elsewhere, at https://there/v1",
            "its answer says why",
        ),
        (
            Reply(200, {"data": [{"id": "m"}]}),
            ("--", "sh", "-c", "exit 200"),
            "command said skip: The command ended with exit status 200",
            "run it by hand",
        ),
    ],
)
def test_what_a_server_says_of_itself_may_be_anything(
    models: Reply, words: tuple[str, ...], said: str, advice: str
) -> None:
    """A skip with its reason, and something to do about it."""
    with ScriptedServer() as server:
        server.on("/version", Reply(200, "[" * 200_000))
        server.on("/v1/models", models)
        done = vbisect(server.url, *words)
    assert done.returncode == 3, done.stderr
    assert said in done.stdout
    assert advice in done.stderr
    assert done.stderr.count("\n") == 1
    assert (done.stdout + done.stderr).replace("\n", "").isprintable()


def test_a_server_that_serves_it_to_others_is_told_apart() -> None:
    """No argument of a server that somebody else started is proposed."""
    with ScriptedServer() as server:
        server.on("/v1/models", Reply(200, {"data": [{"id": "m"}]}))
        server.on("/v1/chat/completions", Reply(403, {"detail": "Forbidden"}))
        done = vbisect(server.url)
    assert done.returncode == 3
    assert "endpoint not served: HTTP 403: Forbidden" in done.stdout
    assert "--serve-arg" not in done.stderr
    assert "set OPENAI_API_KEY" in done.stderr


@pytest.mark.parametrize("key", ["sk word", "geheim\N{LATIN SMALL LETTER SHARP S}", "ab\x01cd"])
def test_what_can_be_no_key_is_not_sent_and_not_shown(key: str) -> None:
    done = vbisect("http://127.0.0.1:9", OPENAI_API_KEY=key)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vbisect: OPENAI_API_KEY holds something that cannot be a key.\n"


def test_a_key_from_a_file_with_other_line_ends_is_that_key() -> None:
    with ScriptedServer() as server:
        done = vbisect(server.url, OPENAI_API_KEY=f"{KEY}\r")
        assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {KEY}"}
    assert KEY not in done.stdout + done.stderr


def test_proxies_that_cannot_be_used_are_said_in_a_line() -> None:
    done = vbisect("http://vllm.invalid", ALL_PROXY="socks5://user:wordword@127.0.0.1:9")
    assert (done.returncode, done.stdout) == (4, "")
    assert "proxy or certificate settings cannot be used" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "wordword" not in done.stderr


def test_a_request_takes_what_one_request_takes(tmp_path: Path) -> None:
    """Of several, the mean; a command is no request."""

    def answer(asked: Asked) -> Reply:
        number = json.loads(asked.body)["n"]
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"content": "x"}}
            for i in range(number)
        ]
        return Reply(200, {"choices": choices}, delay=0.5 if number == 2 else 0)

    with ScriptedServer() as server:
        server.on("/v1/models", Reply(200, {"data": [{"id": "m"}]}))
        server.on("/v1/chat/completions", answer)
        target = ProbeTarget(server.url, "m", "0.30.0", tmp_path, tmp_path)
        seen = NChoicesProbe(NChoicesSettings(n=(1, 2))).observe(target)
        took = [seen.evidence[name]["seconds"] for name in ("n=1", "n=2")]
        assert took[1] >= 0.5
        assert seen.latency == pytest.approx(sum(took) / 2, abs=1e-3)
        assert " s a request" in vbisect(server.url, "--n", "1").stdout
        assert " s a request" not in vbisect(server.url, "--", "true").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ftp://x",), "ftp://x is no URL: write it as in http://127.0.0.1:8000."),
        (("user:word@host",), "host is no URL"),
        (("http://x/v1?y=1",), "leave out everything from the first ? or # on"),
        (("http://[::1",), "The URL is none"),
        (("http://x", "--metrics-port", "9123"), "--metrics-port needs --every"),
        (("http://x", "--every", "soon"), "--every soon: write it as in 60s, 5m or 1h."),
        (("http://x", "--every", "0s"), "--every 0s: write it as in"),
        (("http://x", "--every", "1s", "--repeat", "2"), "leave out --repeat"),
        (("http://x", "--repeat", "0"), "--repeat 0: it must be at least 1."),
        (("http://x", "--suite", "--n", "2"), "leave out --n"),
        (("http://x", "--endpoint", "embed"), "--endpoint embed: choose one of chat"),
        (("http://x", "--", "/nowhere/check"), "/nowhere/check is not there"),
    ],
)
def test_wrong_usage_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = vbisect(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_said() -> None:
    with ScriptedServer() as server:
        port = server.url.rpartition(":")[2]
        done = vbisect(server.url, "--every", "1s", "--metrics-port", port)
    assert done.returncode == 4
    assert done.stderr.startswith(f"vbisect: Metrics cannot be served on 127.0.0.1 port {port}: ")


@pytest.mark.parametrize(("requests", "counted"), [(1, 1), (2, 1), (0, 0)])
def test_what_a_command_takes_is_no_latency(requests: int, counted: int) -> None:
    told = Metrics()
    seen = Sighting(
        at="2026-11-26T20:00:00+00:00", outcome=Outcome.PASS, seconds=0.1, requests=requests
    )
    told.count(seen)
    assert told.registry.get_sample_value("vbisect_probe_request_seconds_count") == counted


@given(st.lists(st.text(max_size=200), max_size=60), st.text(max_size=300))
def test_hostile_words_stay_few_labels_that_can_be_read(texts: list[str], model: str) -> None:
    """Whatever a server says: at most so many labels, of one line each, that a parser reads."""
    told = Metrics()
    for text in [*texts, 'a"b\\c\nd', "\u202e\x1b[31mred"]:
        told.count(
            Sighting(
                at="2026-11-26T20:00:00+00:00",
                outcome=Outcome.FAIL,
                signature=text,
                model=model,
                seconds=0.1,
            )
        )
    from prometheus_client import generate_latest

    families = text_string_to_metric_families(generate_latest(told.registry).decode())
    failures = [
        sample
        for family in families
        for sample in family.samples
        if sample.name == "vbisect_probe_failures_total"
    ]
    assert 1 <= len(failures) <= MOST_SIGNATURES + 1
    assert sum(sample.value for sample in failures) == len(texts) + 2
    for sample in failures:
        assert "\n" not in sample.labels["signature"]
        assert "\x1b" not in sample.labels["signature"]
        assert len(sample.labels["signature"]) <= 120


@given(
    st.sampled_from(["http", "https"]),
    st.sampled_from(["", "user:pass-word@", "user@", "%40:b%3Ac@"]),
    st.sampled_from(["127.0.0.1:8000", "gw.example.com", "[::1]:9", "localhost"]),
    st.sampled_from(["", "/", "/v1", "/v1/", "/vllm/v1", "/vllm/"]),
)
def test_an_address_is_shown_without_its_password(
    scheme: str, user: str, place: str, path: str
) -> None:
    address = Address.parse(f"{scheme}://{user}{place}{path}")
    prefix = "/vllm" if "vllm" in path else ""
    assert address.shown == f"{scheme}://{place}{prefix}"
    assert address.base_url == f"{scheme}://{user}{place}{prefix}"
    assert "@" not in repr(address)
    assert address.near is (place != "gw.example.com")


@pytest.mark.parametrize("text", ["", "x", "http://", "http://a:b:c", "http://a:999999"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(text)
