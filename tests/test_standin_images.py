"""The stand-in images do what they say, and so do the engines that run them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from docker_fixtures import NIGHTLY, opened
from standin.behaviour import Behaviour
from standin.containers import Runner, running
from standin.engine import Engine, GivenEngine
from standin.images import (
    CPU_REPOSITORY,
    MODULE,
    REVISION,
    SERVE,
    ImageFamily,
    image_family,
    revision_of,
)
from standin.proxy import RegistryProxy
from standin.registry import LocalRegistry


@pytest.fixture(autouse=True)
def no_more_images(engine: Engine | GivenEngine) -> Iterator[None]:
    """What a test pulled goes again: others count what is on the engine that they share."""
    with contextlib.closing(engine.client()) as client:
        before = {image["Id"] for image in client.api.images()}
        yield
        for image in client.api.images():
            if isinstance(engine, Engine) and image["Id"] not in before:
                client.images.remove(image["Id"], force=True)


@pytest.fixture
def run(engine: Engine | GivenEngine) -> Iterator[Runner]:
    """A runner on the engine that the tests share."""
    with running(engine) as runner:
        yield runner


def test_every_tag_pulls(
    images: ImageFamily, engine: Engine | GivenEngine, proxy: RegistryProxy
) -> None:
    assert len(images.digests) == 51 + 1 + 2  # releases, latest, nightly twice
    assert images.registry.tags(images.repository) == set(images.digests)
    with contextlib.closing(engine.client()) as client:
        for tag, digest in images.digests.items():
            image = client.images.pull(images.reference(tag, proxy.host))
            assert image.attrs["RepoDigests"] == [f"{proxy.host}/{images.repository}@{digest}"]
            config = image.attrs["Config"]
            module = tag in ("v0.7.3", "v0.11.0") or tag.startswith(("v0.8", "v0.9", "v0.10"))
            assert config["Entrypoint"] == (MODULE if module else SERVE)
    assert {e.status for e in proxy.exchanges} == {200}
    # One layer for each image and the image's own description, and the base layer once: or not at
    # all, where an image of another test is still there.
    fetched = [exchange.path for exchange in proxy.seen(kind="blob")]
    assert len(set(fetched)) == len(fetched)
    assert len(fetched) - 2 * len(set(images.digests.values())) in (0, 1)


@pytest.mark.parametrize("tag", ["v0.7.3", "v0.11.0", "v0.11.1", "v0.28.0", "nightly"])
def test_an_image_serves_its_release(tag: str, images: ImageFamily, run: Runner) -> None:
    server = run(images.reference(tag), "--max-model-len", "512").ready()
    version = f"0.33.1.dev12+g{NIGHTLY[:9]}" if tag == "nightly" else tag.removeprefix("v")
    assert server.get("/version").json() == {"version": version}
    assert server.indices("chat", 8) == list(range(8))
    assert server.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert f"vLLM API server version {version}" in server.log
    labels = run.client.images.get(images.reference(tag)).labels
    revisions = {"nightly": NIGHTLY, "v0.28.0": revision_of("0.28.0")}
    assert labels == ({REVISION: revisions[tag]} if tag in revisions else {})
    # PID 1 gets no default action for signals: it has to end by itself.
    server.container.stop(timeout=8)
    assert server.state()["ExitCode"] == 0


def test_images_and_wheels_share_one_truth(images: ImageFamily, run: Runner) -> None:
    old, fixed = run(images.reference("v0.27.1")), run(images.reference("v0.29.0"))
    closed = run(images.reference("v0.33.0"))
    assert len(old.ready().indices("generate")) == 1
    assert fixed.ready().indices("generate") == [0, 1, 2, 3]
    assert closed.ready().ask("generate").status_code == 403
    rejected = run(images.reference("v0.29.0"), "--enable-scale-out")
    assert rejected.container.wait()["StatusCode"] == 2
    assert "unrecognized arguments: --enable-scale-out" in rejected.log


def test_a_family_can_be_odd(registry: LocalRegistry, run: Runner) -> None:
    family = image_family(
        registry,
        cpu=True,
        versions=("0.30.0", "0.31.0", "0.33.0"),
        overrides={"0.31.0": {"reported_version": "0.30.0"}},
        untestable=("0.33.0",),
    )
    assert family.repository == CPU_REPOSITORY
    assert registry.tags(CPU_REPOSITORY) == {"v0.30.0", "v0.31.0", "v0.33.0", "latest"}
    right, wrong = run(family.reference("v0.30.0")), run(family.reference("v0.31.0"))
    assert right.ready().get("/version").json() == {"version": "0.30.0+cpu"}
    assert wrong.ready().get("/version").json() == {"version": "0.30.0"}
    ended = run(family.reference("v0.33.0"))
    assert ended.container.wait()["StatusCode"] == 1
    assert "Engine core initialization failed" in ended.log
    first = family.push_nightly("a" * 40)
    second = family.push_nightly("b" * 40)
    assert first != second == family.digests["nightly"]
    assert family.digests[f"nightly-{'a' * 40}"] == first
    registry.delete(CPU_REPOSITORY, first)
    assert f"nightly-{'a' * 40}" not in registry.tags(CPU_REPOSITORY)
    with pytest.raises(ValueError, match=r"do not exist: \['0\.1'\]"):
        image_family(registry, versions=("0.1",))


@pytest.mark.parametrize("fault", ["oom_before_ready", "oom_on_request"])
def test_the_kernel_ends_a_server_over_its_limit(
    fault: str, registry: LocalRegistry, run: Runner
) -> None:
    family = ImageFamily(registry, "test/memory")
    family.push("90.0", Behaviour(fault=fault), [fault])
    server = run(family.reference(fault), mem_limit="256m")
    if fault == "oom_on_request":
        with pytest.raises(httpx.TransportError):
            server.ready().ask()
    assert server.container.wait()["StatusCode"] == 137
    assert server.state()["OOMKilled"]


def test_a_restarted_engine_keeps_its_images(own_engine: Engine, images: ImageFamily) -> None:
    reference = images.reference("v0.33.0")
    with running(own_engine) as run:
        for end in (own_engine.kill, own_engine.stop):
            server = run(reference).ready()
            end()
            with pytest.raises(OSError, match="Connection"):
                run.client.ping()
            own_engine.start()
            assert run.client.images.get(reference).tags == [reference]
            assert server.state()["Status"] == "exited"


def traces(engine: Engine) -> list[str]:
    """What there is of an engine on this host."""
    mounts = Path("/proc/self/mountinfo").read_text()
    found = [line for line in mounts.splitlines() if f"{engine.directory}/" in line]
    found += [
        str(p) for p in (engine.directory, Path("/sys/class/net") / engine.bridge) if p.exists()
    ]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if str(engine.directory) in line or f"-namespace {engine.bridge} " in line:
                found.append(line)
    return found


def test_engines_stand_side_by_side_and_leave_no_trace(images: ImageFamily) -> None:
    def serve(version: str) -> tuple[Engine, str, list[str]]:
        with opened(Engine()) as engine, running(engine) as run:
            server = run(images.reference(f"v{version}")).ready()
            barrier.wait(60)  # all of them serve at this moment
            answer = server.get("/version").json()["version"]
            barrier.wait(60)
            if version == "0.30.0":
                engine.kill()  # its containers go on running
            return engine, answer, traces(engine)

    versions = ["0.28.0", "0.29.0", "0.30.0"]
    barrier = threading.Barrier(len(versions))
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(serve, versions))
    assert [answer for _, answer, _ in ended] == versions
    assert len({engine.directory for engine, _, _ in ended}) == len(versions)
    assert all(found for _, _, found in ended)
    assert [trace for engine, _, _ in ended for trace in traces(engine)] == []
