"""What servers take from the user's environment: all of it reaches them, and it is recorded."""

from __future__ import annotations

import html
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from driving import Done, Vbisect, world
from made import TOKEN, settings
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from vbisect.launch import Limited
from vbisect.launch.inherited import (
    DECIDING,
    mounts_for_containers,
    own_names,
    unreachable,
    variables_for_containers,
    variables_of_vllm,
    with_loopback_direct,
)
from vbisect.report.comment.environment import facts
from vbisect.run.settings import RunSettings
from vbisect.run.state import load_state

KNOWN = {
    "61.0": Behaviour(fail_rate={"chat": 1.0}, compiles=True),
    "61.1": Behaviour(compiles=True),
}
PASSWORD = "correct-horse-battery"


def texts(variables: tuple[Limited, ...]) -> list[str]:
    """Each as it is recorded."""
    return [variable.text for variable in variables]


def test_variables_of_vllm_are_recorded_with_their_values() -> None:
    """Secrets by name alone; what vbisect itself says is not taken."""
    environ = {
        "VLLM_USE_V1": "0",
        "VLLM_ATTENTION_BACKEND": "",
        "VLLM_S3_ACCESS_KEY": "abc",
        "VLLM_PROXY": f"http://me:{PASSWORD}@proxy",
        "VLLM_LINES": "a\nb",
        "VLLM_API_KEY": "k",
        "VLLM_PORT": "1",
        "VLLM_NO_USAGE_STATS": "0",
        "VLLM_ODD-NAME": "1",
        "VLLM_GIVEN": "1",
        "TORCHDYNAMO_DISABLE": "0",
        "TORCH_COMPILE_DISABLE": "1",
        "TORCH_HOME": "/torch",
        "CUDA_HOME": "/cuda",
        "VLLM_USE_MODELSCOPE": "true",
    }
    assert texts(variables_of_vllm(containers=False, besides=["VLLM_GIVEN"], environ=environ)) == [
        "TORCHDYNAMO_DISABLE=0",
        "TORCH_COMPILE_DISABLE=1",
        "VLLM_ATTENTION_BACKEND=",
        "VLLM_LINES",
        "VLLM_PROXY",
        "VLLM_S3_ACCESS_KEY",
        "VLLM_USE_MODELSCOPE=true",
        "VLLM_USE_V1=0",
    ]
    assert texts(variables_of_vllm(containers=True, environ=environ)) == [
        "VLLM_USE_MODELSCOPE=true"
    ]


def test_a_run_with_them_is_another_one_and_can_be_repeated(tmp_path: Path) -> None:
    """They stand in run.toml and in the line that repeats it; settings of before have none."""
    inherited = (Limited(text="VLLM_X=a;b"), Limited(text="VLLM_SECRET"))
    made = settings(inherited=inherited, env=(Limited(text="VLLM_Y=1", specifier="<0.30"),))
    made.write(tmp_path)
    assert RunSettings.read(tmp_path) == made
    line = "--env 'VLLM_X=a;b; ' --env VLLM_SECRET --env 'VLLM_Y=1; <0.30'"
    assert line in made.replay_command()
    data = tomllib.loads((tmp_path / "run.toml").read_text())
    del data["inherited"]
    assert RunSettings.model_validate(data).inherited == ()


def test_proxies_reach_containers_with_loopback_direct() -> None:
    """Under the names they are set by, and none where Docker's configuration has some."""
    environ = {"http_proxy": f"http://me:{PASSWORD}@proxy:3128", "NO_PROXY": "x.example"}
    given = variables_for_containers(remote=False, proxies=True, environ=environ)
    assert given == {
        "http_proxy": environ["http_proxy"],
        "NO_PROXY": "x.example,localhost,127.0.0.1,::1",
        "no_proxy": "x.example,localhost,127.0.0.1,::1",
    }
    assert own_names(environ) == ("http_proxy", "NO_PROXY")
    assert variables_for_containers(remote=False, proxies=False, environ=environ) == {}
    assert with_loopback_direct({"NO_PROXY": "x"}) == {"NO_PROXY": "x"}
    assert own_names({"NO_PROXY": "x"}) == ()


@pytest.mark.parametrize(
    "address",
    [
        *("http://127.0.0.1:3128", "localhost:3128", "http://[::1]:1/", "127.8.8.8"),
        *("socks5://me:secret@localhost", "http://hub.localhost/a", "http://0.0.0.0:80"),
    ],
)
def test_containers_are_not_given_what_only_this_machine_reaches(address: str) -> None:
    """They would look for it in themselves."""
    environ = {"HTTPS_PROXY": address, "HF_ENDPOINT": "https://hub.example"}
    assert unreachable(environ) == ("HTTPS_PROXY",)
    given = variables_for_containers(remote=False, proxies=True, environ=environ)
    assert "HTTPS_PROXY" not in given
    assert given["HF_ENDPOINT"] == "https://hub.example"


