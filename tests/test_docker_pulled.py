"""What a run asks of a registry: each image once, and little that it does not need."""

from __future__ import annotations

import json
from collections import Counter

import httpx
import pytest

from docker_fixtures import skipping
from driving import CPU, Done, OnEngine, Vbisect, events
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.images import ImageFamily, image_family
from standin.proxy import RegistryProxy
from standin.registry import MANIFEST_TYPE, LocalRegistry

MIB = 1 << 20
PADDING = 2 * MIB
"""Bytes that each image has for itself."""

SMALL = MIB // 2
"""More than any other blob has."""

ENDS = ("--from", "0.7.3", "--to", "0.33.0")
QUICK = ("--n", "4", "--confidence", "0.6", "--jobs", "1")

pytestmark = pytest.mark.usefixtures("shared_base")


@pytest.fixture(scope="module")
def images(registry: LocalRegistry) -> ImageFamily:
    """All 51 releases, fixed in 0.21.0."""

    def change(version: str, behaviour: Behaviour) -> Behaviour:
        fixed = tuple(map(int, version.split(".")[:2])) >= (0, 21)
        return Behaviour() if fixed else Behaviour(fail_rate={"chat": 1.0})

    with skipping():
        base_layer()
    return image_family(registry, "test/pulled", padding_bytes=PADDING, change=change)


@pytest.fixture
def words(images: ImageFamily, there: OnEngine) -> tuple[str, ...]:
    """The arguments of a command about these images."""
    repository = f"{there.registry}/{images.repository}"
    return (*ENDS, "--runtime", "docker", "--image-repo", repository, *QUICK)


def right(done: Done) -> list[str]:
    """The versions that a run with the right answer booted."""
    assert done.returncode == 0, done.stderr
    assert done.json["answer"]["first_after"] == "0.21.0"
    return [e["version"] for e in events(done.run_dir) if e["event"] == "build_ready"]


def layer_of(images: ImageFamily, version: str) -> str:
    """The address of the layer that is a release's own."""
    digest = images.digests[f"v{version}"]
    address = f"http://{images.registry.host}/v2/{images.repository}/manifests/{digest}"
    answer = httpx.get(address, headers={"accept": MANIFEST_TYPE}, trust_env=False)
    return f"/blobs/{answer.json()['layers'][-1]['digest']}"


@pytest.mark.parametrize("each", [None, 4.0 * MIB], ids=["at once", "4 MiB/s a connection"])
def test_little_comes_in_vain_and_each_manifest_once(
    docked: Vbisect,
    words: tuple[str, ...],
    images: ImageFamily,
    proxy: RegistryProxy,
    each: float | None,
) -> None:
    """However quick pulls are; and ``plan`` has said as much."""
    planned = docked("plan", *CPU, *words, "--json", "--results", docked.results)
    assert planned.returncode == 0, planned.stderr
    proxy.exchanges.clear()
    proxy.rate_each = each
    tested = set(right(docked.run(*words)))

    blobs = [e for e in proxy.seen(kind="blob", method="GET") if e.size > SMALL]
    of_use = sum(e.sent for v in tested for e in proxy.seen(layer_of(images, v)))
    came = sum(e.sent for e in blobs)
    assert of_use >= len(tested) * PADDING
    assert came - of_use <= of_use / 2 + PADDING, "which an engine may take of what is given up"
    plan = json.loads(planned.stdout)
    assert came <= plan["download_worst"]

    asked = Counter(e.path for e in proxy.seen(kind="manifest", method="GET"))
    pulled = {e.path for e in blobs}
    assert set(asked.values()) == {1}
    assert all("sha256:" in path for path in asked), "by digest"
    assert len(asked) <= len(pulled) + 2, "those given up before a byte of them came"


def test_what_the_registry_still_allows_is_told(
    docked: Vbisect, words: tuple[str, ...], images: ImageFamily, proxy: RegistryProxy
) -> None:
    """As Docker Hub tells it with each answer; any other registry tells nothing."""

    def tell(left: int) -> None:
        headers = {
            "docker-content-digest": images.digests["v0.33.0"],
            "ratelimit-limit": "100;w=21600",
            "ratelimit-remaining": f"{left};w=21600",
        }
        proxy.fail(r"/manifests/v0\.33\.0$", 200, headers=headers)

    repository = words[words.index("--image-repo") + 1]
    doctor = ("doctor", *CPU, "--image-repo", repository)
    assert "allowance" not in docked(*doctor).stdout
    tell(76)
    assert f"allowance: 76 of 100 pulls in 6 h left at {proxy.host}\n" in docked(*doctor).stdout
    tell(3)
    said = docked(*doctor).stdout
    assert f"limited  allowance: 3 of 100 pulls in 6 h left at {proxy.host}\n" in said
    assert f"`docker login {proxy.host}` raises the limit" in said

    few = ("plan", *CPU, *words, "--from", "0.32.0", "--results", docked.results)
    assert "allowance" not in docked(*few).stdout
    tell(76)
    said = docked(*few).stdout
    assert (
        f"allowance:  76 of 100 pulls in 6 h left at {proxy.host}; the run takes 3 at most" in said
    )
