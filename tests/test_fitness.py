"""What a host can run is known before anything is fetched: driver, GPU, Python, machine."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from driving import Vbisect, events
from standin.behaviour import Behaviour
from standin.nvml import build_library, device, driver, gpu_environment
from vbisect.reasons import SkipReason
from vbisect.releases import Device, catalogue
from vbisect.releases.cuda import Card, is_met, usual_requirement
from vbisect.releases.fitness import (
    Host,
    image_needs,
    official_needs,
    refusal,
    wheel_needs,
)
from vbisect.run.fit import pythons_here

H20 = Card("NVIDIA H20", "nvidia", (9, 0))
RTX_4090 = Card("NVIDIA GeForce RTX 4090", "geforce", (8, 9))
V100 = Card("Tesla V100-SXM2-16GB", "tesla", (7, 0))
B200 = Card("NVIDIA B200", "nvidia", (10, 0))
OLD, NEW = Host("565.57.01", "12.7", (H20,), "x86_64"), Host("580.65.06", "13.0", (H20,), "x86_64")
COMPATIBLE = {"VLLM_ENABLE_CUDA_COMPATIBILITY": "1"}
FAMILY = {f"60.{n}": Behaviour(fail_rate={"chat": 1.0}) if n < 2 else Behaviour() for n in range(4)}
GPUS = [device(f"GPU-{n}", capability=(9, 0)) for n in range(8)]


def judged(
    host: Host, version: str, variant: str = "", given: dict[str, str] | None = None
) -> SkipReason | None:
    """Why the host does not run the official image of a release."""
    needs = official_needs(version, variant, given or {})
    assert needs is not None
    refused = refusal(needs, host)
    return refused.reason if refused else None


def test_the_host_of_17173_runs_every_image_up_to_0_19_and_the_variants_after_it() -> None:
    """Driver 565.57.01 runs CUDA 12.9 by minor version compatibility, and no CUDA 13."""
    told = {version: judged(OLD, version) for version in catalogue()}
    assert [v for v, why in told.items() if why is None][-1] == "0.19.1"
    late = [v for v, why in told.items() if why is SkipReason.DRIVER_TOO_OLD]
    assert (late[0], late[-1], len(late)) == ("0.20.0", "0.33.0", 19)
    assert {judged(OLD, version, "cu129") for version in late} == {None}
    assert {judged(NEW, version) for version in catalogue()} == {None}


def test_an_image_lets_only_the_driver_branches_pass_that_it_lists() -> None:
    """Branch 545 runs CUDA 12.9 too, but the container toolkit refuses the image there."""
    assert judged(Host("545.23.08", "12.3", (H20,)), "0.16.0") is SkipReason.DRIVER_TOO_OLD
    assert judged(Host("550.90.07", "12.4", (H20,)), "0.16.0") is None
    geforce = Host("550.90.07", "12.4", (RTX_4090,))
    assert judged(geforce, "0.16.0") is SkipReason.DRIVER_TOO_OLD
    assert judged(geforce, "0.16.0", given={"NVIDIA_DISABLE_REQUIRE": "1"}) is None
    assert judged(geforce, "0.8.5") is None, "its CUDA, 12.4, is the driver's own"


def test_a_newer_cuda_on_a_data_centre_card_where_the_user_asks_for_it() -> None:
    """With vLLM's variable, from the release on that reads it."""
    old = Host("535.183.01", "12.2", (H20,))
    assert judged(old, "0.25.0") is SkipReason.DRIVER_TOO_OLD
    assert judged(old, "0.25.0", given=COMPATIBLE) is None
    geforce = Host("535.183.01", "12.2", (RTX_4090,))
    unchecked = COMPATIBLE | {"NVIDIA_DISABLE_REQUIRE": "1"}
    assert judged(geforce, "0.25.0", given=unchecked) is SkipReason.DRIVER_TOO_OLD


def test_architectures() -> None:
    """CUDA 13 has left Volta behind, and only from CUDA 12.8 on there is Blackwell."""
    volta = Host("580.65.06", "13.0", (V100,))
    assert judged(volta, "0.19.0") is None
    assert judged(volta, "0.20.0") is SkipReason.GPU_NOT_SUPPORTED
    blackwell = Host("580.65.06", "13.0", (B200,))
    assert judged(blackwell, "0.8.5") is SkipReason.GPU_NOT_SUPPORTED
    assert {judged(blackwell, version) for version in ("0.9.0", "0.33.0")} == {None}
    assert judged(Host("580.65.06", "13.0", (V100, H20)), "0.20.0") is None, "one of them can"


