"""The proxy before the registry does what it says, and a real engine reacts as noted here."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import httpx
import pytest

from standin.engine import Engine
from standin.images import ImageFamily, image_family
from standin.proxy import RegistryProxy
from standin.registry import LocalRegistry
from standin.running import wait

MIB = 1 << 20
BIG = 4 * MIB
"""Bytes that set the images of family `big` apart."""


@pytest.fixture(scope="module")
def big(registry: LocalRegistry) -> ImageFamily:
    """Images whose download takes time, under a limit."""
    versions = ("0.28.0", "0.29.0", "0.30.0", "0.31.0", "0.32.0", "0.33.0")
    return image_family(registry, "test/big", versions=versions, padding_bytes=BIG)


@pytest.fixture
def pull(
    own_engine: Engine, big: ImageFamily, proxy: RegistryProxy
) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Pulls a version of `big` through the proxy; what the engine tells, line by line.

    The base layer is there already, so that each image is one layer and its description.
    """
    with contextlib.closing(own_engine.client()) as client:

        def pull(version: str) -> list[dict[str, Any]]:
            repository = f"{proxy.host}/{big.repository}"
            return list(client.api.pull(repository, f"v{version}", stream=True, decode=True))

        pull("0.28.0")
        proxy.exchanges.clear()
        yield pull


def ends_well(lines: list[dict[str, Any]]) -> bool:
    """Whether a pull got its image."""
    return "Downloaded newer image" in lines[-1].get("status", "")


def test_what_passes_the_proxy_is_unchanged(big: ImageFamily, proxy: RegistryProxy) -> None:
    accept = {"accept": "application/vnd.docker.distribution.manifest.v2+json"}
    address = f"http://{proxy.host}/v2/{big.repository}"
    with httpx.Client(headers=accept, trust_env=False) as client:
        answer = client.get(f"{address}/manifests/v0.33.0")
        assert answer.headers["docker-content-digest"] == big.digests["v0.33.0"]
        head = client.head(f"{address}/manifests/v0.33.0")
        assert head.headers["docker-content-digest"] == big.digests["v0.33.0"]
        digest = answer.json()["layers"][-1]["digest"]
        data = client.get(f"{address}/blobs/{digest}").content
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
        assert set(client.get(f"{address}/tags/list").json()["tags"]) == set(big.digests)
        proxy.corrupt("/blobs/", at=5)
        changed = client.get(f"{address}/blobs/{digest}").content
        assert [i for i in range(len(data)) if data[i] != changed[i]] == [5]
        proxy.fail("/manifests/", 429, headers={"X-Retry-After": "1790000000"})
        refused = client.get(f"{address}/manifests/latest")
        assert (refused.status_code, refused.headers["x-retry-after"]) == (429, "1790000000")
        assert refused.json()["errors"][0]["code"] == "TOOMANYREQUESTS"
    kinds = [(e.method, e.kind) for e in proxy.exchanges]
    manifest, blob = ("GET", "manifest"), ("GET", "blob")
    assert kinds == [manifest, ("HEAD", "manifest"), blob, ("GET", "tags"), blob, manifest]


def test_a_limit_holds_for_each_download_or_for_all(
    pull: Callable[[str], list[dict[str, Any]]], proxy: RegistryProxy
) -> None:
    def pull_both(*versions: str) -> list[float]:
        """Seconds that each download took; they went on side by side."""
        proxy.exchanges.clear()
        with ThreadPoolExecutor() as pool:
            assert all(map(ends_well, pool.map(pull, versions)))
        both = [e for e in proxy.seen(kind="blob") if e.size > BIG]
        assert len(both) == 2
        assert max(e.began for e in both) < min(e.ended or 0 for e in both)
        return [(e.ended or 0) - e.began for e in both]

    proxy.rate_each = 4.0 * MIB
    each = pull_both("0.29.0", "0.30.0")
    assert min(each) > 0.9
    proxy.rate_each, proxy.rate_total = None, 4.0 * MIB
    assert max(pull_both("0.31.0", "0.32.0")) > 1.7


