"""A run directory that somebody sends: nothing outside of it is read, written, removed or run."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from driving import NO_ENGINE, Vbisect
from made import VERSIONS, failed, passed, settings, state
from standin.index import PackageIndex
from vbisect.commands.run import old_run
from vbisect.errors import HostError, UsageError
from vbisect.files import Below, append_to, refuse_links, remove_below, write_whole
from vbisect.locks import file_lock
from vbisect.probes import CommandSettings, Endpoint, NChoicesSettings
from vbisect.probes.suite import SuiteSettings, variations
from vbisect.report.comment import gist_files, to_comment
from vbisect.report.formats import FORMATS, render, write_reports
from vbisect.run.docker_settings import DockerSettings
from vbisect.run.journal import EventKind, Journal
from vbisect.run.records import Finding, Status
from vbisect.run.settings import RunSettings
from vbisect.run.state import load_state
from vbisect.run.trust import what_would_run

PRIVATE = "private words"


def write_run(run_dir: Path, **changed: Any) -> Path:
    """The directory of a run that was interrupted after two trials."""
    (run_dir / "trials" / "0.27.1").mkdir(parents=True)
    settings(**changed).write(run_dir)
    interrupted = Finding(status=Status.INTERRUPTED, message="interrupted")
    with Journal(run_dir) as journal:
        journal.append(EventKind.RUN_STARTED, vbisect="0.1", argv="run")
        for record in (failed("0.27.1", "returned 1 of 2 choices"), passed("0.32.0")):
            dumped = record.model_dump(mode="json", by_alias=True)
            journal.append(EventKind.TRIAL_FINISHED, record=dumped)
        journal.append(EventKind.RUN_STOPPED, finding=interrupted.model_dump(mode="json"))
    return run_dir


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Such a run, begun by somebody else as far as this user's cache knows."""
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path / "cache"))
    return write_run(tmp_path / "results" / "r")


