"""Images are pulled before they are needed, once, and never more of them than the disk may hold."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from docker_fixtures import skipping
from driving import CPU, Done, OnEngine, Vbisect, events
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.engine import Engine, GivenEngine
from standin.images import ImageFamily
from standin.proxy import Exchange, RegistryProxy
from standin.registry import MANIFEST_TYPE, LocalRegistry
from standin.running import wait

MIB = 1 << 20
PADDING = 6 * MIB
"""Bytes that each image has for itself."""

BAD, GOOD = Behaviour(fail_rate={"chat": 1.0}), Behaviour()
VERSIONS = (
    *("0.24.0", "0.25.0", "0.25.1", "0.26.0", "0.27.0"),
    *("0.27.1", "0.28.0", "0.29.0", "0.30.0", "0.31.0"),
)
LAST_BAD = "0.27.0"
TESTED = ("0.24.0", "0.31.0", "0.27.1", "0.26.0", "0.27.0")  # in this order
FEW = ("--from", "0.26.0", "--to", "0.28.0")  # 0.26.0, 0.28.0, 0.27.1, 0.27.0
QUICK = ("--n", "4", "--confidence", "0.6")
SLOW = MIB / 16
"""Bytes per second at which an image takes minutes. An engine lets go of a download only when bytes
come: one without any goes on after its pull was given up (seen with 20.10)."""

THREE = 36 * MIB
"""Two images, and what pulling a third is reckoned to take."""

pytestmark = pytest.mark.usefixtures("shared_base")


@pytest.fixture(scope="module")
def images(registry: LocalRegistry) -> ImageFamily:
    """Ten releases, fixed in the middle."""
    family = ImageFamily(registry, "test/padded")
    with skipping():
        base_layer()
    for version in VERSIONS:
        behaviour = BAD if VERSIONS.index(version) <= VERSIONS.index(LAST_BAD) else GOOD
        family.push(version, behaviour, padding_bytes=PADDING)
    return family


@pytest.fixture
def words(images: ImageFamily, there: OnEngine) -> tuple[str, ...]:
    """The arguments of a run over these images, less the range."""
    return ("--runtime", "docker", "--image-repo", f"{there.registry}/{images.repository}")


@pytest.fixture(scope="module")
def layers(images: ImageFamily) -> dict[str, str]:
    """The address of the layer that is a release's own, by version."""
    found = {}
    for tag, digest in images.digests.items():
        address = f"http://{images.registry.host}/v2/{images.repository}/manifests/{digest}"
        answer = httpx.get(address, headers={"accept": MANIFEST_TYPE}, trust_env=False)
        found[tag.removeprefix("v")] = f"/blobs/{answer.json()['layers'][-1]['digest']}"
    return found


@pytest.fixture
def watched(engine: Engine | GivenEngine, there: OnEngine) -> Iterator[list[int]]:
    """Bytes that the images which were not there before took, looked at all the time."""
    with contextlib.closing(engine.client()) as client:
        every = OnEngine(client, "", Path("/nowhere"))
        before = set(every.layers())
        assert before
        folders = Folders(engine)
        taken, over = [0], threading.Event()

        def watch() -> None:
            while not over.wait(0.05):
                with contextlib.suppress(Exception):  # an image that goes while it is looked at
                    own = sum(n for it, n in every.layers().items() if it not in before)
                    taken.append(max(own, folders.taken()))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield taken
        finally:
            over.set()
            thread.join()


class Folders:
    """What the files of a private engine's images take, those being pulled included."""

    def __init__(self, engine: Engine | GivenEngine) -> None:
        self._data = engine.directory / "data" if isinstance(engine, Engine) else None
        self._before = set(self._layers())

    def _layers(self) -> list[Path]:
        return list(self._data.glob("overlay2/*/diff")) if self._data else []

    def taken(self) -> int:
        """Bytes by now."""
        if self._data is None:
            return 0
        places = {*self._layers(), self._data / "tmp"} - self._before
        files = (file for place in places for file in place.rglob("*"))
        return sum(f.lstat().st_size for f in files if f.is_file() and not f.is_symlink())


def right(done: Done) -> None:
    """The answer of any run over these releases."""
    assert done.returncode == 0, done.stderr
    answer = done.json["answer"]
    assert (answer["last_before"], answer["first_after"]) == ("0.27.0", "0.27.1")
    assert answer["exact"]


