"""What ``vbisect simulate`` prints in a declared world, to the letter.

A transcript begins with the world in one line and the command; the rest is the output. To add one,
write these two lines. ``pytest tests/test_transcripts.py --refresh`` writes the rest anew.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from vbisect.cli import app
from vbisect.shell import run_app

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_what_is_printed(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """The terminal output of a world's first run, which virtual time and dice make the same."""
    world, prompt, *_ = path.read_text(encoding="utf-8").splitlines()
    assert prompt.startswith("$ vbisect simulate WORLD.json")
    (tmp_path / "WORLD.json").write_text(world)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", shlex.split(prompt.removeprefix("$ ")))
    assert run_app(app) == 0
    told = f"{world}\n{prompt}\n{capsys.readouterr().out}"
    if request.config.getoption("--refresh"):
        path.write_text(told, encoding="utf-8")
        pytest.skip("the transcript was written anew")
    assert told == path.read_text(encoding="utf-8"), "pytest tests/test_transcripts.py --refresh"


def test_there_are_transcripts() -> None:
    """The folder is found, whatever the tests are started from."""
    assert len(TRANSCRIPTS) >= 12