def edited(run_dir: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The settings with something else in them."""
    path = run_dir / "run.toml"
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(tomli_w.dumps(data), encoding="utf-8")


def damaged(run_dir: Path, words: str = "is damaged") -> None:
    """Reading it is one line of at most a thousand characters, and the exit code of wrong input."""
    with pytest.raises(UsageError, match=words) as caught:
        load_state(run_dir)
    assert caught.value.exit_code == 2


ESCAPE = "80.0/../../../victim/env"
FULL = {
    "docker": DockerSettings(image_repo="a/b", gpus="none", images={"0.28.0": "a/b:c"}),
    "runtime": "docker",
    "suite": SuiteSettings(request=NChoicesSettings(), variations=variations(Endpoint.CHAT)),
    "command": CommandSettings(command=("true",)),
}
NAMES: dict[str, Callable[[dict[str, Any]], object]] = {
    "wheel": lambda d: d["candidates"][1]["wheels"]["cpu"].update(version=ESCAPE),
    "wheel with spaces": lambda d: d["candidates"][1]["wheels"]["cpu"].update(version=" 80.0\n"),
    "wheel of two": lambda d: d["candidates"][1]["wheels"]["cpu"].update(version="80.0 evil==1"),
    "distribution": lambda d: d["candidates"][1]["wheels"]["cpu"].update(distribution="../vllm"),
    "other distribution": lambda d: d["candidates"][1]["wheels"]["cpu"].update(distribution="evil"),
    "index": lambda d: d["candidates"][1]["wheels"]["cpu"].update(index="--find-links=/tmp"),
    "release": lambda d: d["candidates"][1].update(version=ESCAPE),
    "release above": lambda d: d["candidates"][1].update(version=".."),
    "long release": lambda d: d["candidates"][1].update(version="1." + "0" * 100),
    "release twice": lambda d: d["candidates"][1].update(version="0.27.1"),
    "image of a release": lambda d: d["candidates"][1].update(image="../x:y z"),
    "commit": lambda d: d["candidates"][1].update(commit="../../other/repo"),
    "no candidates": lambda d: d.update(candidates=[]),
    "left out": lambda d: d.update(excluded=["0.1"]),
    "hint": lambda d: d.update(hint="0.1"),
    "variation": lambda d: d["suite"]["variations"][0].update(name="/../../../victim/env"),
    "limit of a variation": lambda d: d["suite"]["variations"][0].update(specifier="~~"),
    "images": lambda d: d["docker"].update(images={"0.28.0": "A//b"}),
    "version of an image": lambda d: d["docker"].update(images={"../x": "a/b"}),
    "repository": lambda d: d["docker"].update(image_repo="a/../b"),
    "variant": lambda d: d["docker"].update(image_variant="x y"),
    "base": lambda d: d["docker"].update(base_image="x\nRUN evil"),
    "GPUs": lambda d: d["docker"].update(gpus="0;1"),
    "build": lambda d: d["docker"].update(build="often"),
    "runtime": lambda d: d.update(runtime="ssh"),
    "no engine": lambda d: d.pop("docker"),
    "no command": lambda d: d["command"].update(command=[]),
    "NUL": lambda d: d["command"].update(command=["a\0b"]),
    "quotes": lambda d: d.update(serve_args=[{"text": "--x 'y"}]),
    "specifier": lambda d: d.update(env=[{"text": "A=1", "specifier": ">=x"}]),
    "variable": lambda d: d.update(model_env={"A=B": "1"}),
    "confidence": lambda d: d.update(confidence=float("nan")),
    "endless": lambda d: d.update(boot_timeout=float("inf")),
    "endless request": lambda d: d["n_choices"].update(request_timeout=float("inf")),
    "model of nobody": lambda d: d.update(model_path="~nosuchuser/x"),
    "control of nobody": lambda d: d.update(control_model="x", control_path="~nosuchuser/x"),
    "no request": lambda d: d["n_choices"].update(n=[]),
    "jobs": lambda d: d.update(jobs=10**30),
    "a table for a text": lambda d: d.update(model={"a": 1}),
    "schema of another kind": lambda d: d.update(schema="2"),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_name_is_damage(tmp_path: Path, name: str) -> None:
    """Whatever a folder, a requirement, an image or a process is named by is read as that only."""
    run_dir = write_run(tmp_path / "r", **FULL)
    load_state(run_dir)
    edited(run_dir, NAMES[name])
    damaged(run_dir)


def test_settings_of_a_newer_vbisect_are_said_to_be(run_dir: Path) -> None:
    """And the journal beside them stays as it is."""
    before = (run_dir / "journal.jsonl").read_bytes()
    edited(run_dir, lambda data: data.update(schema=2))
    damaged(run_dir, r"run\.toml was written by a newer vbisect \(schema 2\)")
    with pytest.raises(UsageError, match="newer vbisect"):
        old_run(run_dir, trusted=True)
    assert (run_dir / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"x = " + b"[" * 100_000, b"schema = 1e999\n", b"\xff", b"a = 1" + b"0" * 5000],
    ids=["nested", "number", "no UTF-8", "digits"],
)
def test_settings_that_are_none_are_damage(run_dir: Path, content: bytes) -> None:
    (run_dir / "run.toml").write_bytes(content)
    damaged(run_dir)


AT = '"at": "2026-11-22T17:00:00+00:00"'
ANSWER = {
    "change": "fix",
    "last_before": "0.27.1",
    "first_after": "0.32.0",
    "exact": True,
    "suspects": ["0.32.0"],
    "confidence": 0.9,
}


def end_of(**changed: Any) -> str:
    """The end of a run with an answer."""
    found = {"status": "found", "message": "m", "answer": {**ANSWER, **changed}}
    return f'{{"event": "run_finished", {AT}, "finding": {json.dumps(found)}}}'


def trial_of(**changed: Any) -> str:
    """The end of a trial."""
    record = passed("0.28.0").model_dump(mode="json", by_alias=True) | changed
    return f'{{"event": "trial_finished", {AT}, "record": {json.dumps(record)}}}'


@pytest.mark.parametrize(
    "line",
    [
        end_of(last_before="0.1"),
        end_of(first_after=ESCAPE),
        end_of(suspects=["<script>"]),
        end_of(first_after="0.28.0", suspects=["0.28.0"]),
        end_of(first_after="0.27.1", last_before="0.32.0"),
        end_of(first_after="0.32.0", suspects=["0.28.0", "0.29.0"], exact=True),
        end_of(first_after="0.32.0", suspects=["0.27.1"]),
        end_of(first_after="0.32.0", suspects=[]),
        end_of(confidence=float("nan")),
        end_of(confidence=1e300),
        trial_of(version=ESCAPE),
        trial_of(version="0.1"),
        trial_of(signature={"a": 1}),
        trial_of(seconds={"boot": float("inf")}),
        trial_of(measured={"latency_median": float("nan")}),
        trial_of(observations={"pass": -1}),
        trial_of(observations={"pass": 10**18}),
        trial_of(size_bytes=10**200),
        f'{{"event": "note", {AT}, "text": {{"a": 1}}}}',
        f'{{"event": "note", {AT}}}',
        f'{{"event": "note", {AT}, "text": 1e999}}',
        f'{{"event": "trial_started", {AT}, "version": "../x"}}',
        f'{{"event": "trial_started", {AT}, "version": ["0.28.0"]}}',
        f'{{"event": "observation", {AT}, "version": "0.1", "partial": {{}}}}',
        f'{{"event": "build_ready", {AT}}}',
        '{"event": "note", "at": "2026-11-22T17:00:00", "text": "no zone"}',
        '{"event": "note", "at": 5, "text": "x"}',
        f'{{"event": "note", {AT}, "text": ' + "[" * 100_000 + "}",
        f'{{"event": "note", {AT}, "text": "x", "odd": ' + '{"a":' * 300 + "1" + "}" * 301,
    ],
    ids=lambda line: line[:20] + "…" + line[-30:],
)
def test_an_odd_event_is_damage(run_dir: Path, line: str) -> None:
    """A text that is none, a number that is none, an answer or a release that is no candidate."""
    with (run_dir / "journal.jsonl").open("a", encoding="utf-8") as journal:
        journal.write(line + "\n")
    damaged(run_dir, r"journal\.jsonl is damaged in line 5\.")


def test_json_is_json(tmp_path: Path) -> None:
    """Numbers that are none are not even kept, and what has no place in UTF-8 is escaped."""
    with Journal(tmp_path) as journal:
        told = journal.append(EventKind.NOTE, text="x", odd=[float("nan"), {"a": float("-inf")}])
    assert told["odd"] == [None, {"a": None}]
    json.loads((tmp_path / "journal.jsonl").read_text(), parse_constant=pytest.fail)
    made = state("\ud800")
    json.loads(render("json", made, tmp_path), parse_constant=pytest.fail)
    write_reports(made, tmp_path)


LINKS = {
    "run.toml": "a file",
    "journal.jsonl": "a file",
    "journal.torn": "a file",
    "lock": "a file",
    "report.md": "a file",
    "report.md.part": "a file",
    "table.csv": "a file",
    "trials": "a folder",
    "trials/0.27.1": "a folder",
    "trials/0.28.0": "a folder",
    "trials/0.27.1/server.log": "a file",
    "trials/0.27.1/server.log.part": "a file",
    "trials/0.27.1/control": "a folder",
}


def tree(top: Path) -> dict[str, bytes | None]:
    """All that lies below a folder."""
    return {
        str(path.relative_to(top)): path.read_bytes() if path.is_file() else None
        for path in top.rglob("*")
    }


@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe"])
@pytest.mark.parametrize("name", LINKS)
def test_a_run_directory_with_a_link_is_not_gone_on_with(
    run_dir: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """Wherever it is, and whether or not the run is trusted: nothing is written at either end."""
    if kind != "symbolic" and LINKS[name] == "a folder":
        return
    victim = tmp_path / "victim"
    path = run_dir / name
    if LINKS[name] == "a folder":
        shutil.copytree(path, victim) if path.exists() else victim.mkdir()
        shutil.rmtree(path, ignore_errors=True)
    else:
        victim.mkdir()
        (victim / "file").write_bytes(path.read_bytes() if path.exists() else b"")
        path.unlink(missing_ok=True)
    target = victim if LINKS[name] == "a folder" else victim / "file"
    if kind == "symbolic":
        path.symlink_to(target)
    elif kind == "hard":
        path.hardlink_to(target)
    else:
        os.mkfifo(path)
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=rf"r is not gone on with: {name} is a link") as caught:
        old_run(run_dir, trusted=True)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_folders_without_end_are_not_gone_into(run_dir: Path) -> None:
    """As deep as no run's are, and deeper than a program can follow."""
    inner = os.open(run_dir, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=inner)
        outer, inner = inner, os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)
    try:
        with pytest.raises(UsageError, match="nested too deeply"):
            old_run(run_dir, trusted=True)
    finally:
        subprocess.run(["rm", "-r", str(run_dir)], check=True)