def removed(done: Done, images: ImageFamily) -> list[str]:
    """The versions whose images it removed for lack of room, in order."""
    versions = {digest: tag.removeprefix("v") for tag, digest in images.digests.items()}
    return [versions[digest] for digest in re.findall(r"removed \S+@(sha256:\w+) to ", done.stderr)]


def ledger(docked: Vbisect) -> set[str]:
    """The digests of the images that vbisect holds for its own."""
    [path] = (docked.cache / "images").glob("*.json")
    return {name.partition("@")[2] for name in json.loads(path.read_text())["images"]}


def whole(exchanges: list[Exchange]) -> int:
    """How many downloads got everything."""
    return sum(e.method == "GET" and 0 < e.size == e.sent for e in exchanges)


def test_the_budget_holds_and_the_least_useful_image_goes_first(
    docked: Vbisect,
    words: tuple[str, ...],
    images: ImageFamily,
    watched: list[int],
    there: OnEngine,
) -> None:
    ends = ("--from", VERSIONS[0], "--to", VERSIONS[-1], "--disk-budget", str(THREE))
    done = docked.run(*ends, *words, *QUICK)
    right(done)
    assert tuple(done.trials) == TESTED
    assert 2 * PADDING < max(watched) <= THREE
    gone = removed(done, images)
    # those that have been tested go first, and an end before all others
    assert gone[0] in ("0.24.0", "0.31.0")
    assert gone.index("0.31.0") < [*gone, "0.27.0"].index("0.27.0")
    assert images.digests["v0.27.0"] in there.digests()
    assert there.digests() == ledger(docked)
    assert there.containers() == []


def test_a_budget_too_small_says_what_would_do_and_that_does(
    docked: Vbisect,
    words: tuple[str, ...],
    images: ImageFamily,
    watched: list[int],
    there: OnEngine,
    proxy: RegistryProxy,
) -> None:
    done = docked.run(*FEW, *words, *QUICK, "--disk-budget", "1MB")
    assert done.returncode == 4
    message = done.json["message"]
    found = re.search(
        r"v0.26.0 needs (\d+)MB .* 1MB is the budget.* --disk-budget (\d+)MB", message
    )
    assert found, message
    assert 0 <= int(found[2]) - int(found[1]) <= 1
    assert there.digests() == set()

    done = docked.run(*FEW, *words, *QUICK, "--disk-budget", f"{found[2]}MB")
    right(done)
    assert PADDING < max(watched) <= int(found[2]) * 10**6
    assert removed(done, images)


def test_an_image_that_was_there_before_stays(
    docked: Vbisect,
    words: tuple[str, ...],
    images: ImageFamily,
    there: OnEngine,
    proxy: RegistryProxy,
    layers: dict[str, str],
) -> None:
    there.client.images.pull(images.reference("v0.26.0", there.registry))
    done = docked.run(*FEW, *words, *QUICK, "--disk-budget", str(THREE - PADDING))
    right(done)
    gone = removed(done, images)
    assert gone
    assert "0.26.0" not in gone  # though it was tested first, and is far from the change
    assert images.digests["v0.26.0"] in there.digests() - ledger(docked)
    assert len(proxy.seen(layers["0.26.0"])) == 1


def test_images_of_an_earlier_run_are_used_before_they_go(
    docked: Vbisect,
    words: tuple[str, ...],
    images: ImageFamily,
    watched: list[int],
    there: OnEngine,
    proxy: RegistryProxy,
    layers: dict[str, str],
) -> None:
    right(docked.run(*FEW, *words, *QUICK))
    proxy.exchanges.clear()
    ends = ("--from", VERSIONS[0], "--to", VERSIONS[-1], "--disk-budget", str(THREE))
    # the oldest image there could go first, but somebody's container needs it
    name = f"{there.registry}/{images.repository}@{images.digests['v0.26.0']}"
    held = there.client.containers.create(name)
    try:
        done = docked.run(*ends, *words, *QUICK)
    finally:
        held.remove()
    right(done)
    assert tuple(done.trials) == TESTED
    assert max(watched) <= THREE
    assert removed(done, images)
    assert "0.26.0" not in removed(done, images)
    assert proxy.seen(layers["0.27.1"]) == []  # wanted from the beginning


