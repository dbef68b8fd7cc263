"""A fault of the run is met before anything is installed, or in two boots, not in all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driving import Done, Vbisect, counts, world
from made import settings
from standin import hub_api
from standin.behaviour import Behaviour
from standin.hub_api import HubApi
from standin.index import PackageIndex
from vbisect.errors import HostError
from vbisect.launch import Limited
from vbisect.launch.hub_cache import hub_cache
from vbisect.reasons import CAN_PASS, SkipReason
from vbisect.run import hub_access
from vbisect.run.docker_settings import DockerSettings
from vbisect.run.hub_access import see_to_access
from vbisect.run.journal import EventKind

NOWHERE = "http://127.0.0.1:9"
BAD = Behaviour(asks_hub=True, fail_rate={"chat": 1.0})
GOOD = Behaviour(asks_hub=True)
NO_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


def dies(log: str) -> Behaviour:
    """A release that ends with these words before it is ready."""
    return Behaviour(fault="exit_before_ready", fault_log=log)


RELEASES = {
    **{f"81.{i}": BAD if i < 3 else GOOD for i in range(8)},
    # no end has the memory; at one end only; at one end, for another reason at the other
    **{f"82.{i}": dies(NO_MEMORY) if i in (0, 7) else GOOD for i in range(8)},
    **{f"83.{i}": dies(NO_MEMORY) if i < 2 else BAD if i < 4 else GOOD for i in range(8)},
    **{f"84.{i}": BAD if i < 4 else GOOD for i in range(8)},
    "84.0": dies("KeyError: 'model.layers.0.weight'"),
    "84.7": dies("KeyError: 'model.layers.0.weight'"),
}
QUICK = ("--n", "4", "--confidence", "0.6")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases."""
    with PackageIndex(world(tmp_path_factory.mktemp("hub-wheels"), RELEASES)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("hub-cache")


@pytest.fixture
def hub() -> Iterator[HubApi]:
    """Models of all sorts."""
    answers = {
        "org/open": hub_api.OPEN,
        "org/gated": hub_api.GATED,
        "org/mistral": hub_api.NO_CONFIG,
        "org/limited": hub_api.TOO_MANY,
        "org/down": hub_api.DOWN,
        "org/mirrored": hub_api.MIRRORED,
        "org/disabled": hub_api.DISABLED,
        "org/denied": hub_api.BAD_TOKEN,
    }
    with HubApi(answers) as served:
        yield served


@pytest.fixture
def vbisect(
    command: Callable[..., Vbisect], index: PackageIndex, cache: Path, hub: HubApi, tmp_path: Path
) -> Vbisect:
    """The command over the releases, whose hub is on loopback and whose hub's cache is empty."""
    made = command(index, cache)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        made.env.pop(name, None)
    made.env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    return made


def one_line(done: Done, code: int) -> str:
    """What a run that never began told."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_hub_that_said_yes_is_not_asked_again(vbisect: Vbisect, hub: HubApi) -> None:
    """Within the hour; a no may have become a yes."""
    asked = ("plan", "--device", "cpu", "--from", "81.0", "--to", "81.7", "--model")
    for _ in range(2):
        assert vbisect(*asked, "org/open").returncode == 0
        assert vbisect(*asked, "org/gated").returncode == 4
    heads = [line.split("/")[2] for line in hub.asked if line.startswith("vbisect HEAD")]
    assert sorted(heads) == ["gated", "gated", "open"]
    assert vbisect(*asked, "org/open", HF_TOKEN=hub.token).returncode == 0
    heads = [line.split("/")[2] for line in hub.asked if line.startswith("vbisect HEAD")]
    assert sorted(heads) == ["gated", "gated", "open", "open"], "who asks is another"


def test_a_model_that_the_hub_refuses_is_told_at_once(vbisect: Vbisect, hub: HubApi) -> None:
    """Nothing was installed and no run directory made; who has the token may have the model."""
    before = sum(vbisect.index.requests.values())
    ends = ("--from", "81.0", "--to", "81.7", *QUICK)
    told = one_line(vbisect.run(*ends, "--model", "org/nonesuch"), 4)
    assert "--model org/nonesuch: 127.0.0.1 has no such model, or it is private" in told
    told = one_line(vbisect.run(*ends, "--model", "org/open", "--control-model", "org/gated"), 4)
    assert "--control-model org/gated: it is gated at 127.0.0.1, and no HF_TOKEN is set" in told
    assert not list(vbisect.results.iterdir())
    assert not [path for path in vbisect.index.requests if path.endswith(".whl")]
    assert sum(vbisect.index.requests.values()) - before <= 4  # the versions there are
    assert {line.split()[0] for line in hub.asked} == {"vbisect"}
    found = vbisect.run(*ends, "--model", "org/gated", HF_TOKEN=hub.token)
    assert (found.returncode, found.json["answer"]["first_after"]) == (0, "81.3")


def test_no_way_to_the_hub_is_told_at_once(vbisect: Vbisect, tmp_path: Path) -> None:
    """A plan only says so; who is offline, or has the model, needs no hub."""
    ends = ("--from", "83.4", "--to", "83.7", *QUICK, "--model", "org/open")
    told = one_line(vbisect.run(*ends, HF_ENDPOINT=NOWHERE), 4)
    assert "--model org/open: the hub 127.0.0.1 cannot be reached" in told
    assert not list(vbisect.results.iterdir())
    plan = vbisect("plan", *ends, "--device", "cpu", HF_ENDPOINT=NOWHERE)
    assert plan.returncode == 0
    assert "NOTE --model org/open: the hub 127.0.0.1 cannot be reached: Connection" in plan.stdout
    assert "its configuration cannot be had, so it is asked without a picture" in plan.stdout
    plan = vbisect("plan", *ends, "--device", "cpu", "--json", HF_ENDPOINT=NOWHERE)
    assert any("the hub 127.0.0.1 cannot be reached" in note for note in plan.json["notes"])
    assert vbisect.run(*ends, HF_ENDPOINT=NOWHERE, HF_HUB_OFFLINE="1").returncode == 1
    kept = tmp_path / "hf" / "hub" / "models--org--open" / "snapshots" / "c0ffee" / "config.json"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert vbisect.run(*ends, HF_ENDPOINT=NOWHERE).returncode == 1


def test_what_servers_alone_meet_takes_two_boots(vbisect: Vbisect, hub: HubApi) -> None:
    """One at each end; what is mended by then is found out on resuming."""
    hub.to_servers["org/open"] = hub_api.GATED
    ends = ("--from", "81.0", "--to", "81.7", *QUICK, "--model", "org/open")
    done = vbisect.run(*ends)
    assert (done.returncode, done.json["status"]) == (4, "failed"), done.stderr
    assert {v: t["reason"] for v, t in done.trials.items()} == {
        "81.0": "model not accessible",
        "81.7": "model not accessible",
    }
    assert done.json["message"].startswith(
        "Nothing can be tested: 81.0 and 81.7 were skipped for the same reason, which is no "
        "release's doing: model not accessible (huggingface_hub.errors.GatedRepoError: 401"
    )
    assert "Check the model's name, and that HF_TOKEN is set" in done.json["message"]
    hub.to_servers["org/open"] = hub_api.DOWN
    again = vbisect.resume(done.run_dir)
    assert (again.returncode, len(again.trials)) == (4, 2)
    assert "model hub not reached" in again.json["message"]
    assert counts(done.run_dir, EventKind.TRIAL_FINISHED) == {"81.0": 2, "81.7": 2}
    del hub.to_servers["org/open"]
    mended = vbisect.resume(done.run_dir)
    assert (mended.returncode, mended.json["answer"]["first_after"]) == (0, "81.3")
    assert mended.json["answer"]["exact"] is True


def test_two_servers_at_once_meet_it_together(vbisect: Vbisect, hub: HubApi) -> None:
    hub.to_servers["org/open"] = hub_api.NO_SUCH
    done = vbisect.run(
        *("--from", "81.0", "--to", "81.7", *QUICK, "--model", "org/open", "--jobs", "2")
    )
    assert (done.returncode, sorted(done.trials)) == (4, ["81.0", "81.7"]), done.stderr


def test_a_model_too_large_takes_two_boots(vbisect: Vbisect) -> None:
    """Although memory may differ by release: both ends lack it."""
    done = vbisect.run("--from", "82.0", "--to", "82.7", *QUICK)
    assert (done.returncode, sorted(done.trials)) == (4, ["82.0", "82.7"]), done.stderr
    assert "not enough memory" in done.json["message"]
    assert "--max-model-len" in done.json["message"]


def test_one_end_alone_decides_nothing(vbisect: Vbisect) -> None:
    """The other end has the memory, so it is these releases that take too much: the end moves."""
    done = vbisect.run("--from", "83.0", "--to", "83.7", *QUICK)
    assert (done.returncode, done.json["answer"]["first_after"]) == (0, "83.4"), done.stderr
    assert list(done.trials)[:2] == ["83.0", "83.7"]
    assert "THE LOWER END MOVED from 83.0" in done.stderr


def test_what_may_be_the_releases_doing_stops_nothing(vbisect: Vbisect) -> None:
    """Ends that die for reasons of their own are passed by, as ever."""
    done = vbisect.run("--from", "84.0", "--to", "84.7", *QUICK)
    assert (done.returncode, done.json["answer"]["first_after"]) == (0, "84.4"), done.stderr


def access(
    hub: HubApi, model: str, monkeypatch: pytest.MonkeyPatch, **changed: object
) -> list[str]:
    """What there is to say of the way to a model."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "VLLM_USE_MODELSCOPE"):
        monkeypatch.delenv(name, raising=False)
    asked = settings(model=model, model_path=model, **changed)
    return list(see_to_access(asked, begins=True).notes[len(asked.notes) :])


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub's folder, which is empty."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf"


@pytest.mark.parametrize(
    ("model", "token", "said"),
    [
        ("org/nonesuch", "", "has no such model, or it is private and needs HF_TOKEN"),
        ("org/nonesuch", "hf_other", "or it is private and your token does not see it"),
        ("org/gated", "", "it is gated at 127.0.0.1, and no HF_TOKEN is set"),
        ("org/gated", "hf_other", "and your token has no access to it"),
        ("org/denied", "hf_other", "127.0.0.1 does not know your token"),
        ("org/disabled", "", "127.0.0.1 has disabled it"),
    ],
)
def test_what_the_hub_itself_says_is_final(
    hub: HubApi, no_cache: Path, monkeypatch: pytest.MonkeyPatch, model: str, token: str, said: str
) -> None:
    """Not so where servers run elsewhere: they may have another token, or the model itself."""
    no_cache.mkdir()
    (no_cache / "token").write_text(f"{token}\n")
    with pytest.raises(HostError, match=said):
        access(hub, model, monkeypatch)
    away = DockerSettings(host="ssh://user@gpu01", image_repo="vllm/vllm-openai", gpus="all")
    told = access(hub, model, monkeypatch, runtime="docker", docker=away)
    assert len(told) == 1
    assert said in told[0]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("org/open", ""),
        ("org/mistral", ""),  # its configuration is in params.json
        ("org/limited", "127.0.0.1 answers HTTP 429"),
        ("org/down", "127.0.0.1 answers HTTP 503"),
        ("org/mirrored", "127.0.0.1 answers HTTP 404"),
    ],
)
def test_what_may_yet_work_is_only_told(
    hub: HubApi, no_cache: Path, monkeypatch: pytest.MonkeyPatch, model: str, said: str
) -> None:
    """Mirrors have answers of their own, and a hub that has too much to do may have less soon."""
    told = access(hub, model, monkeypatch)
    assert [said in note for note in told] == ([True] if said else [])


