"""A registry that is busy, broken or gone costs time, a release, or the run; never the truth."""

from __future__ import annotations

import json
import os
import re
import time
from base64 import b64encode
from functools import partial
from pathlib import Path

import httpx
import pytest

from docker_fixtures import skipping
from driving import Done, OnEngine, Vbisect, counts
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.images import ImageFamily
from standin.proxy import RegistryProxy
from standin.registry import MANIFEST_TYPE, LocalRegistry
from standin.running import wait

BAD, GOOD = Behaviour(fail_rate={"chat": 1.0}), Behaviour()
# In the order in which they are tested: fixed in 0.32.0.
RELEASES = {"0.30.0": BAD, "0.33.0": GOOD, "0.31.0": BAD, "0.32.0": GOOD}
RUN = ("--from", "0.30.0", "--to", "0.33.0", "--n", "4", "--confidence", "0.6")
FOR_EVER = 10**6
MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("shared_base")


@pytest.fixture(scope="module")
def images(registry: LocalRegistry) -> ImageFamily:
    """The releases."""
    family = ImageFamily(registry, "test/faulty")
    with skipping():
        base_layer()
    for version, behaviour in RELEASES.items():
        # no image of another test has the same layers
        family.push(version, behaviour, padding_bytes=6 * MIB if version == "0.33.0" else MIB)
    return family


@pytest.fixture
def words(images: ImageFamily, there: OnEngine) -> tuple[str, ...]:
    """The arguments of a run over the releases, through the proxy."""
    repository = f"{there.registry}/{images.repository}"
    return (*RUN, "--runtime", "docker", "--image-repo", repository)


@pytest.fixture(scope="module")
def layers(images: ImageFamily) -> dict[str, str]:
    """What is asked for to get the layer that is a release's own, as a regular expression."""
    found = {}
    for tag, digest in images.digests.items():
        address = f"http://{images.registry.host}/v2/{images.repository}/manifests/{digest}"
        answer = httpx.get(address, headers={"accept": MANIFEST_TYPE}, trust_env=False)
        found[tag.removeprefix("v")] = f"/blobs/{answer.json()['layers'][-1]['digest']}"
    return found


def tag(version: str) -> str:
    """What is asked for to learn what a tag points at, as a regular expression."""
    return rf"/manifests/v{re.escape(version)}$"


def right(done: Done) -> None:
    """The answer of a run that nothing disturbed."""
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("0.31.0", "0.32.0")
    assert answer["exact"]
    assert {v: t["outcome"] for v, t in done.trials.items()} == {
        version: "fail" if behaviour is BAD else "pass" for version, behaviour in RELEASES.items()
    }


def stopped(done: Done, *said: str) -> None:
    """It stopped because of the registry, said so, and can go on."""
    assert done.returncode == 4, done.stderr
    assert done.json["status"] == "failed"
    for text in said:
        assert text in done.json["message"]


def test_what_passes_changes_nothing(
    docked: Vbisect, words: tuple[str, ...], proxy: RegistryProxy, layers: dict[str, str]
) -> None:
    proxy.fail(tag("0.30.0"), 503, times=2)
    proxy.fail(tag("0.33.0"), 429, headers={"Retry-After": "3"})
    proxy.truncate(layers["0.31.0"], after=1000)
    proxy.fail(layers["0.32.0"], 429, times=2)  # the engine asks twice before it gives up
    proxy.corrupt(layers["0.32.0"], at=1000)
    done = docked.run(*words)
    right(done)
    busy, asked = proxy.seen(tag("0.33.0"))[:2]
    assert asked.began - busy.began >= 3
    assert f"{proxy.host}: answers 429 Too Many Requests; asking again in 3 s" in done.stderr
    assert f"{proxy.host}: answers 503 Service Unavailable; asking again in " in done.stderr
    assert [e.status for e in proxy.seen(tag("0.30.0"))][:3] == [503, 503, 200]
    assert len(proxy.seen(layers["0.31.0"])) == 2
    assert [e.status for e in proxy.seen(layers["0.32.0"])] == [429, 429, 200, 200]
    assert "v0.32.0: toomanyrequests: injected fault; trying again" in done.stderr
    assert re.search("v0.32.0: .*verification failed.*; trying again", done.stderr)