def test_what_comes_makes_way_for_what_is_needed_now(
    docked: Vbisect, words: tuple[str, ...], proxy: RegistryProxy, layers: dict[str, str]
) -> None:
    release = proxy.hang(r"/manifests/v0\.26\.0$")
    proxy.rate_each = 2.0 * MIB
    room_for_one = str(PADDING * 4)
    started = docked.start(*FEW, *words, *QUICK, "--disk-budget", room_for_one)
    assert wait(lambda: any(e.sent for e in proxy.seen(layers["0.28.0"])), 60)
    release()
    [first] = proxy.seen(layers["0.28.0"])
    assert wait(lambda: first.ended, 30)
    assert first.closed_early
    proxy.rate_each = None
    right(started.end())
    assert whole(proxy.seen(layers["0.28.0"])) == 1


def test_the_next_images_come_while_one_is_tested(
    docked: Vbisect,
    words: tuple[str, ...],
    images: ImageFamily,
    proxy: RegistryProxy,
    there: OnEngine,
    layers: dict[str, str],
    tmp_path: Path,
) -> None:
    """A trial waits for its verdict, so that what goes on meanwhile can be seen."""

    def say(version: str, passes: bool) -> None:
        (tmp_path / "part").write_text(f"{0 if passes else 1}\n")
        (tmp_path / "part").rename(tmp_path / version)

    def coming(version: str) -> bool:
        """Whether the download of a version has begun and is far from its end."""
        return any(not e.ended and 0 < e.sent < e.size / 2 for e in proxy.seen(layers[version]))

    low, middle, high = VERSIONS[0], VERSIONS[5], VERSIONS[-1]
    say(low, False)
    say(high, True)
    wait_for = f'f={tmp_path}/$VBISECT_VERSION; until [ -e "$f" ]; do sleep 0.05; done'
    proxy.rate_each = 2.0 * MIB
    started = docked.launch(
        *("run", "--from", low, "--to", high, *CPU, "--results", docked.results, *words),
        *("--", "sh", "-c", f'{wait_for}; exit $(cat "$f")'),
    )
    assert wait(lambda: whole(proxy.seen(layers[middle])), 90)
    proxy.rate_each = MIB / 2
    # both that may be tested next
    needless, needed = VERSIONS[3], VERSIONS[7]
    assert wait(lambda: coming(needless), 60)
    assert wait(lambda: coming(needed), 60)
    proxy.rate_each = SLOW
    begun = {version for version, layer in layers.items() if proxy.seen(layer)}
    assert begun == {low, middle, high, needless, needed}, "nothing of what may come after those"
    [download] = proxy.seen(layers[needless])
    fixed = VERSIONS[6]
    assert "trial_finished" not in [e["event"] for e in events(started.run_dir) if middle in str(e)]
    for version in set(VERSIONS) - {low, high}:
        say(version, VERSIONS.index(version) >= VERSIONS.index(fixed))
    assert wait(lambda: download.ended, 60)
    assert download.closed_early
    assert download.sent < download.size
    proxy.rate_each = None
    done = started.end()
    assert done.returncode == 0, done.stderr
    assert f"fixed in {fixed}" in done.stdout
    run_dir = started.run_dir
    tested = {e["version"] for e in events(run_dir) if e["event"] == "build_ready"}
    assert there.digests() == {images.digests[f"v{version}"] for version in tested}
    assert needless not in tested
    assert ledger(docked) == there.digests()
    downloads = Counter({version: whole(proxy.seen(layer)) for version, layer in layers.items()})
    assert set(downloads.values()) <= {0, 1}
    assert re.search(r"vbisect: pulling 0\.\d+\.\d \d+MB of 6MB", done.stderr), done.stderr


def test_several_servers_at_once_keep_to_the_budget_too(
    docked: Vbisect, words: tuple[str, ...], watched: list[int], there: OnEngine
) -> None:
    """Room for one image beside the one that is pulled: the second server waits for its own."""
    ends = ("--from", VERSIONS[0], "--to", VERSIONS[-1], "--disk-budget", str(THREE - PADDING))
    done = docked.run(*ends, *words, *QUICK, "--jobs", "3")
    right(done)
    assert max(watched) <= THREE - PADDING
    assert there.containers() == []
