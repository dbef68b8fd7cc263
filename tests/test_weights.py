"""Weights are fetched once, before the first boot; what boots is known to live by what it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driving import Done, Vbisect, counts, events, world
from standin.behaviour import Behaviour
from standin.hub import COMMIT, Model, ModelHub, model_files
from standin.index import PackageIndex
from standin.nvml import build_library, device, driver, gpu_environment
from standin.running import wait
from standin.wheels import repack
from vbisect.launch import LaunchSpec, launch_process
from vbisect.launch.signs import SPINNING, Counters, Patience, tree_counters
from vbisect.reasons import SkipReason, Untestable

NAME = "org/model"
SIZE = 9_000_000
LOADS = Behaviour(loads_weights=True)
FAILS = Behaviour(loads_weights=True, fail_rate={"chat": 1.0})
RELEASES = {
    "80.0": FAILS,
    "80.1": LOADS,
    # these log requests by themselves: their servers are started without any argument
    "0.9.1": FAILS,
    "0.9.2": LOADS,
}
QUICK = ("--n", "4", "--confidence", "0.6", "--model", NAME)
ENDS = ("--from", "80.0", "--to", "80.1")
OWN_WAY = ("--serve-arg", "--load-format mistral")
"""Servers that load in a way of their own find the weights themselves."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases, which want the real client of a hub, and that."""
    directory = tmp_path_factory.mktemp("loading")
    repack(directory, "huggingface_hub")
    requires = {version: ["huggingface_hub"] for version in RELEASES}
    with PackageIndex(world(directory, RELEASES, requires)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments, made once."""
    return tmp_path_factory.mktemp("loading-cache")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ModelHub]:
    """Has one model, and sends it at a megabyte a second."""
    with ModelHub({NAME: Model(model_files(SIZE))}, rate=1e6) as served:
        yield served


@pytest.fixture
def vbisect(
    command: Callable[..., Vbisect], index: PackageIndex, cache: Path, hub: ModelHub, tmp_path: Path
) -> Vbisect:
    """The command, with that hub and an empty cache of its models."""
    made = command(index, cache)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        made.env.pop(name, None)
    made.env |= hub.environment(tmp_path / "hf")
    return made


def blobs(vbisect: Vbisect) -> list[str]:
    """The names of the model's files in the cache."""
    found = Path(vbisect.env["HF_HOME"]).glob("hub/models--org--model/blobs/*")
    return [path.name for path in found]


def fetched(run_dir: Path) -> int:
    """How often the weights were fetched."""
    return sum(event["event"] == "weights_ready" for event in events(run_dir))


def test_a_download_longer_than_the_boot_timeout_is_fetched_once(
    vbisect: Vbisect, hub: ModelHub
) -> None:
    """It sends what vLLM loads, once, and nothing of it in a boot."""
    done = vbisect.run(*ENDS, *QUICK, "--boot-timeout", "5")
    assert done.returncode == 0, done.stderr
    assert done.json["answer"]["first_after"] == "80.1"
    model = hub.models[NAME]
    wanted = {n: len(d) for n, d in model.files.items() if not n.endswith((".bin", ".pth"))}
    sent = model.sent - Counter(["config.json"] * wanted["config.json"])  # vbisect reads it too
    assert sent == wanted
    [started] = [e for e in events(done.run_dir) if e["event"] == "weights_started"]
    [ready] = [e for e in events(done.run_dir) if e["event"] == "weights_ready"]
    assert started["bytes"] == 0
    assert started["total"] == ready["bytes"] == sum(wanted.values())
    assert (ready["model"], ready["commit"]) == (NAME, COMMIT)
    assert counts(done.run_dir, "build_ready") == counts(done.run_dir, "server_ready")
    assert f"fetching the weights of {NAME}, 9.0 MB" in done.stderr
    assert f"weights of {NAME}: 9.0 MB there" in done.stderr


def test_a_cache_is_where_vbisect_was_started(
    vbisect: Vbisect, hub: ModelHub, tmp_path: Path
) -> None:
    """Each server runs in a folder of its own, which goes with it."""
    hub.rate = None
    done = vbisect.run(*ENDS, *QUICK, HF_HOME=os.path.relpath(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    assert hub.models[NAME].sent["model-00001-of-00002.safetensors"] == SIZE // 2
    assert blobs(vbisect)


def test_a_server_without_arguments_has_weights_too(
    vbisect: Vbisect, hub: ModelHub, tmp_path: Path
) -> None:
    """As the documented first command on a GPU host starts its oldest releases."""
    hub.rate = None
    lines = [driver("565.57.01", 12070), device("GPU-0")]
    host = gpu_environment(build_library(tmp_path / "nvml"), tmp_path / "gpus", lines)
    ends = ("--from", "0.9.1", "--to", "0.9.2", "--device", "cuda", "--json")
    done = vbisect("run", *ends, *QUICK, "--results", vbisect.results, **host)
    assert done.returncode == 0, done.stderr
    assert fetched(done.run_dir) == 1


def test_an_interrupted_download_goes_on(vbisect: Vbisect, hub: ModelHub) -> None:
    """What was finished of it is not sent again, and nothing useless lies about meanwhile."""
    model = hub.models[NAME] = Model(model_files(SIZE, shards=12))
    started = vbisect.start(*ENDS, *QUICK)
    run_dir = started.run_dir
    snapshot = Path(vbisect.env["HF_HOME"], "hub/models--org--model/snapshots", COMMIT)

    def finished() -> list[str]:
        return [path.name for path in snapshot.glob("*.safetensors")]

    assert wait(finished, 60)
    started.process.send_signal(signal.SIGINT)
    done = started.end()
    assert (done.returncode, done.json["status"]) == (130, "interrupted")
    assert not [name for name in blobs(vbisect) if name.count(".") > 1]
    assert fetched(run_dir) == 0
    kept = finished()
    hub.rate = None
    resumed = vbisect.resume(run_dir)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.json["answer"]["first_after"] == "80.1"
    assert fetched(run_dir) == 1
    assert {model.sent[name] for name in kept} == {SIZE // 12}


def test_what_a_run_has_fetched_is_not_looked_for_again(vbisect: Vbisect, hub: ModelHub) -> None:
    hub.rate = None
    started = vbisect.start(*ENDS, *QUICK)
    run_dir = started.until(lambda journal: any(e["event"] == "weights_ready" for e in journal))
    started.kill()
    resumed = vbisect.resume(run_dir)
    assert resumed.returncode == 0, resumed.stderr
    assert fetched(run_dir) == 1


FAULTS = {
    "refused": ({"broken": 503}, "for the hub refuses: resume the run once it answers. (HTTP 503)"),
    "disk": ({"claimed": {"config.json": 2**50}}, "There is no place for the weights of org/model"),
    "stalled": ({"silent_after": 1_000_000}, "stalled: nothing came for 5 s"),
}


def is_told(done: Done, text: str) -> None:
    """It ended with what this host cannot do, and no release was skipped or booted."""
    assert done.returncode == 4, done.stderr
    assert text in done.json["message"]
    assert done.json["trials"] == []
    assert counts(done.run_dir, "build_ready") == {}
    assert not list(done.run_dir.rglob("server.log"))


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_cannot_be_had_are_a_fault_of_the_run(
    vbisect: Vbisect, hub: ModelHub, fault: str
) -> None:
    """Told before anything boots; and the run goes on once it is mended."""
    changes, text = FAULTS[fault]
    healthy = hub.models[NAME]
    hub.models[NAME] = Model(healthy.files, **changes)  # type: ignore[arg-type]
    done = vbisect.run(*ENDS, *QUICK, "--boot-timeout", "5")
    is_told(done, text)
    hub.models[NAME], hub.rate = healthy, None
    resumed = vbisect.resume(done.run_dir)
    assert resumed.returncode == 0, resumed.stderr


def test_what_the_hub_no_longer_gives_is_a_fault_of_the_run(
    vbisect: Vbisect, hub: ModelHub
) -> None:
    """It gave it as the run began; what it never did is told before there is a run."""
    healthy = hub.models[NAME]
    hub.models[NAME] = Model(healthy.files, broken=503)
    run_dir = vbisect.run(*ENDS, *QUICK).run_dir
    hub.models[NAME] = Model(healthy.files, gated=True)
    is_told(vbisect.resume(run_dir), "is not for everybody: accept its terms on the hub")
    del hub.models[NAME]
    is_told(vbisect.resume(run_dir), "The hub has no model org/model, or does not show it")
    nowhere = vbisect.resume(run_dir, HF_ENDPOINT="http://127.0.0.1:9")
    is_told(nowhere, "the hub cannot be reached: check the network, HF_ENDPOINT and proxies")
    hub.models[NAME], hub.rate = healthy, None
    assert vbisect.resume(run_dir).returncode == 0


def test_a_token_opens_a_gated_model(vbisect: Vbisect, hub: ModelHub) -> None:
    hub.models[NAME].gated, hub.rate = True, None
    done = vbisect.run(*ENDS, *QUICK, HF_TOKEN=hub.token)
    assert done.returncode == 0, done.stderr
    files = [path for path in done.run_dir.rglob("*") if path.is_file()]
    assert not any(hub.token.encode() in path.read_bytes() for path in files)


def test_offline_nothing_is_fetched(vbisect: Vbisect, hub: ModelHub) -> None:
    """The cache has what an earlier run fetched."""
    hub.rate = None
    assert vbisect.run(*ENDS, *QUICK).returncode == 0
    hub.requests.clear()
    done = vbisect.run(*ENDS, *QUICK, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert not [path for path in hub.requests if path.endswith(".safetensors") or "/api/" in path]
    assert fetched(done.run_dir) == 0


def test_without_the_hub_the_cache_is_enough(vbisect: Vbisect, hub: ModelHub) -> None:
    hub.rate = None
    assert vbisect.run(*ENDS, *QUICK).returncode == 0
    done = vbisect.run(*ENDS, *QUICK, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "are left to the servers: the hub does not tell of it, and the cache has it" in (
        done.stderr
    )


def test_a_server_that_downloads_is_waited_for(vbisect: Vbisect, hub: ModelHub) -> None:
    """Nothing in its log tells of it, and it takes several times the boot timeout."""
    hub.models[NAME] = Model(model_files(18_000_000, shards=36))
    hub.rate = 2e6
    done = vbisect.run(*ENDS, *QUICK, *OWN_WAY, "--boot-timeout", "5")
    assert done.returncode == 0, done.stderr
    assert fetched(done.run_dir) == 0
    assert counts(done.run_dir, "trial_started") == counts(done.run_dir, "trial_finished")


def test_a_boot_that_ends_while_it_downloads_is_begun_again(
    vbisect: Vbisect, hub: ModelHub
) -> None:
    """The end of the range stays where it is."""
    model = hub.models[NAME]
    model.silent_after = SIZE // 2
    started = vbisect.start(*ENDS, *QUICK, *OWN_WAY, "--boot-timeout", "5")
    started.until(lambda journal: any("still being" in str(e.get("text")) for e in journal))
    model.silent_after, hub.rate = None, None
    done = started.end()
    assert done.returncode == 0, done.stderr
    notes = [e["text"] for e in events(done.run_dir) if e["event"] == "note"]
    assert any(f"{NAME} was still being downloaded when the boot ended" in note for note in notes)
    assert done.json["answer"]["last_before"] == "80.0"
    assert done.json["range"]["from"]["tested"] == "80.0"


def test_a_server_that_spins_for_ever_is_given_up(tmp_path: Path) -> None:
    """Later than one that only waits."""
    vllm = tmp_path / "environment" / "bin" / "vllm"
    vllm.parent.mkdir(parents=True)
    vllm.write_text(f"#!{sys.executable} -I\nwhile True: pass\n")
    vllm.chmod(0o755)
    spec = LaunchSpec(
        version="1.0",
        model="m",
        arguments=(),
        environment={},
        boot_timeout=1,
        log=tmp_path / "server.log",
        owner=tmp_path,
    )
    given_up = threading.Event()
    with (
        pytest.raises(Untestable, match="busy without a word for 3 s") as failed,
        launch_process(spec, vllm, "1.0", given_up),
    ):
        pass
    assert failed.value.reason is SkipReason.BOOT_TIMEOUT


# Signs of life, by any clock


def test_silence_ends_patience() -> None:
    patience = Patience(10, 0.0, 0)
    patience.take(5.0, 100, Counters())
    patience.take(15.0, 100, Counters())
    assert patience.over(15.0) is None
    assert patience.over(15.1) == "silent for 10 s"


def test_data_that_moves_is_a_sign_of_life_as_long_as_it_moves() -> None:
    patience = Patience(10, 0.0, 0)
    for step in range(1, 100):
        patience.take(step * 9.0, 0, Counters(moved=step * 200_000))
        assert patience.over(step * 9.0) is None
    assert patience.over(99 * 9.0 + 10.1)


def test_heartbeats_and_polling_are_none() -> None:
    patience = Patience(10, 0.0, 0)
    for second in range(1, 11):
        patience.take(float(second), 0, Counters(moved=second * 1000, computed=second * 0.05))
    assert patience.over(10.1) == "silent for 10 s"


def test_computing_is_a_sign_of_life_for_a_while() -> None:
    patience = Patience(10, 0.0, 0)
    for second in range(1, SPINNING * 10 + 1):
        patience.take(float(second), 0, Counters(computed=float(second)))
        assert patience.over(float(second)) is None
    assert patience.over(SPINNING * 10 + 0.1) == "busy without a word for 30 s"
    patience.take(SPINNING * 10.0, 1, Counters(computed=SPINNING * 10.0))
    assert patience.over(SPINNING * 10 + 0.1) is None


def test_processes_that_end_take_no_patience_along() -> None:
    """Their counts go with them; what the others do counts from there."""
    patience = Patience(10, 0.0, 0)
    patience.take(1.0, 0, Counters(moved=10**9))
    patience.take(2.0, 0, Counters(moved=10**6))
    patience.take(9.0, 0, Counters(moved=10**6 + 200_000))
    assert patience.over(18.0) is None


def test_what_children_do_counts() -> None:
    """A server's engines and workers are processes below it."""
    write = "import os, sys; f = open(os.devnull, 'wb'); f.write(bytes(10**7)); f.flush()"
    shell = f'{sys.executable} -c "{write}"; echo done; read line'
    with subprocess.Popen(
        ["sh", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        told = tree_counters(process.pid)
        process.kill()
    assert told.moved > 10**7


def test_what_is_gone_did_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert tree_counters(process.pid) == Counters()
