"""No secret leaves: not through a server that logs it, not through one that answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driving import Done, Vbisect, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex

TOKEN = "hf_" + "aB3" * 10  # known by its shape
KEY = "correct-horse-battery-staple"  # known only by the name of the variable that holds it
SECRETS = {"HF_TOKEN": TOKEN, "OTHER_API_KEY": KEY}
LEAK = f"HF_TOKEN={TOKEN} OTHER_API_KEY={KEY}"


@pytest.fixture
def leaky(tmp_path: Path, command: Callable[..., Vbisect]) -> Iterator[Vbisect]:
    """Releases that tell what they know: on failing, on starting, on answering."""
    known = {
        "93.0": Behaviour(leaks=LEAK, fail_rate={"chat": 1.0}),
        "93.1": Behaviour(fault="exit_before_ready", fault_log=f"OSError: no access with {LEAK}"),
        "93.2": Behaviour(reported_version=LEAK),
        "93.3": Behaviour(leaks=LEAK, served=("completions",)),
        "93.4": Behaviour(leaks=LEAK),
    }
    with PackageIndex(world(tmp_path / "wheels", known)) as index:
        yield command(index)


def evidence(done: Done) -> dict[str, str]:
    """Everything that is left of a run, the logs of servers included."""
    files = [p for p in done.run_dir.rglob("*") if p.is_file()]
    texts = {str(p.relative_to(done.run_dir)): p.read_text() for p in files}
    return texts | {"stdout": done.stdout, "stderr": done.stderr}


def test_a_server_cannot_leak_a_secret(leaky: Vbisect) -> None:
    words = ("--from", "93.0", "--to", "93.4", "--sweep", "--confidence", "0.6")
    done = leaky.run(*words, "--env", "HF_TOKEN", **SECRETS)
    assert {version: trial["outcome"] for version, trial in done.trials.items()} == {
        "93.0": "fail",
        "93.1": "skip",
        "93.2": "skip",
        "93.3": "skip",
        "93.4": "pass",
    }
    # The server did leak, and where the secret was, its name stands.
    log = done.run_dir / "trials" / "93.0" / "server.log"
    assert log.stat().st_size > 0
    assert "<HF_TOKEN>" in done.trials["93.1"]["detail"]
    assert "<OTHER_API_KEY>" in done.trials["93.2"]["detail"]
    written = evidence(done)
    assert {"journal.jsonl", "report.md", "table.csv", "run.toml"} <= set(written)
    assert "<HF_TOKEN>" in written["trials/93.0/responses.jsonl"]
    assert "<HF_TOKEN>" in written["trials/93.0/server.log"]
    for name, text in written.items():
        assert TOKEN not in text, name
        assert KEY not in text, name


def test_a_password_in_the_index_address_is_not_kept(leaky: Vbisect) -> None:
    address = leaky.index.url.replace("://", "://user:s3cret-word@")
    leaky.index.fail_next("93.4", 503, times=1000)
    done = leaky.run(
        *("--from", "93.0", "--to", "93.4", "--skip", "93.1..93.3", "--confidence", "0.6"),
        PIP_INDEX_URL=address,
        UV_HTTP_RETRIES="0",
    )
    assert done.returncode == 4
    assert "package index cannot be reached" in done.json["message"]
    for name, text in evidence(done).items():
        assert "s3cret-word" not in text, name


@pytest.mark.parametrize("text", [KEY, TOKEN, "at https://me:s3cret-word@h/"])
def test_no_option_that_is_recorded_may_hold_a_secret(vbisect: Vbisect, text: str) -> None:
    """It is refused before anything is written, and not repeated."""
    done = vbisect.run("--from", "0.30.0", "--to", "0.32.0", "--failure", text, **SECRETS)
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds a secret" in done.stderr
    assert text not in done.stderr
    assert not list(vbisect.results.iterdir())