def test_a_token_of_the_hubs_own_login_counts(
    hub: HubApi, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``hf auth login`` leaves it in a file, which servers read too."""
    no_cache.mkdir()
    (no_cache / "token").write_text(f"{hub.token}\n")
    assert access(hub, "org/gated", monkeypatch) == []


@pytest.mark.parametrize("folder", ["~/hf", "$STORE/hf", "${STORE}/hf"])
@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE"])
def test_the_cache_is_where_the_hubs_client_has_it(
    hub: HubApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str
) -> None:
    """It reads a home and variables in the names of folders."""
    hub_folder = tmp_path / "hf" if name == "HF_HUB_CACHE" else tmp_path / "hf" / "hub"
    kept = hub_folder / "models--org--nonesuch" / "snapshots" / "c0ffee" / "config.json"
    kept.parent.mkdir(parents=True)
    kept.touch()
    for each in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(each, raising=False)
    for variable, value in (("HOME", tmp_path), ("STORE", tmp_path), (name, folder)):
        monkeypatch.setenv(variable, str(value))
    assert access(hub, "org/nonesuch", monkeypatch) == []
    found = hub_cache(os.environ, str(tmp_path))
    assert Path(found) == hub_folder


ELSEWHERE: dict[str, tuple[str, ...]] = {
    "offline": ("HF_HUB_OFFLINE=1",),
    "offline for transformers": ("TRANSFORMERS_OFFLINE=yes",),
    "ModelScope": ("VLLM_USE_MODELSCOPE=True",),
    "another hub for some": (f"HF_ENDPOINT={NOWHERE}; >=0.30",),
    "a proxy of its own": ("HTTPS_PROXY=http://127.0.0.1:9",),
}


@pytest.mark.parametrize("given", ELSEWHERE.values(), ids=ELSEWHERE)
def test_the_hub_is_not_asked_for_others(
    hub: HubApi, no_cache: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    """Whatever it would say: servers do not ask it, or not as vbisect would."""
    env = tuple(Limited.parse("--env", value) for value in given)
    assert access(hub, "org/nonesuch", monkeypatch, env=env) == []
    assert hub.asked == []


def test_a_model_of_files_needs_no_hub(
    hub: HubApi, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert access(hub, "/models/mine", monkeypatch) == []
    assert access(hub, "~/models/mine", monkeypatch) == []
    assert hub.asked == []


def test_a_hub_that_never_answers_is_not_waited_for(
    hub: HubApi, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked twice, as a slow moment is no outage."""
    hub.hangs = True
    monkeypatch.setattr(hub_access, "_SECONDS", 0.5)
    with pytest.raises(HostError, match=r"cannot be reached: no answer within 0\.5 s"):
        access(hub, "org/open", monkeypatch)
    assert len(hub.asked) == 2


def test_a_hub_whose_answer_has_no_end_is_not_waited_for(
    hub: HubApi, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it sends something all the time."""
    hub.drips = True
    monkeypatch.setattr(hub_access, "_SECONDS", 0.5)
    with pytest.raises(HostError, match="cannot be reached: no whole answer within 1 s"):
        access(hub, "org/open", monkeypatch)


def test_containers_may_have_another_network(
    hub: HubApi, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What vbisect cannot reach they may; processes cannot."""
    env = (Limited(text=f"HF_ENDPOINT={NOWHERE}"),)
    with pytest.raises(HostError, match="cannot be reached"):
        access(hub, "org/open", monkeypatch, env=env)
    here = DockerSettings(host="unix:///run/docker.sock", image_repo="vllm/vllm-openai", gpus="all")
    told = access(hub, "org/open", monkeypatch, env=env, runtime="docker", docker=here)
    assert len(told) == 1
    assert "cannot be reached" in told[0]


def test_which_reasons_are_no_releases_doing() -> None:
    """Not those that a build has a part in, nor an end that nobody can explain."""
    builds = ("DRIVER_TOO_OLD", "GPU_NOT_SUPPORTED", "SYSTEM_LIBRARY", "MODEL_NOT_SUPPORTED")
    unknown = ("EXITED_BEFORE_READY", "BOOT_TIMEOUT", "UNKNOWN_ARGUMENT", "NOT_INSTALLABLE")
    assert not any(SkipReason[name].of_the_run for name in builds + unknown)
    assert SkipReason.MODEL_NOT_ACCESSIBLE.of_the_run
    assert SkipReason.HUB_NOT_REACHED.of_the_run
    assert SkipReason.HUB_NOT_REACHED in CAN_PASS