def test_an_engine_downloads_three_layers_at_once(
    pull: Callable[[str], list[dict[str, Any]]], proxy: RegistryProxy
) -> None:
    """However many pulls there are: `max-concurrent-downloads` is for the whole engine."""
    proxy.rate_each = 4.0 * MIB
    with ThreadPoolExecutor() as pool:
        assert all(map(ends_well, pool.map(pull, ["0.29.0", "0.30.0", "0.31.0", "0.32.0"])))
    layers = [e for e in proxy.seen(kind="blob") if e.size > BIG]
    # the engine has a layer before the proxy knows it, and begins with the next at once
    spans = [(e.began, (e.ended or 0.0) - 0.3) for e in layers]
    assert len(spans) == 4
    assert max(sum(s <= at < e for s, e in spans) for at, _ in spans) == 3


def test_an_engine_meets_the_faults_of_a_registry(
    pull: Callable[[str], list[dict[str, Any]]], proxy: RegistryProxy, big: ImageFamily
) -> None:
    pause = {"Retry-After": "1"}
    # A refused HEAD is asked again as GET; a refused GET ends the pull, before its stream begins.
    proxy.fail("/manifests/", 429, headers=pause)
    assert ends_well(pull("0.29.0"))
    for status, words in (
        (429, "toomanyrequests: injected fault"),
        (503, "503 Service Unavailable"),
    ):
        proxy.fail("/manifests/", status, times=2, headers=pause)
        with pytest.raises(docker.errors.APIError, match=words):
            pull("0.30.0")
    with pytest.raises(docker.errors.NotFound, match="manifest unknown"):
        pull("9.9.9")
    # Later, the error is a line of the stream. 429 is not tried again, whatever Retry-After says.
    proxy.fail("/blobs/", 429)
    assert "toomanyrequests: injected fault" in pull("0.30.0")[-1]["error"]
    proxy.corrupt("/blobs/", at=2 * MIB, times=9)
    assert "verification failed for digest" in pull("0.31.0")[-1]["error"]
    proxy.heal()
    began = time.monotonic()
    proxy.truncate("/blobs/", after=MIB, times=2)  # of the layer, and of its short description
    lines = pull("0.32.0")
    assert ends_well(lines)
    assert time.monotonic() - began > 4
    assert "Retrying in 5 seconds" in [line.get("status") for line in lines]
    cut, rest = [e for e in proxy.seen(kind="blob") if e.size > MIB][-2:]
    assert (cut.sent, rest.headers["range"]) == (MIB, f"bytes={MIB}-")


def test_a_hanging_registry_is_waited_for(
    pull: Callable[[str], list[dict[str, Any]]], proxy: RegistryProxy
) -> None:
    release = proxy.hang("/manifests/")
    began = time.monotonic()
    threading.Timer(1.5, release).start()
    assert ends_well(pull("0.29.0"))
    assert time.monotonic() - began > 1.4


def test_a_cancelled_pull_stops_at_once_and_keeps_nothing(
    own_engine: Engine, big: ImageFamily, proxy: RegistryProxy
) -> None:
    repository = f"{proxy.host}/{big.repository}"
    with contextlib.closing(own_engine.client()) as client:
        client.images.pull(repository, "v0.28.0")
        proxy.exchanges.clear()
        proxy.rate_each = 1.0 * MIB
        lines = client.api.pull(repository, "v0.33.0", stream=True, decode=True)
        assert any(line.get("status") == "Downloading" for line in lines)
        began = time.monotonic()
        lines.close()
        [download] = [e for e in proxy.seen(kind="blob") if e.size > BIG]
        assert wait(lambda: download.ended, 5)
        assert (download.ended or 0) - began < 2
        assert download.closed_early
        assert 0 < download.sent < download.size
        proxy.heal()
        client.images.pull(repository, "v0.33.0")
        again = [e for e in proxy.seen(kind="blob") if e.size > BIG][-1]
        assert (again.status, again.sent) == (200, download.size)