@pytest.mark.parametrize("name", ["lock", "journal.torn"])
def test_a_folder_in_the_place_of_a_file_is_said(run_dir: Path, name: str) -> None:
    """What cannot be written is the host's matter, in one line."""
    with (run_dir / "journal.jsonl").open("a", encoding="utf-8") as journal:
        journal.write("{")
    (run_dir / name).mkdir()
    with pytest.raises(
        HostError, match=r"cannot be (written|set aside): Is a directory\."
    ) as caught:
        old_run(run_dir, trusted=True)
    assert "\n" not in str(caught.value)


def test_what_vanishes_meanwhile_does_not_end_the_search_for_links(tmp_path: Path) -> None:
    """Of many files that come and go, one that stays a link is always found."""
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "link").symlink_to(tmp_path)
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for number in range(50):
                (tmp_path / f"{number}").touch()
            for number in range(50):
                (tmp_path / f"{number}").unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(300):
            with pytest.raises(UsageError, match="z/link is a link"):
                refuse_links(tmp_path)
    finally:
        over.set()
        thread.join()


def test_files_are_made_beside_and_renamed(tmp_path: Path) -> None:
    """A link in the place of a file, or of its unfinished part, is replaced."""
    victim = tmp_path / "victim"
    victim.write_text(PRIVATE)
    for name in ("report.md", "report.md.part"):
        (tmp_path / name).symlink_to(victim)
    write_whole(tmp_path / "report.md", "told")
    assert (tmp_path / "report.md").read_text() == "told"
    assert not (tmp_path / "report.md").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.md", "victim"]
    for link in (tmp_path / "soft", tmp_path / "hard"):
        link.symlink_to(victim) if link.name == "soft" else link.hardlink_to(victim)
        with pytest.raises(OSError, match="link"):
            append_to(link)
        with pytest.raises(OSError, match="link"), file_lock(link):
            pass
    assert victim.read_text() == PRIVATE


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../victim", "/", "x\0", "\ud800"])
def test_nothing_but_what_lies_directly_below_is_removed(tmp_path: Path, name: str) -> None:
    """By whatever name it is asked for."""
    (tmp_path / "cache" / "a" / "b").mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    with pytest.raises(OSError, match="no name"):
        remove_below(tmp_path / "cache", name)
    with pytest.raises(OSError, match="no name"):
        (Below(tmp_path / "cache") / name / "b").open()
    assert (tmp_path / "cache" / "a" / "b").is_dir()
    assert (tmp_path / "victim").is_dir()