def test_wheels_by_machine_and_python() -> None:
    """There are none for aarch64 before 0.10.2, and none of Python 3.13 before 0.10.2 either."""

    def why(version: str, host: Host, on: Device = Device.CUDA) -> SkipReason | None:
        refused = refusal(wheel_needs(version, on, {}), host)
        return refused.reason if refused else None

    arm = Host("580.65.06", "13.0", (H20,), "aarch64")
    assert why("0.10.1", arm) is SkipReason.NOT_PUBLISHED
    assert why("0.10.2", arm) is None
    newest = Host(pythons=("3.13.1",))
    assert why("0.9.0", newest, Device.CPU) is SkipReason.NOT_INSTALLABLE
    assert why("0.33.0", newest, Device.CPU) is None
    assert why("0.33.0", Host(pythons=("3.10.4", "3.9.2"))) is SkipReason.NOT_INSTALLABLE
    assert why("0.33.0", OLD) is SkipReason.DRIVER_TOO_OLD, "a wheel needs a driver as an image"


def test_pythons_are_looked_for_where_no_other_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """uv downloads what is missing unless it may not; what vbisect runs on is there."""
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "automatic")
    assert pythons_here([">=3.99"]) is None
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    assert pythons_here([">=3.9", None]) is None, "the one that runs vbisect does"
    assert platform.python_version() in (pythons_here([">=3.99"]) or ())


def test_what_is_not_known_excludes_nothing() -> None:
    """Another machine's driver, an image that says nothing, a requirement that is none."""
    assert {judged(Host(), version) for version in catalogue()} == {None}
    nonsense = {"NVIDIA_REQUIRE_CUDA": "cuda>=banana ???", "CUDA_VERSION": "banana"}
    for image in ({}, nonsense, {"CUDA_VERSION": "99.1.0"}, {"CUDA_VERSION": "9" * 5000 + ".0"}):
        assert refusal(image_needs("0.33.0", image, {}), OLD) is None
    own = {"CUDA_VERSION": "13.0.2", "NVIDIA_REQUIRE_CUDA": usual_requirement("13.0")}
    refused = refusal(image_needs("0.33.1.dev1", own, {}), OLD)
    assert refused is not None
    assert refused.detail == "CUDA 13.0 needs driver 580, this one is 565.57.01"


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ("", True),
        ("cuda>=12.7", True),
        ("cuda>=12.8", False),
        ("cuda>=12.8 driver>=565,driver<566", True),
        ("cuda>=12.8 brand=tesla,driver>=565,driver<566", False),
        ("cuda>=12.8 brand=NVIDIA,driver>=565,driver<566", True),
        ("driver!=565.57.1", False),
        ("driver=565.57.01.0", True),
        ("arch>=9.0,arch<10.0", True),
        ("arch>9", False),
        ("cuda<=12.7,brand!=geforce", True),
    ],
)
def test_the_language_of_requirements(requirement: str, met: bool) -> None:
    """As libnvidia-container reads it: a space is an or, a comma an and."""
    assert is_met(requirement, "565.57.01", "12.7", H20) is met


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stand-in for the driver's library."""
    return build_library(tmp_path_factory.mktemp("driver") / "nvml")