@pytest.mark.parametrize("address", ["", "http://proxy", "10.0.0.1:80", "http://[", "localhost.x"])
def test_other_addresses_are_reached(address: str) -> None:
    """By their name or number, and what is none is left to who reads it."""
    assert unreachable({"HTTPS_PROXY": address}) == ()


def test_folders_of_models_are_where_servers_look_for_them() -> None:
    """Those that the environment names, else the usual ones."""
    usual = {"/home/me/.cache/huggingface": "/root/.cache/huggingface"}
    assert mounts_for_containers("/home/me", remote=False, modelscope=False, environ={}) == usual
    environ = {"HF_HOME": "/data/hf", "HF_HUB_CACHE": "/fast/hub", "MODELSCOPE_CACHE": "/data/ms"}
    mounted = mounts_for_containers("/home/me", remote=False, modelscope=True, environ=environ)
    assert mounted == {
        "/data/hf": "/root/.cache/huggingface",
        "/fast/hub": "/vbisect/hub",
        "/data/ms": "/vbisect/modelscope",
    }
    assert variables_for_containers(remote=False, proxies=True, environ=environ) == {
        "HF_HOME": "/root/.cache/huggingface",
        "HF_HUB_CACHE": "/vbisect/hub",
        "HUGGINGFACE_HUB_CACHE": "/vbisect/hub",
        "MODELSCOPE_CACHE": "/vbisect/modelscope",
    }
    assert mounts_for_containers(
        "/home/me", remote=False, modelscope=True, environ={"XDG_CACHE_HOME": "/x"}
    ) == {"/x/huggingface": "/root/.cache/huggingface", "/x/modelscope": "/root/.cache/modelscope"}