def test_a_registry_that_stays_down_stops_the_run_until_it_is_back(
    docked: Vbisect, words: tuple[str, ...], proxy: RegistryProxy, there: OnEngine
) -> None:
    proxy.fail(tag("0.31.0"), 503, times=FOR_EVER)
    done = docked.run(*words)
    stopped(done, proxy.host, "503")
    assert {v: t["outcome"] for v, t in done.trials.items()} == {"0.30.0": "fail", "0.33.0": "pass"}
    assert there.containers() == []
    proxy.heal()
    resumed = docked.resume(done.run_dir)
    right(resumed)
    assert resumed.run_dir == done.run_dir
    assert counts(done.run_dir, "build_ready") == dict.fromkeys(RELEASES, 1)
    assert {v: t for v, t in resumed.trials.items() if v in done.trials} == done.trials


def test_an_image_that_never_comes_whole_is_a_skip(
    docked: Vbisect,
    words: tuple[str, ...],
    proxy: RegistryProxy,
    layers: dict[str, str],
    there: OnEngine,
) -> None:
    proxy.corrupt(layers["0.32.0"], at=2000, times=FOR_EVER)
    done = docked.run(*words)
    assert done.returncode == 3, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("0.31.0", "0.33.0")
    assert (answer["suspects"], answer["exact"]) == (["0.32.0", "0.33.0"], False)
    skipped = done.trials["0.32.0"]
    assert (skipped["outcome"], skipped["reason"]) == ("skip", "image not pullable")
    assert re.match("3 times: .*verification failed", skipped["detail"])
    assert len(there.digests()) == 3


def test_a_pull_that_stops_half_way_is_begun_again(
    docked: Vbisect, words: tuple[str, ...], proxy: RegistryProxy, layers: dict[str, str]
) -> None:
    proxy.rate_each = 2.0 * MIB
    started = docked.start(*words, "--pull-timeout", "2")
    assert wait(lambda: any(e.sent for e in proxy.seen(layers["0.33.0"])), 60)
    proxy.rate_each = MIB / 64  # the engine tells of each hundredth, that is every 4 s
    [stopped] = proxy.seen(layers["0.33.0"])
    assert wait(lambda: stopped.ended, 30)
    proxy.rate_each = None
    done = started.end()
    right(done)
    assert stopped.closed_early
    assert "v0.33.0: nothing came for 2 s; trying again" in done.stderr
    assert len(proxy.seen(layers["0.33.0"])) == 2


def test_a_pull_that_begins_late_is_waited_for(
    docked: Vbisect, words: tuple[str, ...], proxy: RegistryProxy, layers: dict[str, str]
) -> None:
    """The engine does not let go of a request that has no answer: trying again is no help."""
    release = proxy.hang(layers["0.33.0"])
    started = docked.start(*words, "--pull-timeout", "3")
    assert wait(lambda: proxy.seen(layers["0.33.0"]), 60)
    time.sleep(4)
    release()
    done = started.end()
    right(done)
    assert "v0.33.0: nothing came for 3 s; trying again" in done.stderr


@pytest.mark.parametrize("phase", ["layer", "manifest"])
def test_a_pull_that_always_hangs_stops_the_run(
    phase: str,
    docked: Vbisect,
    words: tuple[str, ...],
    proxy: RegistryProxy,
    layers: dict[str, str],
) -> None:
    if phase == "layer":
        proxy.hang(layers["0.30.0"], times=FOR_EVER)
    else:
        # only the engine begins with a ping; by then vbisect knows the manifest
        proxy.hang("^/v2/$", times=FOR_EVER)
    done = docked.run(*words, "--pull-timeout", "2")
    stopped(done, "v0.30.0", "for 2 s, 3 times", "resume")
    assert done.seconds < 200
    proxy.heal()
    right(docked.resume(done.run_dir))