def test_what_a_link_leads_to_is_not_removed(tmp_path: Path) -> None:
    """Neither where the link is the thing itself, nor within it."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    cache = tmp_path / "cache"
    (cache / "a").mkdir(parents=True)
    (cache / "a" / "link").symlink_to(victim)
    (cache / "b").symlink_to(victim)
    for name in ("a", "b"):
        remove_below(cache, name)
    assert not list(cache.iterdir())
    assert (victim / "file").exists()


@pytest.mark.parametrize("place", ["trials", "trials/0.27.1", "trials/0.27.1/server.log"])
def test_reports_and_comments_show_nothing_from_outside(tmp_path: Path, place: str) -> None:
    """A link at any level of the way to the evidence leads nowhere."""
    outside, run_dir = tmp_path / "outside", tmp_path / "r"
    folder = outside / "trials" / "0.27.1"
    folder.mkdir(parents=True)
    for name in ("server.log", "build.log", "request.json", "environment.json", "responses.jsonl"):
        (folder / name).write_text(json.dumps({"host": {"system": PRIVATE}, "body": PRIVATE}))
    (run_dir / place).parent.mkdir(parents=True)
    (run_dir / place).symlink_to(outside / place)
    made = state()
    shown = [render(name, made, run_dir) for name in FORMATS]
    shown += [to_comment(made, run_dir).body, json.dumps(gist_files(made, run_dir))]
    assert not [text for text in shown if PRIVATE in text]


@pytest.mark.parametrize("name", ["run.toml", "journal.jsonl", "commits.json"])
def test_a_report_reads_no_link(tmp_path: Path, run_dir: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text(PRIVATE)
    (run_dir / name).unlink(missing_ok=True)
    (run_dir / name).symlink_to(outside)
    if name == "commits.json":
        assert PRIVATE not in render("json", load_state(run_dir)[0], run_dir)
    else:
        damaged(run_dir, f"{name} cannot be read: ")


CODE = {
    "n_choices": None,
    "command": CommandSettings(command=("/bin/sh", "-c", "touch /tmp/vbisect-was-run")),
    "model_env": {"LD_PRELOAD": "/tmp/evil.so"},
}


@pytest.fixture
def sent(
    command: Callable[..., Vbisect], family_index: PackageIndex, tmp_path: Path
) -> tuple[Vbisect, Path]:
    """The command, and a run that somebody sent; no engine is there, so going on ends at once."""
    docker = DockerSettings(image_repo="a/b", gpus="none", host=f"unix://{NO_ENGINE}")
    run_dir = write_run(tmp_path / "sent" / "r", **CODE, runtime="docker", docker=docker)
    edited(
        run_dir,
        lambda data: data["candidates"][0]["wheels"]["cpu"].update(index="https://evil.example/x"),
    )
    return command(family_index), run_dir


def test_a_run_of_somebody_else_that_is_over_is_told(sent: tuple[Vbisect, Path]) -> None:
    """Nothing would be run: nothing is asked, and nothing written."""
    vbisect, run_dir = sent
    over = Finding(status=Status.INCONCLUSIVE, message="it is over")
    with Journal(run_dir) as journal:
        journal.append(EventKind.RUN_FINISHED, finding=over.model_dump(mode="json"))
    before = tree(run_dir)
    done = vbisect.resume(run_dir)
    assert (done.returncode, done.json["message"], done.stderr) == (3, "it is over", "")
    assert tree(run_dir) == before


def test_what_is_not_shown_is_counted() -> None:
    """The end of a command too long for a line cannot be overlooked."""
    shown = CommandSettings(command=("echo", "x" * 9_000, "; evil"))
    hidden = CommandSettings(command=("echo", "x" * 20_000, "; evil"))
    assert "; evil" in "".join(what_would_run(settings(n_choices=None, command=shown)))
    lines = [x for x in what_would_run(settings(n_choices=None, command=hidden)) if "echo" in x]
    assert len(lines) == 1
    assert lines[0].endswith("x… AND 10014 CHARACTERS MORE, NOT SHOWN")


def test_a_run_of_somebody_else_is_shown_and_not_run(sent: tuple[Vbisect, Path]) -> None:
    """Without a terminal it takes an option; who trusted it once is not asked again."""
    vbisect, run_dir = sent
    before = tree(run_dir)
    done = vbisect.resume(run_dir, HF_TOKEN="hf_" + "x" * 20)
    assert (done.returncode, done.stdout) == (2, "")
    for words in (
        f"{run_dir} was not begun by you on this host, as far as the cache knows:",
        "command   /bin/sh -c 'touch /tmp/vbisect-was-run'",
        "variable  LD_PRELOAD=/tmp/evil.so",
        "index     https://evil.example/x",
        "tokens    yours can be read: HF_TOKEN",
    ):
        assert words in done.stderr
    last = "vbisect: Nothing was run: pass --trust to run that, or say yes on a terminal."
    assert done.stderr.splitlines()[-1] == last
    assert tree(run_dir) == before
    trusted = vbisect("run", "--resume", run_dir, "--json", "--trust")
    assert trusted.returncode == 4
    assert "answers at" in trusted.json["message"]
    assert vbisect.resume(run_dir).returncode == 4
    edited(run_dir, lambda data: data["model_env"].update(LD_PRELOAD="/tmp/other.so"))
    assert vbisect.resume(run_dir).returncode == 2, "other settings are another run"


def test_a_terminal_is_asked(sent: tuple[Vbisect, Path]) -> None:
    """And only a yes is one."""
    vbisect, run_dir = sent
    words = [sys.executable, "-m", "vbisect", "run", "--resume", str(run_dir), "--json"]
    for answer, code in ((b"\n", 2), (b"n\n", 2), (b"y\n", 4)):
        ours, theirs = pty.openpty()
        try:
            os.write(ours, answer)
            streams = {"stdin": theirs, "stderr": theirs, "stdout": subprocess.DEVNULL}
            done = subprocess.run(words, env=vbisect.env, check=False, **streams)
            told = os.read(ours, 100_000).decode()
        finally:
            os.close(ours)
            os.close(theirs)
        assert done.returncode == code
        assert "run that? [y/N]" in told
        assert "LD_PRELOAD=/tmp/evil.so" in told


def test_what_is_changed_after_the_question_is_not_run(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sent a run may still be able to write there while its settings are read."""
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path / "cache"))

    names = iter("ABC")

    def change(option: str) -> None:
        edited(run_dir, lambda data: data.update(model_env={next(names): "evil"}))

    monkeypatch.setattr("vbisect.commands.run.ask_to_run", change)
    for _ in range(2):  # nor is it this user's own from then on
        with pytest.raises(UsageError, match=r"run\.toml was changed meanwhile; nothing was run"):
            old_run(run_dir, trusted=False)


