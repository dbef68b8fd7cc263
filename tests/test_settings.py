"""The settings of a run survive their file and the command line that repeats them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from made import VERSIONS, releases, settings
from vbisect.cli import app
from vbisect.errors import UsageError
from vbisect.releases import Device, KnownReleases, Wheel
from vbisect.run import model as modelling
from vbisect.run import prepare as preparing
from vbisect.run.gpus import GpuListing, NoGpus
from vbisect.run.model import ResolvedModel
from vbisect.run.options import RunOptions
from vbisect.run.settings import RunSettings

NIGHTLY_WHEEL = Wheel(
    distribution="vllm", version="0.33.1.dev2+g1", index="https://wheels.vllm.ai/nightly"
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not a run directory"),
        (b"x = ", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"", "damaged: .*Field required"),
        (b"schema = 'x'", "damaged: schema"),
    ],
)
def test_damaged_settings_are_told(tmp_path: Path, content: bytes | None, words: str) -> None:
    """One line that names the file, never a traceback."""
    if content is not None:
        (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        RunSettings.read(tmp_path)


def unlooked_up(name: str, device: Device, skeleton: bool) -> ResolvedModel:
    """A model of this name."""
    return ResolvedModel(name=name, path=name)


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """Settings are prepared from fixed releases and a model that nobody looks up."""
    with pytest.MonkeyPatch.context() as patch:
        known = KnownReleases(releases(), "package index")
        patch.setattr(preparing, "known_releases", lambda **_: known)
        patch.setattr(modelling, "resolve_model", unlooked_up)
        patch.setattr(preparing, "resolve_model", unlooked_up)
        patch.setattr(preparing, "takes_pictures", lambda model: False)
        patch.setattr(preparing, "list_gpus", lambda: GpuListing((), NoGpus.NO_LIBRARY))
        yield


Words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
Amounts = st.floats(0.001, 1e9) | st.integers(1, 10**9)


def prepared(options: RunOptions) -> RunSettings:
    """The settings of a run where none was before."""
    return preparing.prepare(options, Path("nonesuch"))


def on_command_line(options: RunOptions) -> bool:
    """Whether every option passes vbisect's own checks."""
    try:
        prepared(options)
    except UsageError:
        return False
    return True


Options = st.builds(
    RunOptions,
    start=st.sampled_from(["0.27.1", "v0.27.1", "0.28"]),
    end=st.sampled_from(["0.32.0", "latest"]),
    skip=st.sampled_from([(), ("0.29.0",), ("0.29.0", "0.30.0..0.30.0")]),
    pre=st.booleans(),
    endpoint=st.sampled_from(["chat", "completions", "generate"]),
    n=st.lists(st.integers(1, 16384), max_size=3).map(tuple),
    stream=st.booleans(),
    suite=st.booleans(),
    bisect_on=st.none() | st.sampled_from(["stream", "n=0"]),
    temperature=st.floats(0, 2),
    top_p=st.floats(1e-9, 1),
    max_tokens=st.integers(1, 10**9),
    request_timeout=Amounts,
    command=st.just(()) | st.lists(Words, max_size=3).map(lambda words: ("/bin/sh", *words)),
    command_timeout=Amounts,
    model=st.just("org/model"),
    control_model=st.sampled_from([None, "org/other"]),
    skeleton=st.booleans(),
    engine=st.sampled_from(["auto", "v0", "v1", "both"]),
    device=st.just("cpu"),
    runtime=st.just("venv"),
    serve_args=st.lists(
        Words.map(lambda word: f"--x={shlex.quote(word)}; >=0.30")
        | Words.map(lambda word: f"--x={shlex.quote(word)};"),
        max_size=2,
    ).map(tuple),
    env=st.lists(Words.map(lambda word: f"A={word};"), max_size=2).map(tuple),
    latest_deps=st.booleans(),
    find=st.sampled_from(["auto", "fix", "break"]),
    sweep=st.booleans(),
    try_all=st.booleans(),
    jobs=st.sampled_from(["auto", "1", "3"]),
    confidence=st.floats(0.5, 0.999999999),
    boot_timeout=Amounts,
).filter(on_command_line)


class Parsed(Exception):
    """Carries the options that the command line came to."""