@pytest.fixture
def gpu_host(nvml: Path, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Makes the variables of a host with eight GPUs and a driver."""

    def make(version: str, cuda: int, gpus: list[str] = GPUS) -> dict[str, str]:
        return gpu_environment(nvml, tmp_path / "gpus", [driver(version, cuda), *gpus])

    return make


WHEELS = ("--runtime", "venv", "--model", "tiny:qwen2")


def test_a_plan_says_what_the_host_cannot_run(
    vbisect: Vbisect, gpu_host: Callable[..., dict[str, str]]
) -> None:
    """``--device auto`` sees the GPUs by NVML; on a newer driver all can be tried."""
    asked = ("plan", *WHEELS, "--from", "0.18.0", "--to", "0.22.0", "--confidence", "0.5")
    host = gpu_host("565.57.01", 12070)
    old = json.loads(vbisect(*asked, "--json", **host).stdout)
    assert (old["testable"], len(old["unfit"])) == (4, 5)
    assert set(old["unfit"].values()) == {
        "driver too old: CUDA 13.0 needs driver 580, this one is 565.57.01"
    }
    words = vbisect(*asked, **host).stdout
    assert "device cuda" in words
    assert "9, 0.18.0 to 0.22.0, 5 that this host cannot run" in words
    assert "not here:   0.20.0 to 0.22.0 (5 releases): driver too old: CUDA 13.0" in words
    tried = json.loads(vbisect(*asked, "--json", "--try-all", **host).stdout)
    assert (tried["testable"], tried["unfit"]) == (9, {})
    assert tried["boots_worst"] >= old["boots_worst"]
    new = json.loads(vbisect(*asked, "--json", **gpu_host("580.65.06", 13000)).stdout)
    assert (new["testable"], new["unfit"]) == (9, {})


def test_gpus_that_are_left_to_others_run_nothing(
    vbisect: Vbisect, gpu_host: Callable[..., dict[str, str]]
) -> None:
    """What they could run is of no use to servers that are not given them."""
    asked = ("plan", *WHEELS, "--from", "0.18.0", "--to", "0.22.0", "--confidence", "0.5")
    gpus = [device("GPU-0", capability=(7, 0)), device("GPU-1", capability=(9, 0))]
    host = gpu_host("580.65.06", 13000, gpus)
    both = json.loads(vbisect(*asked, "--json", **host).stdout)
    assert both["unfit"] == {}
    old = json.loads(vbisect(*asked, "--json", **host, CUDA_VISIBLE_DEVICES="GPU-0").stdout)
    assert len(old["unfit"]) == 5
    assert all("compute capability 7.0" in why for why in old["unfit"].values())


def test_a_run_installs_nothing_that_cannot_run(
    vbisect: Vbisect, gpu_host: Callable[..., dict[str, str]]
) -> None:
    """Each is a skip of its own reason, the end moves loudly, and the replay line repeats it."""
    host = gpu_host("565.57.01", 12070)
    asked = ("run", *WHEELS, "--from", "0.18.0", "--to", "0.21.0", "--json")
    asked = (*asked, "--confidence", "0.5", "--results", str(vbisect.results))
    done = vbisect(*asked, **host)
    assert done.returncode == 1, done.stderr
    unfit = ("0.20.0", "0.20.1", "0.20.2", "0.21.0")
    skipped = {v: t["reason"] for v, t in done.trials.items() if t["outcome"] == "skip"}
    assert skipped == dict.fromkeys((v for v in unfit if v in catalogue()), "driver too old")
    assert done.json["range"]["to"]["tested"] == "0.19.1"
    [moved] = [note for note in done.json["notes"] if "END MOVED" in note]
    assert "THE UPPER END MOVED from 0.21.0 to 0.19.1" in moved
    assert "vbisect: 0.20.0 to 0.21.0 (4 releases): SKIP – driver too old: CUDA" in done.stderr
    assert done.stderr.count("SKIP") == 1
    began = {e["version"] for e in events(done.run_dir) if e["event"] == "trial_started"}
    assert not began & skipped.keys()
    assert "--try-all" not in replay(vbisect, done.run_dir)
    # killed while those were being recorded
    journal = done.run_dir / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if b'"trial_finished"' in line)
    journal.write_bytes(b"".join(lines[: first + 1]))
    resumed = vbisect.resume(done.run_dir, **host)
    assert {v for v, t in resumed.trials.items() if t["outcome"] == "skip"} == skipped.keys()
    tried = vbisect(*asked, "--try-all", "--fresh", **host)
    assert tried.trials["0.21.0"]["outcome"] == "pass"
    assert "--try-all" in replay(vbisect, tried.run_dir)
    # it did run here: what is known of it by trial counts more than what is known by number
    again = vbisect(*asked, **host)
    assert again.trials["0.21.0"]["outcome"] == "pass"


def replay(vbisect: Vbisect, run_dir: Path) -> str:
    """The line that repeats a run."""
    words = vbisect("report", run_dir, "--format", "md").stdout
    return next(line for line in words.splitlines() if line.strip().startswith("vbisect run"))


def test_a_host_that_can_run_nothing(
    vbisect: Vbisect, gpu_host: Callable[..., dict[str, str]]
) -> None:
    """Nothing begins, and one line says why."""
    host = gpu_host("470.82.01", 11040)
    done = vbisect("run", *WHEELS, "--from", "0.18.0", "--to", "0.21.0", **host)
    assert done.returncode == 4
    assert "This host can run none of the candidates: driver too old: CUDA 12.9" in done.stderr
    assert "--try-all" in done.stderr
    assert not list(vbisect.results.iterdir())


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """Variables with which a host has no libnuma that loads, no compiler and no headers."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "libnuma.so.1").touch()
    return {"LD_LIBRARY_PATH": str(tmp_path / "bare"), "CXX": "/nowhere/c++"}


def test_a_host_without_libnuma_is_told_before_anything_is_fetched(
    vbisect: Vbisect, bare: dict[str, str]
) -> None:
    """In one line; without a compiler a tiny model is served all the same."""
    ends = ("--runtime", "venv", "--from", "0.31.0", "--to", "0.32.0", "--confidence", "0.6")
    done = vbisect.run(*ends, **bare)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == (
        "vbisect: This host can run none of the candidates: system package missing: vLLM on a "
        "CPU needs libnuma.so.1, which this host lacks (apt-get install libnuma1). --try-all tries "
        "them all the same."
    )
    assert not list(vbisect.results.iterdir())
    tried = vbisect.run(*ends, "--try-all", **bare)  # the stand-in needs none
    assert tried.returncode == 1, tried.stderr
    without_compiler = vbisect.run(*ends, CXX="/nowhere/c++")
    assert without_compiler.returncode == 1, without_compiler.stderr


def test_a_model_that_is_compiled_needs_a_compiler(
    vbisect: Vbisect, tmp_path: Path, bare: dict[str, str]
) -> None:
    """Of the releases of which that is known, and where nothing says that it is not compiled."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    ends = ("--runtime", "venv", "--from", "0.31.0", "--to", "0.32.0", "--confidence", "0.6")
    model = ("--model", tmp_path / "model")
    done = vbisect.run(*ends, *model, **bare)
    assert done.returncode == 4
    assert "vLLM on a CPU needs libnuma.so.1 and a C++ compiler" in done.stderr
    assert "apt-get install libnuma1 g++" in done.stderr
    off = vbisect.run(*ends, *model, "--env", "TORCHDYNAMO_DISABLE=1", CXX="/nowhere/c++")
    assert off.returncode == 1, off.stderr
    control = vbisect.run(*ends, "--control-model", tmp_path / "model", CXX="/nowhere/c++")
    assert control.returncode == 4
    old = wheel_needs("0.26.0", Device.CPU, {})
    assert [part.package for part in old.parts] == ["libnuma1"]


def test_a_doctor_says_what_a_host_for_cpu_servers_lacks(
    vbisect: Vbisect, bare: dict[str, str]
) -> None:
    """And that the tiny models do without a compiler."""
    words = vbisect("doctor", "--device", "cpu", **bare).stdout
    assert "limited  libnuma: not there\n" in words
    assert "limited  compiler: not there; the tiny models need none\n" in words
    assert "ok       wheels: 0 of " in words
    there = vbisect("doctor", "--device", "cpu", CXX="/nowhere/c++").stdout
    assert re.search(r"^ok       wheels: (\d+) of \1 releases can run", there, re.MULTILINE)


def test_a_doctor_says_what_runs_in_the_whole_range(
    vbisect: Vbisect, gpu_host: Callable[..., dict[str, str]]
) -> None:
    """With the driver branches of the images, and the variant that runs instead."""
    host = gpu_host("565.57.01", 12070)
    words = vbisect("doctor", "--device", "cuda", **host).stdout
    assert "ok       GPU: 8 × NVIDIA H20, 81920 MiB, 565.57.01\n" in words
    assert "ok       images: 0.7.3 has CUDA 12.1 and" in words
    assert re.search(
        r"^ok       images: 0\.11\.1 to 0\.19\.1 \(\d+ releases\) have CUDA 12\.9 and take older "
        r"drivers of branches 535, 550, 560, 565, 570; driver 565\.57\.01 runs them$",
        words,
        re.MULTILINE,
    )
    assert "limited  images: 0.20.0 to 0.33.0 (19 releases) have CUDA 13.0" in words
    assert "Their cu129 variant runs here" in words
    assert "limited  wheels: 0.20.0 to 0.33.0 (19 releases): driver too old" in words
    assert "ok       wheels: 32 of 51 releases can run from wheels" in words


def test_a_doctor_finds_no_gpu(vbisect: Vbisect) -> None:
    """Which is a finding beside others, not a refusal to look."""
    done = vbisect("doctor", "--device", "cuda")
    assert done.returncode == 4
    assert "missing  GPU: the NVIDIA driver is not installed" in done.stdout
    assert "ok       package index" in done.stdout
    cpu = vbisect("doctor", "--device", "cpu").stdout
    assert all(f" {part}: " in cpu for part in ("compiler", "Python headers", "libnuma"))
