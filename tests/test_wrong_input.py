"""Wrong input: the documented exit code, one clear line on stderr, nothing on stdout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from driving import NO_ENGINE, Done, Vbisect
from made import settings
from standin.index import PackageIndex
from vbisect.run.journal import EventKind, Journal

RANGE = ("--from", "0.27.1", "--to", "0.32.0")
RUN_TOML = 'schema = 1\nvbisect = "0"\nrun_id = "x"\nfrom = "0.28.0"\nto = "0.29.0"\n'


@dataclass(frozen=True)
class Case:
    """Arguments of vbisect, what has to be said, the exit code; `{tmp}` is a scratch directory."""

    words: tuple[str, ...]
    said: str
    code: int = 2
    env: dict[str, str] = field(default_factory=dict)


def run(*words: str, said: str, code: int = 2, **env: str) -> Case:
    """A case of `vbisect run` over a good range."""
    return Case(("run", *RANGE, "--device", "cpu", *words), said, code, env)


def ends(start: str, end: str, said: str) -> Case:
    """A case of a wrong range."""
    return Case(("run", "--device", "cpu", "--from", start, "--to", end), said)


CASES = {
    "unknown version": ends("0.27.5", "0.32.0", "the nearest are 0.27.1 and 0.28.0."),
    "newer than all": ends("0.27.1", "9.9", "the nearest is 0.33.0."),
    "no version": ends("banana", "0.32.0", "'banana' is not a version"),
    "ends swapped": ends("0.32.0", "0.27.1", "--from 0.32.0 is newer than --to 0.27.1"),
    "one candidate": ends("0.28.0", "0.28.0", "fewer than two candidates"),
    "no --from": Case(("run", "--to", "0.32.0"), "Give both --from and --to"),
    "n of zero": run("--n", "0", said="--n 0: n must be between 1 and 16384"),
    "n too large": run("--n", "8", "--n", "16385", said="--n 16385: n must be between"),
    "n no number": run("--n", "many", said="Invalid value for '--n'"),
    "greedy": run(
        "--temperature", "0", said="--temperature 0: vLLM refuses n=8 without randomness"
    ),
    "greedy too": run("--temperature", "-0.0", "--n", "1", "--n", "2", said="refuses n=2 without"),
    "endpoint": run("--endpoint", "embed", said="--endpoint embed: choose one of chat"),
    "suite and n": run("--suite", "--n", "4", said="by itself: leave out --n"),
    "variation": run("--suite", "--bisect-on", "sed", said="--bisect-on sed: choose one of n=1,"),
    "no suite": run("--bisect-on", "seed", said="--bisect-on seed: it needs --suite"),
    "probe": run("--probe", "magic", said="--probe magic: choose one of"),
    "tiny model": run("--model", "tiny:gpt", said="--model tiny:gpt: the tiny models are"),
    "model path": run("--model", "{tmp}/no-model", said="config.json cannot be read"),
    "model of nobody": run("--model", "~nosuchuser/x", said="--model ~nosuchuser/x: there is no"),
    "no model": run("--model", "", said="--model is empty"),
    "no control": run("--control-model", "", said="--control-model is empty"),
    "long model": run("--model", "/" + "x" * 300, said="config.json cannot be read: File name too"),
    "long name": run("--model", "x" * 300, said="is neither a directory nor a Hugging Face id"),
    "model file": run("--model", "{tmp}/model", said="config.json is not JSON"),
    "no command": run("--probe", "command", said="--probe command needs a command after --"),
    "empty command": run("--", said="Invalid value for --: no command follows it"),
    "yes to nothing": run("--yes", said="Invalid value for --yes: it is for --from-issue"),
    "missing command": run("--", "/nowhere/check", said="/nowhere/check is not there"),
    "specifier": run("--serve-arg", "--x; >=zero", said="'>=zero' is not a version specifier"),
    "env secret": run("--env", "HF_TOKEN=hf_abcdefgh", said="secrets are not recorded"),
    "env password": run("--env", "DB_PASS=hunter", said="--env DB_PASS: secrets are not recorded"),
    "argument": run(
        "--serve-arg", "--hf-token hunter", said="--hf-token: secrets are not recorded"
    ),
    "argument in two": run(
        *("--serve-arg", "--hf-token", "--serve-arg", "hunter"),
        said="--hf-token: secrets are not recorded",
    ),
    "secret": run("--serve-arg", f"--revision hf_{'aB3' * 10}", said="the value holds a secret"),
    "secret word": run("--", "/bin/echo", f"hf_{'aB3' * 10}", said="the value holds a secret"),
    "no engine": run("--runtime", "docker", said=f"answers at unix://{NO_ENGINE}", code=4),
    "engine address": run("--docker-host", "gpu01", said="--docker-host gives no address"),
    "not docker": run("--gpus", "all", said="--gpus is for --runtime docker, and this is"),
    "plan": Case(("plan", "--from", "0.27.1"), "Give both --from and --to.\n"),
    "nightly index": Case(
        ("run", "--from", "0.27.1", "--to", "nightly", *("--device", "cpu", "--runtime", "venv")),
        "VBISECT_NIGHTLY_INDEX is no address of an index",
        env={"VBISECT_NIGHTLY_INDEX": "{tmp}/nightly"},
    ),
    "plan resumed": Case(("plan", "--resume", "{tmp}"), "a run that was begun has its plan"),
    "doctor's engine": Case(("doctor", "--docker-host", "gpu01"), "--docker-host gives no"),
    "clean's engine": Case(
        ("clean", "--docker-host", f"unix://{NO_ENGINE}"), "No Docker engine answers at", 4
    ),
    "clean what": Case(("clean", "banana"), "'banana' is not a version"),
    "unwritable cache": Case(
        ("plan", *RANGE, "--device", "cpu"),
        "The cache {tmp}/file cannot be written",
        4,
        {"VBISECT_CACHE_DIR": "{tmp}/file"},
    ),
    "endless world": Case(("simulate", "/dev/zero"), "it has more than 16 MiB"),
    "device": Case(
        ("run", *RANGE, "--device", "cuda"), "--device cuda: the NVIDIA driver is not installed", 4
    ),
    "confidence high": run("--confidence", "1", said="--confidence 1: it must be at least 0.5"),
    "boot timeout": run("--boot-timeout", "0", said="--boot-timeout 0: it must be above 0"),
    "endless": run("--boot-timeout", "inf", said="--boot-timeout inf: it must be at most 1e+09"),
    "no UTF-8": run("--", "/bin/echo", "\udcff", said="A text among the options is no UTF-8"),
    "skip nothing": run("--skip", "0.20.0", said="--skip 0.20.0 names no candidate"),
    "skip all": run("--skip", "0.27.1..0.32.0", said="--skip leaves fewer than two candidates"),
    "unknown option": run("--bananas", said="No such option: --bananas"),
    "unknown command": Case(("bisect",), "No such command 'bisect'"),
    "results empty": run("--results", "", said="'--results': it is empty"),
    "results a file": run("--results", "{tmp}/file", said="--results {tmp}/file cannot be written"),
    "no run directory": Case(("run", "--resume", "{tmp}"), "{tmp} is not a run directory"),
    "not even resumable": Case(
        ("run", "--resume", "{tmp}/linked"), "linked is not a run directory"
    ),
    "report of none": Case(("report", "{tmp}"), "{tmp} is not a run directory"),
    "resume with range": Case(("run", "--resume", "{tmp}", *RANGE), "leave out --from, --to"),
    "resume with options": Case(
        ("run", "--resume", "{tmp}", "--fresh", "--n", "8", "--json", "--", "true"),
        "options it was begun with: leave out -- CMD, --fresh, --n",
    ),
    "damaged run.toml": Case(("run", "--resume", "{tmp}/torn"), "run.toml is damaged"),
    "incomplete run.toml": Case(("run", "--resume", "{tmp}/half"), "run.toml is damaged: device"),
    "report format": Case(("report", "{tmp}/half", "--format", "pdf"), "--format pdf: choose"),
}


@pytest.fixture(scope="module")
def answers(
    family_index: PackageIndex, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Done]]]:
    """What vbisect does with every case; two at a time, which is what takes the time."""
    tmp = tmp_path_factory.mktemp("wrong")
    for folder in ("bin", "model", "torn", "half", "results"):
        (tmp / folder).mkdir()
    (tmp / "file").touch()
    (tmp / "linked").mkdir()
    (tmp / "linked" / "elsewhere").symlink_to("/etc")
    (tmp / "model" / "config.json").write_text("{")
    (tmp / "torn" / "run.toml").write_text(RUN_TOML[:-4])
    (tmp / "half" / "run.toml").write_text(RUN_TOML)
    vbisect = Vbisect(family_index, tmp, tmp / "vbisect", tmp / "results")

    def ask(case: Case) -> Done:
        words = [word.replace("{tmp}", str(tmp)) for word in case.words]
        if words[0] == "run" and not {"--results", "--resume"} & set(words):
            words[1:1] = ["--results", str(tmp / "results")]
        env = {name: value.replace("{tmp}", str(tmp)) for name, value in case.env.items()}
        return vbisect(*words, **env)

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield tmp, dict(zip(CASES, pool.map(ask, CASES.values()), strict=True))
    finally:
        assert not vbisect.close()


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_is_one_line(answers: tuple[Path, dict[str, Done]], name: str) -> None:
    tmp, found = answers
    done, case = found[name], CASES[name]
    assert case.said.replace("{tmp}", str(tmp)) in done.stderr
    assert done.returncode == case.code
    assert done.stdout == ""
    assert done.stderr.startswith("vbisect: ")
    assert done.stderr.count("\n") == 1


def test_wrong_input_leaves_nothing(answers: tuple[Path, dict[str, Done]]) -> None:
    tmp, _ = answers
    assert not list((tmp / "results").iterdir())
    assert not (tmp / "vbisect" / "environments").exists()
    assert not (tmp / "half" / "lock").exists()
    assert not (tmp / "state").exists()  # the log of unexpected errors


def test_an_unwritable_results_directory_is_said(vbisect: Vbisect) -> None:
    locked = "/proc/results"  # where nobody makes a directory, not even root
    done = vbisect("run", *RANGE, "--device", "cpu", "--results", locked)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"vbisect: --results {locked} cannot be written: ")
    assert done.stderr.count("\n") == 1


def test_an_unwritable_cache_stops_the_run(vbisect: Vbisect, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = vbisect.run(*RANGE, VBISECT_CACHE_DIR=str(tmp_path / "file"))
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert f"{tmp_path}/file cannot be written: " in done.stderr


def test_options_are_checked_before_anything_is_asked(
    vbisect: Vbisect, family_index: PackageIndex
) -> None:
    before = sum(family_index.requests.values())
    assert vbisect.run(*RANGE, "--n", "0").returncode == 2
    assert sum(family_index.requests.values()) == before


def test_nobody_listens(vbisect: Vbisect, tmp_path: Path) -> None:
    """A reader that has gone, or that never was, is no error; a full disk is one line."""
    world = tmp_path / "world.json"
    world.write_text('{"candidates": 51, "change": null}')
    line = f"{sys.executable} -m vbisect simulate {world}"
    settings().write(tmp_path)
    with Journal(tmp_path) as journal:
        journal.append(EventKind.RUN_STARTED)
    report = f"{sys.executable} -m vbisect report {tmp_path}"
    for shell, code, said in (
        (f"{line} | true; exit ${{PIPESTATUS[0]}}", 0, ""),
        (f"{line} >&-", 0, ""),
        (f"{line} >&- 2>&-", 0, ""),
        (f"{line} > /dev/full", 4, "vbisect: the disk is full\n"),
        (f"{report} > /dev/full", 4, "vbisect: the disk is full\n"),
        (f"{report} | true; exit ${{PIPESTATUS[0]}}", 0, ""),
    ):
        done = subprocess.run(
            ["bash", "-c", shell], env=vbisect.env, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (code, said), shell


def test_an_interrupt_before_the_command_line_is_read(vbisect: Vbisect) -> None:
    """Importing takes a moment, in which one may change one's mind."""
    code = (
        "import signal, sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "from vbisect.shell import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=vbisect.env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "vbisect: interrupted\n")


def test_no_command_is_answered_with_the_help(vbisect: Vbisect) -> None:
    """All of it, line by line: whoever types the name alone wants to know what there is."""
    done = vbisect()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == vbisect("--help").stdout
