"""What a server received is what its log says, whatever else the log holds."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from driving import Done, Vbisect, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from vbisect.launch import Limited, effective_arguments
from vbisect.launch.engine_version import engine_version
from vbisect.launch.log_lines import LogLines
from vbisect.launch.request_log import RequestLog, log_arguments
from vbisect.probes import SentRequest
from vbisect.probes.n_choices import sampling_parameters
from vbisect.run.parameters import ParametersCheck, compared
from vbisect.run.records import ParametersStatus

ID = "vbisect-" + "0123456789abcdef" * 2
SENT: dict[str, Any] = {"n": 8, "temperature": 0.7, "top_p": 0.9, "max_tokens": 16}
PARAMETERS = (
    "SamplingParams(n=8, presence_penalty=0.0, frequency_penalty=0.0, repetition_penalty=1.05, "
    "temperature=0.7, top_p=0.9, top_k=-1, min_p=0.0, seed=None, stop=['n=3, max_tokens=1)'], "
    "stop_token_ids=[], bad_words=[], include_stop_str_in_output=False, ignore_eos=False, "
    "max_tokens=16, min_tokens=0, logprobs=None, prompt_logprobs=None, skip_special_tokens=True, "
    "spaces_between_special_tokens=True, guided_decoding=None)"
)
FAKES = (
    "', params: SamplingParams(n=1)",
    '", params: SamplingParams(n=1)',
    "params: SamplingParams(n=1, temperature=0.0), ",
    f"\nINFO Received request {ID}: params: SamplingParams(n=1)",
    "\\",
    "\\'",
)
Prompts = st.lists(st.sampled_from(FAKES) | st.text(max_size=8), max_size=5).map("".join)


def old_line(prompt: str, identity: str = f"chatcmpl-{ID}") -> str:
    """As 0.7.3 logs a request (``RequestLogger.log_inputs``)."""
    return (
        f"INFO 03-05 10:00:00 logger.py:39] Received request {identity}: prompt: {prompt!r}, "
        f"params: {PARAMETERS}, prompt_token_ids: None, lora_request: None, "
        "prompt_adapter_request: None."
    )


def new_line(identity: str = f"chatcmpl-{ID}") -> str:
    """As 0.32.0 logs a request."""
    return (
        f"(APIServer pid=7) INFO 11-22 18:35:42 [request_logger.py:63] Received request {identity}"
        f": params: {PARAMETERS}, lora_request: None."
    )


def logged(directory: Path, *lines: str | bytes) -> list[tuple[str, dict[str, Any]]]:
    """The requests in a log of these lines."""
    log = directory / "server.log"
    whole = [x if isinstance(x, bytes) else x.encode(errors="surrogatepass") for x in lines]
    log.write_bytes(b"".join(line + b"\n" for line in whole))
    return list(RequestLog(log).new())


@pytest.mark.parametrize(
    "line",
    [
        old_line("<|im_start|>user\nHow many?<|im_end|>"),
        old_line("it's").replace('prompt: "it\'s"', "prompt: None"),
        old_line("x", f"cmpl-{ID}-0"),
        new_line(),
        new_line(f"cmpl-{ID}-0"),
        new_line(f"generate-tokens-{ID}"),
    ],
)
def test_the_line_of_a_request_is_read(tmp_path: Path, line: str) -> None:
    """With the prompt and without, whatever vLLM puts around the id."""
    ((identity, received),) = logged(tmp_path, "Added request x.", line, line.replace(ID, "other"))
    assert identity == ID
    assert {name: received[name] for name in SENT} == SENT
    assert received["seed"] is None


@given(Prompts)
@example("".join(FAKES))
def test_a_prompt_is_never_taken_for_parameters(
    tmp_path_factory: pytest.TempPathFactory, prompt: str
) -> None:
    """Whatever the prompt says, what was received follows after it."""
    ((_, received),) = logged(tmp_path_factory.getbasetemp(), old_line(prompt))
    assert {name: received[name] for name in SENT} == SENT


Noise = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([b"x" * 200_000, b"Received request ", new_line().encode()[:90], b"\xff\xfe"])
    | st.text(max_size=20).map(str.encode),
    max_size=6,
)


@given(Noise, Noise)
def test_noise_around_a_line_hides_nothing(
    tmp_path_factory: pytest.TempPathFactory, before: list[bytes], after: list[bytes]
) -> None:
    """Binary, half lines and lines longer than are looked at."""
    found = logged(tmp_path_factory.getbasetemp(), *before, new_line(), *after)
    assert [identity for identity, _ in found] == [ID]


@pytest.mark.parametrize(
    "text",
    [
        "SamplingParams(n=" + "9" * 5000 + ")",
        "SamplingParams(n=1e999)",
        "SamplingParams(n=__import__('os'))",
        "SamplingParams(n={[]}, seed=1)",
        "SamplingParams(n=1if 2else 3)",
        "SamplingParams(" + "[" * 50_000,
        "SamplingParams(n",
        "SamplingParams(" + "n='" * 20_000,
        "BeamSearchParams(n=8)",
    ],
)
def test_what_is_no_number_is_left_out(tmp_path: Path, text: str) -> None:
    """A server that logs nonsense is not believed, and harms nobody."""
    found = logged(tmp_path, f"Received request chatcmpl-{ID}: params: {text}")
    assert all("n" not in received for _, received in found)


def test_lines_are_given_once_they_are_finished(tmp_path: Path) -> None:
    """A line that grows is read whole; of a very long one only the beginning is kept."""
    log = tmp_path / "server.log"
    lines = LogLines(log)
    assert list(lines.new()) == []
    log.write_bytes(b"one\r\ntw")
    assert list(lines.new()) == ["one"]
    with log.open("ab") as handle:
        handle.write(b"o\n" + b"y" * 10 * 2**20)
    first, long = lines.new()
    assert first == "two"
    assert 0 < len(long) < 100_000
    with log.open("ab") as handle:
        handle.write(b"zzz\nthree\n")
    assert list(lines.new()) == ["three"]
    assert next(iter(LogLines(log, 5).new())) == "two"


@pytest.mark.parametrize(
    ("arguments", "of_0_10_0", "of_0_10_1"),
    [
        ((), [], ["--enable-log-requests"]),
        (("--max-log-len 5",), [], ["--enable-log-requests"]),
        (("--enable-log-requests",), [], []),
        (("--no_enable_log_requests; >=0.20",), [], []),
        (("--disable-log-requests",), [], []),
    ],
)
def test_logging_is_switched_on_unless_the_user_decides(
    arguments: tuple[str, ...], of_0_10_0: list[str], of_0_10_1: list[str]
) -> None:
    """Only where the version has it off."""
    own = log_arguments([Limited.parse("--serve-arg", text) for text in arguments])
    assert effective_arguments(own, "0.10.0") == of_0_10_0
    assert effective_arguments(own, "0.10.1") == of_0_10_1
    assert effective_arguments(own, "0.33.1.dev7+g0123456") == of_0_10_1


@pytest.mark.parametrize(
    ("received", "status", "sentence"),
    [
        (SENT, "received", "received n=8"),
        ({**SENT, "temperature": 0.70000001, "top_p": 0.9}, "received", "received n=8"),
        ({**SENT, "n": 1}, "different", "received n=1 where n=8 was sent"),
        (
            {**SENT, "n": 1, "top_p": None},
            "different",
            "received n=1 where n=8 was sent; received top_p=None where top_p=0.9 was sent",
        ),
        ({"n": 8}, "received", "received n=8"),
        (None, "not found in the log", "not found in the log"),
    ],
)
def test_what_is_said_of_one_request(
    received: dict[str, Any] | None, status: str, sentence: str
) -> None:
    """Received, different, or not found: in the words of a table."""
    seen = compared([SENT], [received])
    assert (seen.status, seen.sentence, seen.sent) == (status, sentence, SENT)
    assert seen.received == (received or {})


def test_what_is_said_of_several_requests() -> None:
    """Each n is named; one that was not found keeps the whole from counting as received."""
    two, eight = {**SENT, "n": 2}, SENT
    both = compared([two, eight], [two, eight])
    assert (both.status, both.sentence) == ("received", "received n=2, n=8")
    assert both.sent["n"] == both.received["n"] == [2, 8]
    half = compared([two, eight], [two, None])
    assert half.status is ParametersStatus.NOT_FOUND
    assert half.sentence == "received n=2; n=8 not found in the log"


def test_a_greedy_request_gets_another_top_p() -> None:
    """Without a temperature vLLM sets it itself, and nothing was lost on the way."""
    greedy = {**SENT, "n": 1, "temperature": 0.0}
    assert compared([greedy], [{**greedy, "top_p": 1.0}]).status is ParametersStatus.RECEIVED


@pytest.mark.parametrize(
    ("sent", "there", "status"),
    [
        (0.005, 0.01, "received"),
        (1e-6, 0.01, "received"),
        (0.0, 0.01, "different"),
        (0.02, 0.01, "different"),
        (0.005, 0.005, "different"),
    ],
)
def test_vllm_raises_a_temperature_that_is_nearly_none(
    sent: float, there: float, status: str
) -> None:
    """So the log of every release has another one, and nothing was lost on the way."""
    asked = {**SENT, "temperature": sent}
    assert compared([asked], [{**SENT, "temperature": there}]).status == status


def test_parameters_are_compared_by_vllms_names() -> None:
    """A chat asks for log probabilities in two fields, of which vLLM makes one."""
    chat = {"messages": [], "n": 2, "seed": 7, "logprobs": True, "top_logprobs": 3, "stream": True}
    assert sampling_parameters(chat) == {"n": 2, "seed": 7, "logprobs": 3}
    assert sampling_parameters({"messages": [], "logprobs": False}) == {"logprobs": None}
    assert sampling_parameters({"prompt": "", "logprobs": 2}) == {"logprobs": 2}
    assert sampling_parameters({"sampling_params": {"n": 4}, "n": 9}) == {"n": 4}
    assert sampling_parameters({"prompt": "", "n": "8", "seed": [1], "top_p": None}) == {
        "top_p": None
    }


def test_a_line_may_come_late(tmp_path: Path) -> None:
    """It is found whenever it comes, before or after the next request is sent."""
    log = tmp_path / "server.log"
    log.write_text(new_line() + "\n")
    check = ParametersCheck(log, log.stat().st_size, threading.Event())
    assert check.seen is None
    check.look_for([SentRequest(id=ID, parameters=SENT)])
    assert check.seen is not None
    assert check.seen.status is ParametersStatus.NOT_FOUND, "what was there before is another's"
    with log.open("a") as handle:
        handle.write(new_line() + "\n")
    check.look_for([])
    assert check.seen.sentence == "received n=8"
    check.look_for([SentRequest(id="vbisect-" + "9" * 32, parameters=SENT)])
    assert check.seen.sentence == "received n=8"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("INFO 05-12 [llm_engine.py:234] Initializing a V0 LLM engine (v0.7.3) with config", "V0"),
        ("(EngineCore pid=1) INFO Initializing a V1 LLM engine (v0.32.0) with config", "V1"),
        ("INFO Using the V1 model runner", None),
        ("Initializing a V1 LLM engine (v0.8.0)\nInitializing a V0 LLM engine (v0.8.0)", "V0"),
    ],
)
def test_the_engine_is_what_the_log_says(tmp_path: Path, log: str, said: str | None) -> None:
    """The last one counts; where none is named nothing is guessed."""
    (tmp_path / "server.log").write_text(f"Initializing a V0 LLM engine (v0)\n{log}\n")
    assert engine_version(tmp_path / "server.log", since=34) == said
    assert engine_version(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("name", "version", "n"),
    [
        ("0.8.5-chat", "V0", 8),
        ("0.27.1-generate", "V1", 4),
        ("0.31.0-chat-image", "V1", 8),
        ("0.32.0-chat", "V1", 8),
    ],
)
def test_real_logs_of_both_defaults_are_read(name: str, version: str, n: int) -> None:
    """0.8.5 logged requests by itself, prompt and all; the others when told to."""
    log = Path(__file__).parent / "data" / "logs" / f"{name}.log"
    assert engine_version(log) == version
    requests = list(RequestLog(log).new())
    assert requests
    for _, received in requests:
        seen = compared([{**SENT, "n": n}], [received])
        assert (seen.status, seen.sentence) == ("received", f"received n={n}")


def test_the_recorded_run_says_which_engine_ran(recorded_logs: list[Path]) -> None:
    """Real logs of four releases."""
    assert [engine_version(log) for log in recorded_logs] == ["V1"] * 4


@pytest.fixture
def recorded_logs() -> list[Path]:
    """The logs in ``results/``."""
    results = Path(__file__).parents[1] / "results"
    return sorted(results.glob("20261122-183104*/trials/*/server.log"))


OLD = Behaviour(
    request_logging_default=True,
    logs_prompt=True,
    v0_engine=True,
    removed_arguments=("--enable-log-requests",),
    log_style="plain",
)
RELEASES = {
    "0.7.3": OLD,
    "0.9.2": Behaviour(
        request_logging_default=True,
        logs_prompt=True,
        logged_prompt="".join(FAKES),
        removed_arguments=("--enable-log-requests",),
    ),
    "0.31.0": Behaviour(logged_n=1),
    "0.31.1": Behaviour(logged_n=0),
    "0.32.0": Behaviour(fail_rate={"chat": 1.0, "completions": 1.0, "generate": 1.0}),
}
SAID = {
    "0.7.3": "received n=8",
    "0.9.2": "received n=8",
    "0.31.0": "received n=1 where n=8 was sent",
    "0.31.1": "not found in the log",
    "0.32.0": "received n=8",
}
ALL = ("--from", "0.7.3", "--to", "0.32.0", "--sweep", "--confidence", "0.6")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """Releases that log in all the ways there are."""
    with PackageIndex(world(tmp_path_factory.mktemp("logging"), RELEASES)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("logging-cache")


@pytest.fixture
def vbisect(command: Callable[..., Vbisect], index: PackageIndex, cache: Path) -> Vbisect:
    """The command line over them."""
    return command(index, cache)


def said(done: Done) -> dict[str, str]:
    """What the answer says of the parameters, by version."""
    return {v: t["parameters"]["sentence"] for v, t in done.trials.items()}


@pytest.mark.parametrize("endpoint", ["chat", "completions", "generate"])
def test_every_trial_says_what_the_server_received(vbisect: Vbisect, endpoint: str) -> None:
    done = vbisect.run(*ALL, "--endpoint", endpoint)
    assert done.returncode == 0, done.stderr
    assert said(done) == SAID
    assert {v: t["engine"] for v, t in done.trials.items()} == dict.fromkeys(RELEASES, "V1")
    [by_itself] = done.json["engine"]["set_aside"]
    assert (by_itself["version"], by_itself["engine"]) == ("0.7.3", "V0")
    assert all(trial["size_bytes"] > 10_000 for trial in done.trials.values())
    with (done.run_dir / "table.csv").open() as table:
        rows = {row["version"]: row for row in csv.DictReader(table)}
    assert {v: row["parameters"] for v, row in rows.items()} == SAID
    assert {row["engine"] for row in rows.values()} == {"V1"}
    assert int(rows["0.7.3"]["size_bytes"]) == done.trials["0.7.3"]["size_bytes"]
    report = (done.run_dir / "report.md").read_text()
    assert "| received n=8 |" in report
    assert "| not found in the log |" in report
    answer = (done.run_dir / "trials" / "0.32.0" / "responses.jsonl").read_text().splitlines()[0]
    log = (done.run_dir / "trials" / "0.32.0" / "server.log").read_text()
    assert json.loads(answer)["request_id"] in log


def test_several_counts_in_a_stream(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "0.7.3", "--to", "0.9.2", "--n", "2", "--n", "4", "--stream")
    assert said(done) == dict.fromkeys(("0.7.3", "0.9.2"), "received n=2, n=4")
    told = vbisect("report", done.run_dir, "--format", "md").stdout
    assert "received n=2, n=4" in told


def test_a_skip_says_nothing_of_parameters(
    command: Callable[..., Vbisect], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A request that came to nothing verifies nothing; which engine ran is known all the same."""
    made = {"60.0": Behaviour(), "60.1": Behaviour(fault="http_500")}
    with PackageIndex(world(tmp_path_factory.mktemp("skip"), made)) as index:
        done = command(index).run("--from", "60.0", "--to", "60.1", "--confidence", "0.6")
    assert done.trials["60.0"]["parameters"]["status"] == "received"
    assert done.trials["60.1"]["parameters"] is None
    assert done.trials["60.1"]["engine"] == "V1"


def test_the_users_own_switch_wins(vbisect: Vbisect) -> None:
    """Nothing is added to it; what is then not logged is not found, and that is said."""
    off = ("--serve-arg", "--no-enable-log-requests; >=0.10.1")
    done = vbisect.run("--from", "0.9.2", "--to", "0.32.0", "--confidence", "0.6", *off)
    assert done.trials["0.9.2"]["parameters"]["status"] == "received"
    assert done.trials["0.32.0"]["parameters"]["status"] == "not found in the log"
    assert "log_args = []" in (done.run_dir / "run.toml").read_text()
    assert done.json["replay"].count("log-requests") == 1


def test_a_command_sends_nothing_to_look_for(vbisect: Vbisect) -> None:
    done = vbisect.run("--from", "0.7.3", "--to", "0.32.0", "--confidence", "0.6", "--", "true")
    assert {trial["parameters"] for trial in done.trials.values()} == {None}
    assert {trial["engine"] for trial in done.trials.values()} == {"V0", "V1"}
    command = (done.run_dir / "trials" / "0.32.0" / "environment.json").read_text()
    assert "log-requests" not in command
