"""What a run of real vLLM shows beside its outcomes: what was received, and whose a bug is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from real.old_release import VERSION, install_old_release
from real.runs import ONCE, owned_processes, run
from vbisect.launch.request_log import RequestLog

pytestmark = pytest.mark.real


def test_a_text_model_is_the_control_of_one_that_sees(tmp_path: Path) -> None:
    """Both got n=8 in both releases and returned 8 choices: there is no bug to be anybody's."""
    words = ("--from", "0.31.0", "--to", "0.32.0", "--n", "8", *ONCE)
    models = ("--model", "tiny:qwen2_5_vl", "--control-model", "tiny:qwen2")
    code, answer = run(tmp_path, *words, *models)
    assert (code, answer["status"]) == (1, "none")
    assert answer["scope"]["scope"] == "unknown"
    assert {trial["version"] for trial in answer["trials"]} == {"0.31.0", "0.32.0"}
    run_dir = Path(answer["run_dir"])
    for trial in answer["trials"]:
        # an end that passes is asked more often than its control
        assert trial["observations"]["pass"] > trial["control"]["observations"]["pass"] >= 3
        folder = run_dir / "trials" / trial["version"]
        for found, at in ((trial, folder), (trial["control"], folder / "control")):
            assert (found["outcome"], found["engine"]) == ("pass", "V1")
            assert_received(found, at, 8)
        pictures = [
            "data:image/png" in (at / "request.json").read_text()
            for at in (folder, folder / "control")
        ]
        assert pictures == [True, False]
    assert (run_dir / "report.md").read_text().count("received n=8") == 4
    assert owned_processes(run_dir) == []


def test_a_release_that_loses_choices_was_asked_for_all_of_them(tmp_path: Path) -> None:
    """Nothing was lost on the way to 0.28.0: it received n=4 and returned fewer (#52398)."""
    generate = ("--endpoint", "generate", "--n", "4", "--fresh", *ONCE)
    code, answer = run(tmp_path, "--from", "0.28.0", "--to", "0.29.0", *generate)
    assert (code, answer["status"]) == (0, "found")
    trials = {trial["version"]: trial for trial in answer["trials"]}
    assert [trials[v]["outcome"] for v in ("0.28.0", "0.29.0")] == ["fail", "pass"]
    for version, trial in trials.items():
        assert_received(trial, Path(answer["run_dir"]) / "trials" / version, 4)


def test_both_defaults_of_request_logging_show_what_was_received(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.8.5 (V0) logs requests unless told not to, 0.32.0 (V1) only when told to."""
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path / "cache"))
    try:
        install_old_release(tmp_path)
        ends = ("--from", VERSION, "--to", "0.32.0", "--skip", "0.8.5.post1..0.31.0")
        chat = ("--device", "cpu", "--endpoint", "chat", "--n", "8", *ONCE)
        code, answer = run(tmp_path, *ends, *chat)
    finally:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # 6 GB that nothing else can use
    assert (code, answer["status"]) == (1, "none")
    run_dir = Path(answer["run_dir"])
    tested = {t["version"]: t for t in answer["trials"] if t["outcome"] != "skip"}
    assert {v: t["engine"] for v, t in tested.items()} == {VERSION: "V0", "0.32.0": "V1"}
    for version, trial in tested.items():
        folder = run_dir / "trials" / version
        command = json.loads((folder / "environment.json").read_text())["command"]
        assert ("--enable-log-requests" in command) == (version != VERSION)
        assert not any("log-requests" in word for word in command if version == VERSION)
        assert_received(trial, folder, 8)
    assert (run_dir / "report.md").read_text().count("received n=8") == 2
    assert owned_processes(run_dir) == []


def assert_received(found: dict[str, Any], folder: Path, n: int) -> None:
    """The log has every request that was answered, with the parameters that were sent."""
    sent = {"n": n, "temperature": 0.7, "top_p": 0.9, "max_tokens": 16}
    assert found["parameters"] == {
        "status": "received",
        "sentence": f"received n={n}",
        "sent": sent,
        "received": sent,
    }
    logged = dict(RequestLog(folder / "server.log").new())
    for line in (folder / "responses.jsonl").read_text().splitlines():
        received = logged[json.loads(line)["request_id"]]
        assert {name: received[name] for name in sent} == sent
