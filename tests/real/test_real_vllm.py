"""The truth about real vLLM servers on a CPU, as vbisect tells it.

vllm-project/vllm#52398: ``/inference/v1/generate`` silently returned fewer than n choices, now and
then, up to 0.28.0; fixed in 0.29.0. Chat and completions always returned all of them.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from real.runs import (
    GENERATE,
    ONCE,
    ONE_SERVER,
    SCALE_OUT,
    assert_fixed_in_0_29,
    events,
    owned_processes,
    run,
    start,
)

pytestmark = pytest.mark.real


def test_names_the_release_that_fixed_a_real_bug(tmp_path: Path) -> None:
    code, answer = run(tmp_path, "--from", "0.27.1", "--to", "0.32.0", *GENERATE, *SCALE_OUT)
    assert (code, answer["status"]) == (0, "found")
    assert_fixed_in_0_29(answer)
    assert len(answer["trials"]) <= 5
    boots = {trial["version"]: len(trial["boots"]) for trial in answer["trials"]}
    assert boots["0.28.0"] >= 2 <= boots["0.29.0"]
    assert all(t["outcome"] != "skip" for t in answer["trials"])
    assert owned_processes(Path(answer["run_dir"])) == []


def test_a_bug_that_shows_in_few_requests_is_found_with_the_confidence_asked_for(
    tmp_path: Path,
) -> None:
    """With n = 2 some requests to releases with the bug bring both choices."""
    few = ("--endpoint", "generate", "--n", "2", "--fresh")
    code, answer = run(tmp_path, "--from", "0.27.1", "--to", "0.30.0", *few, *SCALE_OUT)
    assert (code, answer["status"]) == (0, "found")
    assert_fixed_in_0_29(answer)
    trials = {trial["version"]: trial for trial in answer["trials"]}
    assert answer["answer"]["confidence"] >= 0.95
    seen = [trial["observations"] for trial in trials.values()]
    if any(counts["pass"] and counts["fail"] for counts in seen):  # it flaked
        assert len(trials["0.28.0"]["boots"]) >= 2 <= len(trials["0.29.0"]["boots"])


def test_releases_that_do_not_serve_the_endpoint_are_skips_and_the_end_moves(
    tmp_path: Path,
) -> None:
    ends = ("--from", "0.27.1", "--to", "0.32.0")
    code, answer = run(tmp_path, *ends, *GENERATE, *ONCE, *ONE_SERVER)
    assert (code, answer["status"]) == (0, "found")
    assert_fixed_in_0_29(answer, confidence=0.8)
    reasons = {t["version"]: t["reason"] for t in answer["trials"] if t["outcome"] == "skip"}
    # galloped over: 0.32.0, one further in, two further in
    assert reasons == dict.fromkeys(("0.31.0", "0.32.0"), "endpoint not served")
    assert answer["range"]["to"] == {"asked": "0.32.0", "resolved": "0.32.0", "tested": "0.29.0"}
    assert any("UPPER END MOVED from 0.32.0 to 0.29.0" in note for note in answer["notes"])


def test_a_tiny_model_needs_no_compiler_and_each_build_has_a_cache_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for kernels that are not there yet; all choices come as ever."""
    monkeypatch.setenv("CXX", "/bin/false")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    ends = ("--from", "0.27.0", "--to", "0.32.0", "--n", "4", "--fresh")
    code, answer = run(tmp_path, *ends, *ONCE)
    assert (code, answer["status"]) == (1, "none")
    assert [trial["outcome"] for trial in answer["trials"]] == ["pass", "pass"]
    for trial in answer["trials"]:
        cache = Path(trial["build"]["ref"]).expanduser() / "cache" / "vllm"
        assert list(cache.glob("modelinfos/*Qwen2ForCausalLM.json"))


def test_chat_is_not_affected(tmp_path: Path) -> None:
    code, answer = run(tmp_path, "--from", "0.27.1", "--to", "0.32.0", *ONCE)
    assert (code, answer["status"], answer["answer"]) == (1, "none", None)
    assert answer["message"].startswith("passes in every tested release")
    assert "a failure would have shown if in 1 request of" in answer["message"]
    assert 0 < answer["excluded"]["per_request"] < 0.3 < answer["excluded"]["per_boot"] < 1
    assert [t["version"] for t in answer["trials"]] == ["0.27.1", "0.32.0"]


def test_the_vision_language_model_answers_eight_times_to_an_image(tmp_path: Path) -> None:
    code, answer = run(
        tmp_path,
        *("--from", "0.31.0", "--to", "0.32.0", "--model", "tiny:qwen2_5_vl"),
        *("--endpoint", "chat", "--n", "8", *ONCE),
    )
    assert (code, answer["status"]) == (1, "none")
    for trial in answer["trials"]:
        folder = Path(answer["run_dir"]) / "trials" / trial["version"]
        body = json.loads((folder / "request.json").read_text())["body"]
        assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png")
        for line in (folder / "responses.jsonl").read_text().splitlines():
            choices = json.loads(json.loads(line)["body"])["choices"]
            assert sorted(choice["index"] for choice in choices) == list(range(8))


def test_a_wide_range_ends_with_a_truthful_table(tmp_path: Path) -> None:
    code, answer = run(tmp_path, "--from", "0.7.3", "--to", "nightly", "--device", "cpu", *ONCE)
    assert (code, answer["status"]) == (1, "none")
    assert answer["candidates"][0] == "0.7.3"
    trials = {trial["version"]: trial for trial in answer["trials"]}
    assert trials["0.7.3"]["reason"] == "not published"
    tested = [t["version"] for t in answer["trials"] if t["outcome"] == "pass"]
    ends = answer["range"]
    assert sorted(tested) == sorted([ends["from"]["tested"], ends["to"]["tested"]])
    position = answer["candidates"].index
    for version in answer["candidates"]:
        beyond = position(version) < position(ends["from"]["tested"]) or position(
            version
        ) > position(ends["to"]["tested"])
        assert (version in trials) == (beyond or version in tested)
        if beyond:
            assert trials[version]["reason"] in ("not published", "not installable")
            assert trials[version]["detail"]
    assert any("NIGHTLY" in note or "nightly is" in note for note in answer["notes"])


def test_killed_in_the_middle_of_a_boot_and_resumed(tmp_path: Path) -> None:
    arguments = ("--from", "0.28.0", "--to", "0.30.0", *GENERATE, *SCALE_OUT, *ONCE, *ONE_SERVER)
    process = start(tmp_path, *arguments)
    try:
        run_dir = _wait_for_second_boot(tmp_path)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 20
    while owned_processes(run_dir) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert owned_processes(run_dir) == []
    before = [e["record"]["version"] for e in events(run_dir) if e["event"] == "trial_finished"]
    assert len(before) == 1

    code, answer = run(tmp_path, "--resume", str(run_dir))
    assert (code, answer["status"]) == (0, "found")
    assert_fixed_in_0_29(answer, confidence=0.8)
    finished = [e["record"]["version"] for e in events(run_dir) if e["event"] == "trial_finished"]
    assert finished[0] == before[0]
    assert set(finished) == {"0.28.0", "0.29.0", "0.30.0"}
    assert owned_processes(run_dir) == []


def _wait_for_second_boot(results: Path) -> Path:
    """The run directory, once a second server has been booting for a few seconds."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        for run_dir in results.glob("*"):
            if sum(e["event"] == "build_ready" for e in events(run_dir)) == 2:
                time.sleep(5)
                return run_dir
        time.sleep(0.2)
    raise AssertionError("the second server was never started")