def parsed(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> RunOptions:
    """The options the real command line parser makes of ``words``."""

    def stop(options: RunOptions, results: Path) -> None:
        raise Parsed(options)

    monkeypatch.setattr("vbisect.commands.run.new_run", stop)
    with pytest.raises(Parsed) as caught:
        app(words, standalone_mode=False)
    options = caught.value.args[0]
    assert isinstance(options, RunOptions)
    return options


@hypothesis_settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(Options)
@example(RunOptions("0.27.1", "0.32.0", device="cpu", confidence=0.9999999, max_tokens=1234567))
@example(RunOptions("0.27.1", "0.32.0", device="cpu", env=("A=b;c;",), temperature=0.12345678))
@example(RunOptions("0.27.1", "0.32.0", device="cpu", command=("/bin/sh", "--", "--json", "")))
@example(RunOptions("0.27.1", "0.32.0", device="cpu", suite=True, bisect_on="stream"))
@example(RunOptions("0.27.1", "0.32.0", device="cpu", suite=True, endpoint="generate"))
@example(RunOptions("0.27.1", "0.32.0", device="cpu", suite=True, temperature=1e-6))
def test_settings_survive_the_file_and_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: RunOptions
) -> None:
    """``run.toml`` is read back as it was, and the line that repeats a run means the same run."""
    made = prepared(options)
    made.write(tmp_path)
    assert RunSettings.read(tmp_path) == made
    words = shlex.split(made.replay_command())
    assert words[:2] == ["vbisect", "run"]
    again = prepared(parsed(monkeypatch, words[1:]))
    moved = {"end": made.end, "notes": made.notes} if made.end == "latest" else {}
    assert again.model_copy(update={"run_id": made.run_id, **moved}) == made


def test_a_plain_run_is_repeated_by_a_short_line() -> None:
    """What was not asked for is not in the way."""
    options = RunOptions("0.27.1", "latest", device="cpu", model="org/model")
    assert prepared(options).replay_command() == (
        "vbisect run --from 0.27.1 --to 0.32.0 --runtime venv --device cpu "
        "--model org/model --endpoint chat --n 8"
    )


@pytest.mark.parametrize(
    ("end", "changed", "words"),
    [
        ("nightly", {"image": "r@sha256:1", "commit": "c" * 40}, f"nightly-{'c' * 40}"),
        ("nightly", {"image": "r@sha256:1"}, "nightly"),
        (
            "nightly",
            {"wheels": {Device.CUDA: NIGHTLY_WHEEL}, "commit": "c" * 40},
            f"nightly-{'c' * 40}",
        ),
        ("nightly", {"wheels": {Device.CUDA: NIGHTLY_WHEEL}}, "nightly"),
        ("nightly", {}, "0.32.0"),
        ("latest", {}, "0.32.0"),
        ("v0.32", {}, "v0.32"),
    ],
)
def test_a_moving_end_is_repeated_as_what_it_was(
    end: str, changed: dict[str, Any], words: str
) -> None:
    """Tomorrow's nightly is another build; one of an unknown commit has no other name."""
    *older, newest = releases()
    candidates = (*older, newest.model_copy(update=changed))
    replayed = shlex.split(settings(end=end, candidates=candidates).replay_command())
    assert replayed[2:6] == ["--from", "0.27.1", "--to", words]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"n": (0,)}, "--n 0"),
        ({"n": (16385,)}, "--n 16385"),
        ({"confidence": 1.0}, "--confidence 1"),
        ({"confidence": float("nan")}, "--confidence nan"),
        ({"temperature": -0.1}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"top_p": 0.0}, "--top-p"),
        ({"max_tokens": 0}, "--max-tokens"),
        ({"request_timeout": float("nan")}, "--request-timeout"),
        ({"boot_timeout": 0}, "--boot-timeout"),
        ({"jobs": "0"}, "--jobs 0: it must be above 0"),
        ({"jobs": "many"}, "--jobs many: it must be a whole number, or auto"),
        ({"jobs": "1.5"}, "--jobs 1.5: it must be a whole number, or auto"),
        ({"jobs": "9" * 5000}, "it must be a whole number, or auto"),
        ({"endpoint": "chats"}, "--endpoint chats: choose one of chat, completions, generate"),
        ({"find": "bug"}, "--find bug"),
        (
            {"model": "org/model", "control_model": "org/model"},
            "--control-model org/model: that is the model itself",
        ),
        ({"probe": "command"}, "needs a command after --"),
        ({"command": ("/nonesuch/x",)}, "not there or not executable"),
        ({"suite": True, "n": (4,)}, "--suite asks n=1, .* by itself: leave out --n"),
        ({"suite": True, "stream": True}, "leave out --stream"),
        ({"suite": True, "command": ("/bin/true",)}, "leave out a command"),
        ({"suite": True, "temperature": 0}, "--temperature 0: --suite asks for several choices"),
        ({"suite": True, "bisect_on": "n=3"}, "--bisect-on n=3: choose one of n=1, n=2, n=8"),
        (
            {"suite": True, "bisect_on": "n=16385", "env": ("VLLM_MAX_N_SEQUENCES=9",)},
            "--bisect-on n=16385: choose one of",
        ),
        ({"bisect_on": "stream"}, "it needs --suite, and names one of its variations: n=1, "),
    ],
)
def test_options_that_make_no_sense_are_refused(changed: dict[str, Any], words: str) -> None:
    """Each in one sentence that names the option, before anything starts."""
    options = replace(RunOptions("0.27.1", "0.32.0", device="cpu"), **changed)
    with pytest.raises(UsageError, match=words):
        prepared(options)


def test_versions_are_in_order() -> None:
    """The run's own record of its candidates is what the search counts by."""
    assert prepared(RunOptions("0.27.1", "0.32.0", device="cpu")).versions == VERSIONS
