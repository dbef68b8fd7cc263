"""What a run in containers is told: sizes, GPUs, images, and the words that repeat it."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest

from made import settings
from vbisect.errors import UsageError
from vbisect.launch import Limited
from vbisect.launch.container_settings import command_line
from vbisect.releases import Device, Release
from vbisect.releases.cuda import DriverFit, driver_fit, driver_needed, driver_of
from vbisect.run.docker_settings import (
    DockerSettings,
    parse_gpus,
    parse_image,
    parse_memory,
    parse_size,
)
from vbisect.run.options import DockerOptions
from vbisect.run.prepare import choose_runtime, docker_settings


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("200GB", 200 * 10**9),
        ("200 gb", 200 * 10**9),
        ("1.5TiB", 3 * 2**39),
        ("64m", 64 * 10**6),
        ("512MiB", 512 * 2**20),
        ("1048576", 2**20),
        ("10B", 10),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size("--disk-budget", text) == size


@pytest.mark.parametrize("text", ["", "GB", "ten", "10XB", "-5GB", "1e9", "10%"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--disk-budget"):
        parse_size("--disk-budget", text)


@pytest.mark.parametrize("device", list(Device))
def test_what_vbisect_built_is_no_image_of_a_repository_that_was_named(device: Device) -> None:
    """It may stand in for an official one, and where building was asked for."""
    named = {"image_repo": "team/vllm"}, {"image": ("0.8.5=team/vllm:patched",)}
    official = docker_settings(DockerOptions(), device)
    assert official.takes_built("0.8.5", device)
    for options in named:
        assert not docker_settings(DockerOptions(**options), device).takes_built("0.8.5", device)
        built = docker_settings(DockerOptions(build="auto", **options), device)
        assert built.takes_built("0.8.5", device)
    assert docker_settings(DockerOptions(**named[1]), device).takes_built("0.8.4", device)


def test_a_container_needs_some_memory() -> None:
    assert parse_memory("64GB") == 64 * 10**9
    with pytest.raises(UsageError, match="at least 6 MB"):
        parse_memory("1MB")


@pytest.mark.parametrize(
    "text",
    [
        *("all", "none", "0", "0,1", "0, 1", "GPU-8f2a-11"),
        *("nvidia.com/gpu=all", "nvidia.com/gpu=0:1, nvidia.com/gpu=GPU-8f2a", "x.org/h20=a.b"),
    ],
)
def test_gpus_are_all_none_or_ids(text: str) -> None:
    assert parse_gpus(text) == text.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "0,,1", "a b,", "--privileged=x", "gpu=0", "nvidia.com/gpu", "nvidia.com/gpu="),
        *("0,nvidia.com/gpu=1", "nvidia.com/gpu=0,", "nvidia.com/gpu=0=1", "/dev/dri=x"),
    ],
)
def test_other_gpus_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--gpus"):
        parse_gpus(text)


def test_an_image_of_one_version() -> None:
    assert parse_image("v0.8.5=my/vllm:patched") == ("0.8.5", "my/vllm:patched")
    for wrong in ("0.8.5", "=my/vllm", "zero=my/vllm", "0.8.5=My Image"):
        with pytest.raises(UsageError):
            parse_image(wrong)


def test_image_names() -> None:
    made = docker_settings(
        DockerOptions(image_variant=("cu129",), image=("0.9.0=my/vllm:x",)), Device.CUDA
    )
    assert made.image_of(Release(version="0.8.5", wheels={})) == "vllm/vllm-openai:v0.8.5-cu129"
    assert made.image_of(Release(version="0.9.0", wheels={})) == "my/vllm:x"
    assert made.gpus == "all"
    cpu = docker_settings(DockerOptions(), Device.CPU)
    assert (cpu.image_of(Release(version="0.30.0", wheels={})), cpu.gpus) == (
        "vllm/vllm-openai-cpu:v0.30.0",
        "none",
    )


def test_a_variant_can_be_for_some_versions_only() -> None:
    """The driver runs CUDA 12.8 of older images, and of newer ones only the variant."""
    words = ("cu129; >=0.20", "x86_64; >=0.9,<0.11")
    made = docker_settings(DockerOptions(image_variant=words), Device.CUDA)
    tags = [made.image_of(Release(version=v, wheels={})) for v in ("0.8.5", "0.10.0", "0.20.0")]
    assert [tag.partition(":")[2] for tag in tags] == ["v0.8.5", "v0.10.0-x86_64", "v0.20.0-cu129"]
    recorded = made.model_dump(mode="json")
    assert DockerSettings.model_validate(recorded) == made
    # as runs were recorded when there was one variant for all
    older = DockerSettings.model_validate({**recorded, "image_variant": "cu129"})
    assert older.variant_of("0.8.5") == "cu129"


@pytest.mark.parametrize(
    "options",
    [
        DockerOptions(image_repo="vllm/vllm-openai:v0.8.5"),
        DockerOptions(image_variant=("cu 129",)),
        DockerOptions(image_variant=("cu129; newer",)),
        DockerOptions(pull_timeout=0),
        DockerOptions(pull_timeout=float("nan")),
        DockerOptions(build="sometimes"),
        DockerOptions(memory="a lot"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: DockerOptions) -> None:
    with pytest.raises(UsageError):
        docker_settings(options, Device.CPU)


def test_options_for_containers_need_containers() -> None:
    assert choose_runtime("docker", DockerOptions(gpus="all")) == "docker"
    with pytest.raises(UsageError, match="--gpus is for --runtime docker"):
        choose_runtime("venv", DockerOptions(gpus="all"))


def test_the_line_that_repeats_a_run_names_what_is_not_the_default() -> None:
    docker = DockerSettings(
        host="ssh://gpu01",
        image_repo="vllm/vllm-openai-cpu",
        image_variant=(Limited(text="cu129", specifier=">=0.20"), Limited(text="x86_64")),
        images={"0.28.0": "my/vllm:x"},
        gpus="none",
        memory=64 * 10**9,
        build="auto",
        base_image="debian:12",
        disk_budget=10**11,
        pull_timeout=60,
    )
    words = shlex.split(settings(runtime="docker", docker=docker).replay_command())
    said = dict(pairwise(words))
    assert said["--docker-host"] == "ssh://gpu01"
    assert [b for a, b in pairwise(words) if a == "--image-variant"] == ["cu129; >=0.20", "x86_64"]
    assert said["--image"] == "0.28.0=my/vllm:x"
    assert said["--memory"] == "64000000000"
    assert (said["--build"], said["--base-image"]) == ("auto", "debian:12")
    assert (said["--disk-budget"], said["--pull-timeout"]) == ("100000000000", "60")
    assert "--image-repo" not in words, "it is the default of this device"


MODULE = ("python3", "-m", "vllm.entrypoints.openai.api_server")


@pytest.mark.parametrize(
    ("entrypoint", "version", "expected"),
    [
        (MODULE, "0.7.3", (None, ["--model", "m", "--port", "1"])),
        (("vllm", "serve"), "0.11.1", (None, ["m", "--port", "1"])),
        ((), "0.11.0", (list(MODULE), ["--model", "m", "--port", "1"])),
        ((), "0.11.1", (["vllm", "serve"], ["m", "--port", "1"])),
        (("/bin/bash",), "0.30.0", (["vllm", "serve"], ["m", "--port", "1"])),
        (("/nv/entrypoint.sh",), "0.8.5", (list(MODULE), ["--model", "m", "--port", "1"])),
    ],
)
def test_an_image_is_started_as_its_version_wants_it(
    entrypoint: tuple[str, ...], version: str, expected: tuple[list[str] | None, list[str]]
) -> None:
    assert command_line(entrypoint, version, "m", ["--port", "1"]) == expected


@pytest.mark.parametrize(
    ("driver", "cuda", "fit"),
    [
        ("570.86.15", "12.8", DriverFit.FITS),
        ("570.86.15", "12.9", DriverFit.MINOR),
        ("535.183.01", "12.1", DriverFit.FITS),
        ("535.183.01", "12.8", DriverFit.MINOR),
        ("535.183.01", "13.0", DriverFit.TOO_OLD),
        ("580.65.06", "13.0", DriverFit.FITS),
        ("470.82.01", "12.4", DriverFit.TOO_OLD),
        ("[N/A]", "12.4", DriverFit.UNKNOWN),
        ("580.65.06", "14.0", DriverFit.UNKNOWN),
    ],
)
def test_what_a_driver_can_run(driver: str, cuda: str, fit: DriverFit) -> None:
    assert driver_fit(driver, cuda) is fit


def test_a_driver_is_named_as_nvidia_names_it() -> None:
    cudas = ("12.1", "12.9", "13.0", "14.0")
    came_with = ["530.30.02", "575.51.03", "580.65.06", "unknown"]
    assert [driver_of(cuda) for cuda in cudas] == came_with
    assert [driver_needed(cuda) for cuda in cudas] == ["525.60.13", "525.60.13", "580", "unknown"]
