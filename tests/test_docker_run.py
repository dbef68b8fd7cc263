"""What `vbisect run --runtime docker` says is what is true of the images it ran."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from docker_fixtures import NIGHTLY, skipping
from driving import Done, OnEngine, Started, Vbisect, counts
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.engine import Engine, GivenEngine
from standin.images import LIFE_SECONDS, MODULE, PATH, SERVE, ImageFamily, image_family
from standin.images import _layer as server_layer
from standin.index import PackageIndex
from standin.proxy import RegistryProxy
from standin.registry import LocalRegistry

MISSING = ("0.24.0", "0.25.0", "0.25.1", "0.26.0", "0.27.0", "0.27.1")
DYING = ("0.15.0", "0.15.1", "0.16.0")
ODD = {
    **{
        version: {"fault": "exit_before_ready", "fault_log": "RuntimeError: no such kernel"}
        for version in DYING
    },
    "0.30.0": {"fault": "wrong_version"},
    "0.31.0": {"fault": "port_never_opened"},
    "0.28.0": {"fail_rate": {"generate": 1.0}},  # a flaky bug would take further boots
}
UNTESTABLE = {
    **{version: ("not published", f"/test/odd:v{version}") for version in MISSING},
    **dict.fromkeys(DYING, ("exited before ready", "RuntimeError: no such kernel")),
    "0.30.0": ("wrong version", "9.9.9"),
    "0.31.0": ("never ready", "silent for 8 s"),
}
GENERATE = ("--endpoint", "generate", "--n", "4", "--serve-arg", "--enable-scale-out; >=0.30")
QUICK = ("--n", "4", "--confidence", "0.6")
AGREEING = ("--from", "0.32.0", "--to", "0.33.0", *QUICK)
BAD, GOOD = Behaviour(fail_rate={"chat": 1.0}), Behaviour()
COMMITS = ("c" * 40, "a" * 40, "b" * 40)
NIGHTLY_VERSION = f"0.33.1.dev202611200000+g{NIGHTLY[:9]}"


@pytest.fixture(scope="module")
def odd(registry: LocalRegistry) -> ImageFamily:
    """The 51 releases and a nightly, less those that are missing; some are untestable."""
    from standin.family import releases

    with skipping():
        base_layer()
    known = [release.version for release in releases() if release.distribution == "vllm"]
    family = image_family(
        registry,
        "test/odd",
        versions=[version for version in known if version not in MISSING],
        boot_seconds=0.0,
        overrides=ODD,
    )
    family.push_nightly(NIGHTLY)
    return family


@pytest.fixture(scope="module")
def front(registry: LocalRegistry) -> Iterator[RegistryProxy]:
    """The registry as the engine sees it; what is asked of it is counted."""
    with RegistryProxy(registry.host) as started:
        yield started


def options(family: ImageFamily, host: str) -> tuple[str, ...]:
    """Options that name these images."""
    return ("--runtime", "docker", "--image-repo", f"{host}/{family.repository}")


@pytest.fixture(scope="module")
def found(
    family_index: PackageIndex,
    engine: Engine | GivenEngine,
    odd: ImageFamily,
    front: RegistryProxy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Done, OnEngine]]:
    """The run that the project is about, and what the engine has once it is over."""
    scratch = tmp_path_factory.mktemp("docker-found")
    docked = Vbisect(family_index, scratch, scratch / "vbisect", scratch / "results")
    docked.on_engine(engine.url)
    with contextlib.closing(engine.client()) as client:
        there = OnEngine(client, front.host, docked.results)
        try:
            ends = ("--from", "0.7.3", "--to", "nightly", "--boot-timeout", "8")
            yield docked.run(*ends, *GENERATE, *options(odd, front.host)), there
        finally:
            docked.close()
            there.remove()


def test_containers_say_what_they_received(found: tuple[Done, OnEngine]) -> None:
    """By their logs, whether requests are logged by default or not."""
    done, _ = found
    tested = {v: t for v, t in done.trials.items() if t["outcome"] != "skip"}
    assert min(tested, key=done.json["candidates"].index) == "0.7.3"
    for trial in tested.values():
        assert trial["parameters"]["sentence"] == "received n=4"
        assert trial["engine"] == "V1", "0.7.3 was booted with it too, to compare like with like"
        assert trial["size_bytes"] > 2**20, "the unpacked image"


def test_the_boundary_is_found_among_untestable_releases(found: tuple[Done, OnEngine]) -> None:
    done, _ = found
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["change"], answer["last_before"], answer["first_after"]) == (
        "fix",
        "0.28.0",
        "0.29.0",
    )
    assert answer["exact"]
    assert len(done.json["candidates"]) == 52
    order = done.json["candidates"]
    for version, trial in done.trials.items():
        side = "fail" if order.index(version) < order.index("0.29.0") else "pass"
        assert trial["outcome"] == ("skip" if version in UNTESTABLE else side)
    boots = counts(done.run_dir, "build_ready")
    assert len(boots) <= 9  # which trials there are depends on which images come first
    # 0.7.3 with either of its engines
    assert boots == dict.fromkeys(boots, 1) | {"0.7.3": 2, "0.28.0": 2, "0.29.0": 2}


def test_what_cannot_be_tested_says_why(found: tuple[Done, OnEngine]) -> None:
    done, _ = found
    skipped = {v: trial for v, trial in done.trials.items() if trial["outcome"] == "skip"}
    assert "0.16.0" in skipped  # in the middle
    for version, trial in skipped.items():
        reason, detail = UNTESTABLE[version]
        assert trial["reason"] == reason
        assert detail in trial["detail"]
        assert (trial["build"] is None) == (version in MISSING)


def test_no_container_is_left_and_no_image_that_was_not_tested(
    found: tuple[Done, OnEngine], odd: ImageFamily
) -> None:
    done, there = found
    assert there.containers() == []
    builds = {v: t["build"] for v, t in done.trials.items() if t["build"]}
    assert there.digests() == {build["digest"] for build in builds.values()}
    assert 2 < len(builds) <= 9
    for version, build in builds.items():
        tag = "nightly" if version == NIGHTLY_VERSION else f"v{version}"
        assert (build["kind"], build["digest"]) == ("image", odd.digests[tag])
        if tag != "nightly":
            assert build["ref"] == odd.reference(tag, there.registry)


def test_a_moving_tag_is_pinned_with_its_commit(
    found: tuple[Done, OnEngine], odd: ImageFamily
) -> None:
    done, there = found
    settings = tomllib.loads((done.run_dir / "run.toml").read_text())
    pinned = f"{there.registry}/{odd.repository}@{odd.digests['nightly']}"
    last = settings["candidates"][-1]
    assert (last["version"], last["image"], last["commit"]) == (NIGHTLY_VERSION, pinned, NIGHTLY)
    assert settings["to"] == "nightly"
    assert done.trials[NIGHTLY_VERSION]["build"]["ref"] == pinned
    assert done.trials[NIGHTLY_VERSION]["reported_version"].endswith(f"+g{NIGHTLY[:9]}")
    assert any(NIGHTLY in line and pinned in line for line in done.stderr.splitlines())


def test_the_evidence_names_image_and_engine(found: tuple[Done, OnEngine]) -> None:
    done, there = found
    version = there.client.version()["Version"]
    for tested, trial in done.trials.items():
        if trial["outcome"] == "skip":
            continue
        kept = json.loads((done.run_dir / "trials" / tested / "environment.json").read_text())
        assert kept["image"]["digest"] == trial["build"]["digest"]
        assert kept["image"]["id"].startswith("sha256:")
        assert kept["engine"]["engine"] == version
        assert kept["engine"]["storage_driver"]
        # the entry point changed with 0.11.1, and with it how the model is named
        start = SERVE if Version(tested) >= Version("0.11.1") else [*MODULE, "--model"]
        assert kept["command"][: len(start)] == start
        assert kept["command"][len(start)] == "/vbisect/model"
        assert ("--enable-scale-out" in kept["command"]) == (Version(tested) >= Version("0.30"))


def commands(done: Done) -> dict[str, list[str]]:
    """What each container was started with, by version."""
    paths = done.run_dir.glob("trials/*/environment.json")
    return {path.parent.name: json.loads(path.read_text())["command"] for path in paths}


def test_a_port_that_never_opens_is_a_skip_and_moves_the_end(
    docked: Vbisect, there: OnEngine, odd: ImageFamily
) -> None:
    ends = ("--from", "0.31.0", "--to", "0.33.0", "--boot-timeout", "6", *QUICK)
    done = docked.run(*ends, *options(odd, there.registry))
    # that may pass, so nobody can say that nothing changed
    assert (done.returncode, done.json["status"]) == (3, "inconclusive"), done.stderr
    silent = done.trials["0.31.0"]
    assert (silent["outcome"], silent["reason"]) == ("skip", "never ready")
    assert "THE LOWER END MOVED from 0.31.0 to 0.32.0" in done.stderr
    assert there.containers() == []


def test_an_image_is_told_what_to_start_when_it_does_not_say(
    docked: Vbisect, there: OnEngine, registry: LocalRegistry
) -> None:
    family = ImageFamily(registry, "test/bare")
    inside = Behaviour(honours_host=True, max_seconds=LIFE_SECONDS)
    bare = {"Env": [f"PATH={PATH}"], "Entrypoint": None}
    shell = {"Env": [f"PATH={PATH}"], "Entrypoint": ["/bin/sh", "-c"]}
    for version, config in (("0.11.0", bare), ("0.11.1", bare), ("0.12.0", shell)):
        layers = [base_layer(), server_layer(version, inside, 0)]
        registry.push_image(family.repository, [f"bare-{version}"], layers, config)
    images = [
        word
        for version in ("0.11.0", "0.11.1", "0.12.0")
        for word in ("--image", f"{version}={there.registry}/{family.repository}:bare-{version}")
    ]
    ends = ("--from", "0.11.0", "--to", "0.12.0", "--skip", "0.11.2", "--sweep", *QUICK)
    # the repository has nothing for these versions: only what --image names can have been run
    done = docked.run(*ends, *images, "--runtime", "docker", "--image-repo", there.registry + "/x")
    assert done.returncode == 1, done.stderr
    started = commands(done)
    assert started["0.11.0"][:3] == MODULE
    assert started["0.11.1"][:2] == started["0.12.0"][:2] == SERVE
    assert {t["outcome"] for t in done.trials.values()} == {"pass"}
    assert done.trials["0.11.0"]["build"]["ref"] == images[1].partition("=")[2]


@pytest.fixture(scope="module")
def small(registry: LocalRegistry) -> ImageFamily:
    """Three releases: fixed in the second. Two of them in a variant, too."""
    family = ImageFamily(registry, "test/small")
    with skipping():
        base_layer()
    for version in ("0.31.0", "0.32.0", "0.33.0"):
        tags = (f"v{version}", f"v{version}-cu129") if version != "0.32.0" else ()
        family.push(version, BAD if version == "0.31.0" else GOOD, tags)
    return family


def right(done: Done) -> None:
    """The answer about the small family."""
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("0.31.0", "0.32.0")
    assert answer["exact"]


def test_what_is_on_the_engine_is_not_pulled_again(
    docked: Vbisect, there: OnEngine, small: ImageFamily, proxy: RegistryProxy
) -> None:
    words = ("--from", "0.31.0", "--to", "0.33.0", *QUICK, *options(small, there.registry))
    first = docked.run(*words)
    right(first)
    assert proxy.seen(kind="blob")
    proxy.exchanges.clear()
    second = docked.run(*words)
    right(second)
    assert proxy.seen(kind="blob") == []
    # neither is counted as a pull by any registry
    assert {(e.method, e.kind) for e in proxy.seen()} == {("HEAD", "manifest"), ("GET", "tags")}
    # and without the registry, it is said that nobody looked whether the tags have moved
    proxy.__exit__(None, None, None)
    third = docked.run(*words)
    right(third)
    for version, trial in third.trials.items():
        assert f":v{version}: the local image is used, for the registry said: " in third.stderr
        assert any("could not be asked" in note for note in trial["notes"])
        assert second.trials[version]["notes"] == []
    builds = [{v: t["build"] for v, t in d.trials.items()} for d in (first, second, third)]
    assert builds[0] == builds[1] == builds[2]


def test_a_variant_is_the_end_of_a_tag(
    docked: Vbisect, there: OnEngine, small: ImageFamily
) -> None:
    words = ("--from", "0.31.0", "--to", "0.33.0", "--image-variant", "cu129", *QUICK)
    done = docked.run(*words, *options(small, there.registry))
    assert done.returncode == 3, done.stderr
    answer = done.json["answer"]
    assert (answer["suspects"], answer["exact"]) == (["0.32.0", "0.33.0"], False)
    assert "v0.32.0-cu129" in done.trials["0.32.0"]["detail"]
    assert done.trials["0.33.0"]["build"]["ref"].endswith(":v0.33.0-cu129")


@pytest.fixture(scope="module")
def nightlies(registry: LocalRegistry) -> ImageFamily:
    """The newest release and three development builds; the second one has the fix."""
    family = ImageFamily(registry, "test/nightlies")
    with skipping():
        base_layer()
    family.push("0.33.0", BAD, ["v0.33.0"])
    # the oldest build has the commit that sorts last
    for day, commit in enumerate(COMMITS, start=20):
        family.push(
            f"0.33.1.dev{day}+g{commit[:9]}",
            BAD if commit == COMMITS[0] else GOOD,
            [f"nightly-{commit}", *(["nightly"] if commit == COMMITS[-1] else [])],
            revision=commit,
            created=datetime(2026, 11, day, tzinfo=UTC),
        )
    return family


def test_commits_between_the_newest_release_and_nightly_are_candidates(
    docked: Vbisect, there: OnEngine, nightlies: ImageFamily
) -> None:
    old, fixed, newest = COMMITS
    versions = [f"0.33.1.dev202611{20 + i}0000+g{commit[:9]}" for i, commit in enumerate(COMMITS)]
    words = (*QUICK, *options(nightlies, there.registry))
    done = docked.run("--from", "0.33.0", "--to", "nightly", *words)
    assert done.returncode == 0, done.stderr
    assert done.json["candidates"] == ["0.33.0", *versions]
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == (versions[0], versions[1])
    assert answer["exact"]
    assert f"--to nightly-{newest} " in done.json["replay"]
    for version, commit in zip(versions, COMMITS, strict=True):
        build = done.trials[version]["build"]
        assert build["digest"] == nightlies.digests[f"nightly-{commit}"]
        assert done.trials[version]["reported_version"].endswith(f"+g{commit[:9]}")

    done = docked.run("--from", f"nightly-{old}", "--to", f"nightly-{newest}", *words)
    assert done.returncode == 0, done.stderr
    assert done.json["candidates"] == versions
    assert done.json["answer"]["first_after"] == versions[1]
    unknown = docked.run("--from", "0.33.0", "--to", f"nightly-{'f' * 40}", *words)
    assert unknown.returncode == 2
    assert f"nightly-{'f' * 40}" in unknown.stderr
    assert fixed not in unknown.stderr


def test_without_a_nightly_the_newest_release_is_taken_and_that_is_said(
    docked: Vbisect, there: OnEngine, small: ImageFamily
) -> None:
    words = (*QUICK, *options(small, there.registry))
    done = docked.run("--from", "0.32.0", "--to", "nightly", *words)
    assert done.returncode == 1, done.stderr
    assert done.json["range"]["to"]["tested"] == "0.33.0"
    assert "NO NIGHTLY could be had" in done.stderr


@pytest.fixture
def paused(
    docked: Vbisect, there: OnEngine, small: ImageFamily, tmp_path: Path
) -> Iterator[Callable[..., tuple[Started, Any]]]:
    """Starts a run whose first server is ready and stays; the run and the container."""
    gate = tmp_path / "gate"

    def start(*words: str, **env: str) -> tuple[Started, Any]:
        started = docked.start(
            *("--from", "0.32.0", "--to", "0.33.0", *words),
            *options(small, there.registry),
            *("--", "sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done"),
            **env,
        )
        started.until(lambda journal: any(e["event"] == "server_ready" for e in journal))
        [container] = there.containers()
        return started, container

    yield start
    gate.touch()


def test_a_container_is_confined_and_marked(
    docked: Vbisect, paused: Callable[..., tuple[Started, Any]]
) -> None:
    started, container = paused("--memory", "600MB", "--env", "VLLM_LOGGING_LEVEL=DEBUG")
    host, config = container.attrs["HostConfig"], container.attrs["Config"]
    [published] = container.attrs["NetworkSettings"]["Ports"].items()
    assert published[0] == "8000/tcp"
    assert [place["HostIp"] for place in published[1]] == ["127.0.0.1"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert not host["Privileged"]
    assert not host["DeviceRequests"]
    status = container.exec_run(["python3", "-c", "print(open('/proc/1/status').read())"])
    assert "NoNewPrivs:\t1" in status.output.decode()
    assert (host["Memory"], host["MemorySwap"]) == (600 * 10**6, 600 * 10**6)
    assert host["ShmSize"] == 16 * 2**30
    assert container.labels["vbisect.version"] == "0.32.0"
    assert container.labels["vbisect.run"] == started.run_dir.name
    assert "VLLM_LOGGING_LEVEL=DEBUG" in config["Env"]
    assert "VLLM_NO_USAGE_STATS=1" in config["Env"]
    mounts = {mount["Destination"]: mount for mount in container.attrs["Mounts"]}
    cache = mounts.pop("/root/.cache/huggingface")
    assert (cache["Type"], cache["RW"]) == ("bind", True)
    assert cache["Source"] == f"{docked.env['HOME']}/.cache/huggingface"
    volume = mounts.pop("/root/.cache/vllm")
    assert (volume["Type"], volume["RW"]) == ("volume", True)
    identity = container.attrs["Image"].removeprefix("sha256:")
    assert volume["Name"] == f"vbisect-vllm-{identity[:12]}"
    assert not mounts


def test_the_users_own_settings_reach_the_container(
    docked: Vbisect, paused: Callable[..., tuple[Started, Any]], tmp_path: Path
) -> None:
    """Folders where the server looks for them; secrets in no file, and nothing of no use there."""
    home, hub, modelscope = (tmp_path / name for name in ("hf", "hub", "modelscope"))
    (home / "kept").mkdir(parents=True)
    started, container = paused(
        HF_HOME=str(home),
        HF_HUB_CACHE=str(hub),
        HF_HUB_OFFLINE="1",
        HF_ENDPOINT="http://hub.example",
        VLLM_USE_MODELSCOPE="true",
        MODELSCOPE_CACHE=str(modelscope),
        VLLM_USE_V1="0",
        HTTP_PROXY="http://me:correct-horse@proxy.example:3128",
        HTTPS_PROXY="http://127.0.0.1:3128",
    )
    given = dict(variable.split("=", 1) for variable in container.attrs["Config"]["Env"])
    assert given["HF_ENDPOINT"] == "http://hub.example"
    assert given["HF_HUB_OFFLINE"] == "1"
    assert given["VLLM_USE_MODELSCOPE"] == "true"
    assert given["HTTP_PROXY"] == "http://me:correct-horse@proxy.example:3128"
    assert given["NO_PROXY"] == given["no_proxy"] == "127.0.0.1,localhost,::1"
    assert not {"VLLM_USE_V1", "HTTPS_PROXY"} & set(given)
    mounts = {m["Destination"]: m for m in container.attrs["Mounts"] if m["Type"] == "bind"}
    assert {inside: mount["Source"] for inside, mount in mounts.items()} == {
        given["HF_HOME"]: str(home),
        given["HF_HUB_CACHE"]: str(hub),
        given["MODELSCOPE_CACHE"]: str(modelscope),
    }
    assert all(mount["RW"] for mount in mounts.values())
    listed = container.exec_run(
        ["python3", "-c", "import os; print(os.listdir(os.environ['HF_HOME']))"]
    )
    assert listed.output.decode().strip() == "['kept']"
    run_dir = started.run_dir
    texts = [path.read_text(errors="replace") for path in run_dir.rglob("*") if path.is_file()]
    assert any("Taken from your environment: VLLM_USE_MODELSCOPE=true;" in text for text in texts)
    assert any("Not passed on: HTTPS_PROXY, for containers do not reach" in text for text in texts)
    assert not [text for text in texts if "correct-horse" in text]


def test_proxies_of_containers_are_those_of_dockers_own_configuration(
    docked: Vbisect, paused: Callable[..., tuple[Started, Any]]
) -> None:
    """It says what containers reach; the shell's are for this machine."""
    configuration = Path(docked.env["DOCKER_CONFIG"])
    configuration.mkdir(parents=True, exist_ok=True)
    proxies = {"proxies": {"default": {"httpProxy": "http://bridge.example:1"}}}
    (configuration / "config.json").write_text(json.dumps(proxies))
    _, container = paused(HTTP_PROXY="http://shell.example:2")
    given = container.attrs["Config"]["Env"]
    assert "HTTP_PROXY=http://bridge.example:1" in given
    assert not [variable for variable in given if "shell.example" in variable]