def test_folders_of_this_machine_are_of_no_use_to_a_remote_engine() -> None:
    """There the usual ones are taken, where the home directory is known."""
    environ = {"HF_HOME": "/data/hf", "HF_HUB_CACHE": "/fast/hub", "HF_HUB_OFFLINE": "1"}
    there = mounts_for_containers("/home/gpu", remote=True, modelscope=False, environ=environ)
    assert there == {"/home/gpu/.cache/huggingface": "/root/.cache/huggingface"}
    assert mounts_for_containers(None, remote=True, modelscope=True, environ=environ) == {}
    given = variables_for_containers(remote=True, proxies=True, environ=environ)
    assert given == {"HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """Two releases with a fix between them."""
    with PackageIndex(world(tmp_path_factory.mktemp("inherited"), KNOWN)) as started:
        yield started


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("inherited-cache")


@pytest.fixture
def inheriting(
    command: Callable[..., Vbisect], index: PackageIndex, cache: Path
) -> Callable[..., Done]:
    """Runs over them, in an environment with these variables of vLLM."""
    vbisect = command(index, cache)
    for name in [name for name in vbisect.env if name.startswith(DECIDING)]:
        del vbisect.env[name]

    def run(*words: str, fresh: bool = False, resume: Path | None = None, **env: str) -> Done:
        if resume is not None:
            return vbisect.resume(resume, **env)
        own = ("--from", "61.0", "--to", "61.1", "--confidence", "0.6", *words)
        return vbisect.run(*own, fresh=fresh, **env)

    return run


def engines(done: Done) -> dict[str, Any]:
    """Which engine each release ran, as its log says; the stand-in's listens to VLLM_USE_V1."""
    return {version: trial["engine"] for version, trial in done.trials.items()}


def test_what_decides_outcomes_is_recorded_and_told(inheriting: Callable[..., Done]) -> None:
    """By value in the settings and the evidence, at the start, and in what repeats the run."""
    done = inheriting(VLLM_USE_V1="0", VLLM_API_KEY="k", HF_ENDPOINT="http://hub.example")
    assert done.returncode == 0, done.stderr
    assert "Taken from your environment: VLLM_USE_V1=0; unset it for a clean answer." in done.stderr
    assert "Passed on from your environment: HF_ENDPOINT." in done.stderr
    assert set(engines(done).values()) == {"V0"}
    recorded = tomllib.loads((done.run_dir / "run.toml").read_text())
    assert [each["text"] for each in recorded["inherited"]] == ["VLLM_USE_V1=0"]
    assert "--env VLLM_USE_V1=0" in done.json["replay"]
    kept = json.loads((done.run_dir / "trials" / "61.0" / "environment.json").read_text())
    assert kept["from_environment"] == ["VLLM_USE_V1=0", "HF_ENDPOINT"]
    assert "VLLM_USE_V1" in kept["variables"]
    assert "VLLM_USE_V1=0" in (done.run_dir / "report.md").read_text()
    shown = [html.unescape(fact) for fact in facts(load_state(done.run_dir)[0], done.run_dir)]
    told = "taken from the environment: <code>VLLM_USE_V1=0</code>, <code>HF_ENDPOINT</code>"
    assert told in shown
    everything = [path for path in done.run_dir.rglob("*") if path.is_file()]
    assert not [path for path in everything if b"hub.example" in path.read_bytes()]


def test_a_tiny_model_is_served_with_dynamo_off(inheriting: Callable[..., Done]) -> None:
    """So that no compiler is needed; it is told and recorded, and follows from the model."""
    done = inheriting(CXX="/bin/false")
    assert done.returncode == 0, done.stderr
    told = "tiny:qwen2 is served with TORCHDYNAMO_DISABLE=1: nothing is compiled, and no compiler"
    assert done.stderr.count(told) == 1
    recorded = tomllib.loads((done.run_dir / "run.toml").read_text())
    assert recorded["model_env"]["TORCHDYNAMO_DISABLE"] == "1"
    assert "TORCHDYNAMO_DISABLE" not in done.json["replay"]


def test_whether_dynamo_is_on_is_its_users_to_say(inheriting: Callable[..., Done]) -> None:
    """By --env or by the environment; both are recorded, and the same question."""
    assert inheriting(fresh=True).returncode == 0
    on = inheriting("--env", "TORCHDYNAMO_DISABLE=0", CXX="true")
    assert on.returncode == 0, on.stderr
    assert "tiny:qwen2 is served with" not in on.stderr
    assert {trial["earlier_run"] for trial in on.trials.values()} == {None}
    again = inheriting(TORCHDYNAMO_DISABLE="0", CXX="/bin/false")
    assert "Taken from your environment: TORCHDYNAMO_DISABLE=0;" in again.stderr
    assert {trial["earlier_run"] for trial in again.trials.values()} == {on.json["run_id"]}
    for done in (on, again):
        assert "--env TORCHDYNAMO_DISABLE=0" in done.json["replay"]
    without = inheriting(fresh=True, TORCHDYNAMO_DISABLE="0", CXX="/bin/false")
    assert {trial["reason"] for trial in without.trials.values()} == {"no C++ compiler"}


def test_a_command_reaches_the_server_without_a_proxy(
    inheriting: Callable[..., Done], tmp_path: Path
) -> None:
    """Whatever client it is: those of the user's proxies would not find it."""
    seen = tmp_path / "seen"
    check = f'echo "$NO_PROXY" >> {seen}; [ "$VBISECT_VERSION" = 61.1 ]'
    done = inheriting("--", "sh", "-c", check, fresh=True, http_proxy="http://proxy.example:1")
    assert done.returncode == 0, done.stderr
    assert set(seen.read_text().splitlines()) == {"127.0.0.1,localhost,::1"}


def test_a_trial_counts_again_in_the_same_environment_only(inheriting: Callable[..., Done]) -> None:
    """Given by --env it is the same variable."""
    first = inheriting(fresh=True, VLLM_LOGGING_LEVEL="DEBUG")
    again = inheriting("--env", "VLLM_LOGGING_LEVEL=DEBUG")
    assert {t["earlier_run"] for t in again.trials.values()} == {first.json["run_id"]}
    assert "Taken from your environment" not in again.stderr
    clean = inheriting()
    assert {t["earlier_run"] for t in clean.trials.values()} == {None}


def test_a_run_goes_on_with_what_it_began_with(
    inheriting: Callable[..., Done], tmp_path: Path
) -> None:
    """And says once that the environment is another one now."""
    gate = tmp_path / "gate"
    check = f'case "$VBISECT_VERSION" in 61.0) exit 1;; esac; [ -e {gate} ] || exit 130'
    stopped = inheriting("--", "sh", "-c", check, fresh=True, VLLM_USE_V1="0")
    assert stopped.returncode == 4, stopped.stderr
    gate.touch()
    done = inheriting(resume=stopped.run_dir, VLLM_LOGGING_LEVEL="DEBUG")
    assert done.returncode == 0, done.stderr
    assert set(engines(done).values()) == {"V0"}
    told = (
        "The run goes on with the variables of vLLM that it began with (VLLM_USE_V1=0), not with "
        "those of your environment now (VLLM_LOGGING_LEVEL=DEBUG)."
    )
    assert done.stderr.count(told) == 1


def test_a_secret_is_handed_on_and_never_recorded(inheriting: Callable[..., Done]) -> None:
    """Neither that of a proxy's address nor that of a variable of vLLM."""
    proxy = f"http://me:{PASSWORD}@127.0.0.1:9"
    done = inheriting(fresh=True, VLLM_SECRET_TOKEN=TOKEN, http_proxy=proxy)
    assert done.returncode == 0, done.stderr
    assert "Taken from your environment: VLLM_SECRET_TOKEN; unset it" in done.stderr
    assert "Passed on from your environment: http_proxy, NO_PROXY." in done.stderr
    for path in (path for path in done.run_dir.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in path.read_bytes(), path
        assert PASSWORD.encode() not in path.read_bytes(), path
