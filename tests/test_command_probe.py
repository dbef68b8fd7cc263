"""The command probe: the command's environment, its exit codes, its end, and its children."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driving import Vbisect, counts, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex

QUICK = ("--confidence", "0.6")
VERSIONS = ("90.0", "90.1", "90.2", "90.3")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """Releases without a fault: the commands alone decide."""
    known = {version: Behaviour() for version in VERSIONS}
    with PackageIndex(world(tmp_path_factory.mktemp("command"), known)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("command-cache")


@pytest.fixture
def vbisect(command: Callable[..., Vbisect], index: PackageIndex, cache: Path) -> Vbisect:
    """The command line over them."""
    return command(index, cache)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Writes a shell script to probe with."""

    def write(text: str) -> str:
        path = tmp_path / "check.sh"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_the_exit_codes_are_those_of_git_bisect(
    vbisect: Vbisect, script: Callable[[str], str]
) -> None:
    check = script(
        'echo "probing $1 of $VBISECT_VERSION"\n'
        "case $VBISECT_VERSION in 90.0) exit 1;; 90.1) exit 125;; 90.2) exit 127;; esac"
    )
    ends = ("--from", "90.0", "--to", "90.3")
    done = vbisect.run(*ends, *QUICK, "--sweep", "--", check, "a b")
    assert done.returncode == 0, done.stderr
    trials = {version: (t["outcome"], t["reason"]) for version, t in done.trials.items()}
    assert trials == {
        "90.0": ("fail", None),
        "90.1": ("skip", "command said skip"),
        "90.2": ("fail", None),
        "90.3": ("pass", None),
    }
    assert done.trials["90.0"]["signature"] == "the command ended with exit status 1"
    assert done.trials["90.2"]["signature"] == "the command ended with exit status 127"
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("90.2", "90.3")
    log = (done.run_dir / "trials" / "90.3" / "command.log").read_text()
    assert set(log.splitlines()) == {"probing a b of 90.3"}
    assert done.json["replay"].endswith(shlex.join(["--", check, "a b"]))


def test_the_command_is_told_where_the_server_is(
    vbisect: Vbisect, script: Callable[[str], str]
) -> None:
    names = ("VBISECT_BASE_URL", "VBISECT_MODEL", "OPENAI_BASE_URL", "OPENAI_API_KEY")
    check = script("\n".join(f'echo "{name}=${name}"' for name in names))
    done = vbisect.run("--from", "90.2", "--to", "90.3", *QUICK, "--", check)
    assert done.returncode == 1, done.stderr
    log = (done.run_dir / "trials" / "90.3" / "command.log").read_text()
    told = dict(line.split("=", 1) for line in log.splitlines())
    base = told["VBISECT_BASE_URL"]
    assert base.startswith("http://127.0.0.1:")
    assert base.count("/") == 2
    assert told["OPENAI_BASE_URL"] == f"{base}/v1"
    assert told["OPENAI_API_KEY"]
    assert told["VBISECT_MODEL"] == "tiny-qwen2"
    server = (done.run_dir / "trials" / "90.3" / "server.log").read_text()
    assert f"Starting vLLM server on {base}\n" in server


def test_an_abort_stops_the_run_resumably(vbisect: Vbisect, script: Callable[[str], str]) -> None:
    check = script("test $VBISECT_VERSION = 90.2 && exit 1\nexit 128")
    done = vbisect.run("--from", "90.2", "--to", "90.3", *QUICK, "--", check)
    assert (done.returncode, done.json["status"]) == (4, "failed")
    assert "exit status 128 for 90.3" in done.json["message"]
    assert set(done.trials) == {"90.2"}
    script("test $VBISECT_VERSION = 90.3")  # the command, repaired
    resumed = vbisect.resume(done.run_dir)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.json["answer"]["first_after"] == "90.3"
    assert counts(done.run_dir, "trial_finished") == {"90.2": 1, "90.3": 1}


def test_a_command_ended_by_a_signal_aborts(vbisect: Vbisect, script: Callable[[str], str]) -> None:
    check = script("kill -KILL $$")
    done = vbisect.run("--from", "90.2", "--to", "90.3", *QUICK, "--", check)
    assert (done.returncode, done.json["status"]) == (4, "failed")
    assert "exit status 137 for 90.2" in done.json["message"]


def test_a_command_that_does_not_end_is_a_skip(
    vbisect: Vbisect, script: Callable[[str], str]
) -> None:
    # The child leaves the group and ignores SIGTERM; the fixture looks for it.
    check = script(
        "setsid sh -c 'trap \"\" TERM; sleep 300' &\ntest $VBISECT_VERSION = 90.3 || wait"
    )
    timeout = ("--command-timeout", "0.5")
    done = vbisect.run("--from", "90.2", "--to", "90.3", *QUICK, *timeout, "--", check)
    assert done.returncode == 3
    trial = done.trials["90.2"]
    assert (trial["outcome"], trial["reason"]) == ("skip", "command timed out")
    assert trial["detail"] == "the command did not end within 0.5 s"
    assert done.trials["90.3"]["outcome"] == "pass"
    assert not vbisect.left()