def test_the_token_is_in_the_container_and_nowhere_else(
    docked: Vbisect,
    paused: Callable[..., tuple[Started, Any]],
    there: OnEngine,
    registry: LocalRegistry,
) -> None:
    token = "correct-horse-battery"  # nothing but the variable's name tells that it is secret
    _, container = paused(HF_TOKEN=token)
    assert f"HF_TOKEN={token}" in container.attrs["Config"]["Env"]
    assert f"HUGGING_FACE_HUB_TOKEN={token}" in container.attrs["Config"]["Env"]
    # a server that tells its token in its log and in every answer
    leaky = ImageFamily(registry, "test/leaky")
    for version in ("0.32.0", "0.33.0"):
        leaky.push(version, replace(GOOD, leaks=f"HF_TOKEN={token}"))
    done = docked.run(*AGREEING, *options(leaky, there.registry), HF_TOKEN=token)
    assert done.returncode == 1, done.stderr
    logs = [path.read_text() for path in done.run_dir.rglob("server.log")]
    assert len(logs) == 2
    assert all("environment: HF_TOKEN=" in log for log in logs)
    kept = [path for path in docked.results.rglob("*") if path.is_file()]
    assert len(kept) > 10
    assert [path for path in kept if token.encode() in path.read_bytes()] == []
    assert token not in done.stdout + done.stderr
