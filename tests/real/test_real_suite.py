"""Variations of real vLLM servers: two bugs of one endpoint, told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from real.runs import ONCE, SCALE_OUT, run

pytestmark = pytest.mark.real


def test_the_stream_of_generate_is_fixed_in_another_release_than_its_choices(
    tmp_path: Path,
) -> None:
    """Up to 0.31.0 a stream for n > 1 nearly always ends with "list index out of range"."""
    ends = ("--from", "0.31.0", "--to", "0.32.0", "--endpoint", "generate")
    code, answer = run(tmp_path, *ends, *SCALE_OUT, "--suite", "--bisect-on", "stream", *ONCE)
    assert (code, answer["status"]) == (0, "found")
    found = answer["answer"]
    assert (found["change"], found["last_before"], found["first_after"]) == (
        "fix",
        "0.31.0",
        "0.32.0",
    )
    for trial in answer["trials"]:
        outcomes = {v["name"]: v["outcome"] for v in trial["variations"]}
        stream = "fail" if trial["version"] == "0.31.0" else "pass"
        assert outcomes.pop("stream") == stream
        assert outcomes == dict.fromkeys(outcomes, "pass"), trial["version"]
        assert set(outcomes) >= {"n=1", "n=16", "seed", "logprobs", "n=0", "greedy", "n=16385"}
