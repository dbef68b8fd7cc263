"""What a run of real vLLM shows beside its outcomes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from real.runs import run

pytestmark = pytest.mark.real


def test_a_text_model_is_the_control_of_one_that_sees(tmp_path: Path) -> None:
    """Both return all choices in both releases, so there is no bug to be anybody's."""
    words = ("--from", "0.31.0", "--to", "0.32.0", "--n", "4", "--confidence", "0.9")
    models = ("--model", "tiny:qwen2_5_vl", "--control-model", "tiny:qwen2")
    code, answer = run(tmp_path, *words, *models)
    assert (code, answer["status"]) == (1, "none")
    assert answer["scope"]["scope"] == "unknown"
    assert {trial["version"] for trial in answer["trials"]} == {"0.31.0", "0.32.0"}
    for trial in answer["trials"]:
        assert (trial["outcome"], trial["control"]["outcome"]) == ("pass", "pass")
        assert trial["control"]["observations"]["pass"] == trial["observations"]["pass"] >= 9
        folder = Path(answer["run_dir"]) / "trials" / trial["version"]
        pictures = []
        for name in ("", "control"):
            request = json.loads((folder / name / "request.json").read_text())
            pictures.append("data:image/png" in json.dumps(request))
            assert "Application startup complete" in (folder / name / "server.log").read_text()
        assert pictures == [True, False]