def test_trust_is_for_runs_that_were_begun(vbisect: Vbisect) -> None:
    done = vbisect("run", "--from", "0.27.1", "--to", "0.32.0", "--trust")
    assert done.returncode == 2
    assert "it is for --resume" in done.stderr


def test_a_run_that_this_user_began_is_known_wherever_it_lies(
    vbisect: Vbisect, tmp_path: Path
) -> None:
    """It was entered when it began: a run stopped by its command goes on after it was moved."""
    script = tmp_path / "probe"
    script.write_text("#!/bin/sh\nexit 130\n")
    script.chmod(0o755)
    done = vbisect.run("--from", "0.27.1", "--to", "0.28.0", "--", script)
    assert done.returncode == 4
    script.write_text("#!/bin/sh\nexit 0\n")
    moved = shutil.move(done.run_dir, tmp_path / "moved")
    elsewhere = vbisect.resume(moved, VBISECT_CACHE_DIR=str(tmp_path / "another's"))
    assert elsewhere.returncode == 2
    again = vbisect.resume(moved)
    assert again.returncode == 1, again.stderr
    assert "going on with: vbisect run --from 0.27.1 --to 0.28.0" in again.stderr


def test_recorded_versions_are_candidates(run_dir: Path) -> None:
    """The journal as vbisect writes it is read."""
    made, torn = load_state(run_dir)
    assert (list(made.records), torn) == (["0.27.1", "0.32.0"], b"")
    assert RunSettings.read(run_dir).versions == VERSIONS