@pytest.mark.parametrize("named", ["--image-repo", "--image"])
def test_a_repository_that_is_not_there_is_a_wrong_option(
    named: str, docked: Vbisect, words: tuple[str, ...], proxy: RegistryProxy
) -> None:
    """It is said once, before a run begins."""
    repository = f"{proxy.host}/no/such"
    wrong = (*words[:-1], repository)
    if named == "--image":
        wrong = (*words, "--image", f"0.31.0={repository}:patched")
    for command in (docked.run, partial(docked, "plan")):
        done = command(*wrong)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.count(f"{proxy.host} has no repository no/such") == 1
    assert not list(docked.results.iterdir())
    told = docked("doctor", "--device", "cpu", "--image-repo", repository).stdout
    assert f"limited  registry: it answers, and has no repository {repository}" in told


def test_an_image_built_before_is_none_of_the_repository_that_was_named(
    docked: Vbisect, words: tuple[str, ...], proxy: RegistryProxy, there: OnEngine
) -> None:
    labels = ("vbisect.built=1", "vbisect.version=0.31.0", "vbisect.device=cpu")
    built = "vbisect/vllm-openai-cpu:v0.31.0-test"
    there.client.api.import_image_from_data(
        base_layer().data, *built.split(":"), changes=[f"LABEL {label}" for label in labels]
    )
    proxy.fail(tag("0.31.0"), 404, times=FOR_EVER)
    try:
        planned = json.loads(docked("plan", *words, "--device", "cpu", "--json").stdout)
        done = docked.run(*words, "--device", "cpu")
    finally:
        there.client.images.remove(built)
    assert planned["missing"] == ["0.31.0"]
    skipped = done.trials["0.31.0"]
    assert (skipped["reason"], skipped["build"]) == ("not published", None)
    assert done.json["answer"]["suspects"] == ["0.31.0", "0.32.0"]


def test_a_repository_that_went_away_ends_the_run_and_skips_nothing(
    docked: Vbisect, words: tuple[str, ...], proxy: RegistryProxy
) -> None:
    proxy.fail("/tags/list", 503)  # whether it is there cannot be told when the run begins
    proxy.fail(f"{tag('0.31.0')}|/tags/list", 404, times=FOR_EVER)
    done = docked.run(*words)
    stopped(done, "is not there any more")
    assert {v: t["outcome"] for v, t in done.trials.items()} == {"0.30.0": "fail", "0.33.0": "pass"}
    proxy.heal()
    right(docked.resume(done.run_dir))


@pytest.mark.parametrize("asked_by", ["vbisect", "the engine"])
def test_a_registry_that_wants_a_login_says_how(
    asked_by: str,
    docked: Vbisect,
    words: tuple[str, ...],
    proxy: RegistryProxy,
    layers: dict[str, str],
    there: OnEngine,
) -> None:
    pattern = tag("0.33.0") if asked_by == "vbisect" else layers["0.33.0"]
    proxy.fail(pattern, 401, times=FOR_EVER)
    done = docked.run(*words)
    stopped(done, "docker login", proxy.host)
    assert done.trials["0.30.0"]["outcome"] == "fail"
    assert there.containers() == []


HELPER = """#!/bin/sh
read host
[ "$host" = "{host}" ] || {{ echo "credentials not found in native keychain"; exit 1; }}
echo '{{"ServerURL": "{host}", "Username": "ada", "Secret": "correct-horse"}}'
"""
LOCKED = "#!/bin/sh\necho 'the vault is locked'; exit 1\n"
LOGIN = "Basic " + b64encode(b"ada:correct-horse").decode()


@pytest.mark.parametrize(("script", "login"), [(HELPER, LOGIN), (LOCKED, None), (LOCKED, LOGIN)])
def test_the_login_that_a_helper_keeps_counts_for_vbisect_and_for_the_engine(
    script: str,
    login: str | None,
    docked: Vbisect,
    words: tuple[str, ...],
    proxy: RegistryProxy,
    tmp_path: Path,
) -> None:
    """One that fails is told where it was needed, and keeps nobody from what needs none."""
    program = tmp_path / "docker-credential-standin"
    program.write_text(script.format(host=proxy.host))
    program.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "standin"}')
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    proxy.login = login
    done = docked.run(*words, DOCKER_CONFIG=str(tmp_path), PATH=path)
    if script == LOCKED and login is not None:
        assert done.returncode == 4
        assert "(docker-credential-standin failed: the vault is locked)" in done.json["message"]
        assert done.trials == {}
    else:
        right(done)
