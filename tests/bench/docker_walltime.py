"""How much sooner vbisect answers than ``git bisect run`` with a shell script, on the same images.

One server against one server. Both search the 51 stand-in images of vLLM 0.7.3 to 0.33.0 for the
release that fixed a bug. The servers are ready ``BOOT_SECONDS`` after their process has started; a
failing one always returns a single choice, so that one request is enough for either. Each search
meets the same engine (a private dockerd that downloads ``--downloads`` layers at once: six, as the
README advises; its own default is three) without images but for the base layer that all share: none
of the 51 is there when it is cold, the same third when it is warm. Weights are no part of it.

The registry is behind a proxy that limits every connection to ``RATE`` bytes a second, as nginx's
``limit_rate`` and CDNs do; an image is one layer of ``PADDING`` bytes, so that pulling one takes
about twice a boot, and several pulls at once do not slow each other down.

The peer (``git_bisect``) is what a capable user writes: pull, start, look every half second whether
the server is ready, ask once, remove. Two races:

- ``loop`` is ``git bisect run`` as it is: its ends are told, nothing is confirmed. Against it runs
  vbisect with a confidence that boots each release once; it tests both ends.
- ``certain`` is the same with what vbisect's answer stands on: both ends tested, both neighbours of
  the change booted twice. Against it runs vbisect as it is by default.

Of each truth the peer and vbisect go first in turn. ``bound`` is what no one can be faster than who
boots what that vbisect booted one after the other: one pull (none where the first is there), and
then boots without any wait in between, as ``docker`` alone takes for them. ``bytes`` is what came
from the registry over what the images tested have, ``GETs`` how many manifests were asked for, and
how many images were pulled.

Prints its figures, and last one JSON line, medians over the truths: ``cold_ratio`` loop over
vbisect, ``cold_ratio_same_certainty`` certain over vbisect, ``warm_ratio`` the same with a third of
the images there, ``critical_path_ratio`` vbisect over its bound, ``bytes_ratio`` over all runs. It
runs as root, for the dockerd, with the interpreter that has vbisect installed.

    python tests/bench/docker_walltime.py [--truths N] [--downloads N] [--rate BYTES]
        [--scratch DIRECTORY]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.docker_alone import Alone, time_alone
from bench.git_bisect import GitBisect
from driving import Vbisect, events
from standin.base import base_layer
from standin.behaviour import Behaviour
from standin.engine import Engine
from standin.family import family
from standin.images import image_family
from standin.proxy import RegistryProxy
from standin.registry import LocalRegistry

BOOT_SECONDS = 3.0
PADDING = 6_000_000
RATE = 850_000
SEED = 17
MODEL = "standin/model"
VBISECT = [
    *("--runtime", "docker", "--device", "cpu", "--model", MODEL, "--json", "--jobs", "1"),
    *("--endpoint", "generate", "--n", "4", "--fresh", "--serve-arg", "--load-format dummy"),
]
EACH_ONCE = ("--confidence", "0.5")


@dataclass(frozen=True)
class Ours:
    """One run of vbisect: seconds, those of its bound, bytes that came and that were needed."""

    seconds: float
    bound: float
    came: int
    needed: int
    gets: int
    """Manifests that were asked for."""
    pulled: int
    """Images of which anything came."""


@dataclass(frozen=True)
class Theirs:
    """The peer: seconds of the search, of both ends, of both neighbours once more."""

    search: float
    ends: float
    again: float

    @property
    def certain(self) -> float:
        """All of it."""
        return self.search + self.ends + self.again


@dataclass(frozen=True)
class Race:
    """One truth, with some images there; ``once`` boots each release once."""

    state: str
    fixed: str
    theirs: Theirs
    once: Ours
    ours: Ours

    def line(self) -> str:
        """What is printed of it."""
        theirs, runs = self.theirs, (self.once, self.ours)
        cells = [theirs.search, self.once.seconds, theirs.search / self.once.seconds]
        cells += [theirs.certain, self.ours.seconds, theirs.certain / self.ours.seconds]
        cells += [run.seconds / run.bound for run in runs]
        cells += [run.came / max(1, run.needed) for run in runs]
        gets = "  ".join(f"{run.gets:3}/{run.pulled:<3}" for run in runs)
        numbers = "".join(f"{cell:9.2f}" for cell in cells)
        return f"{self.state:5} {self.fixed:9}{numbers}  {gets}{os.getloadavg()[0]:6.1f}"


COLUMNS = (
    *("loop", "vbisect", "ratio", "certain", "vbisect", "ratio"),
    *("bound", "bound", "bytes", "bytes"),
)


@dataclass(frozen=True)
class Bench:
    """Both sides, and the images of one truth in a throttled registry."""

    engine: Engine
    proxy: RegistryProxy
    rate: float
    git: GitBisect
    vbisect: Vbisect
    images: str
    """The name of the images, without tags."""
    versions: Sequence[str]
    truth: int
    """Index of the first version with the fix."""

    @property
    def env(self) -> dict[str, str]:
        """What the user's script is told."""
        return {"DOCKER_HOST": self.engine.url, "IMAGES": self.images, "MODEL": MODEL}

    def race(self, state: str, cached: Collection[int], alone: Alone, *, first: bool) -> Race:
        """Search with images ``cached`` at first, in both ways; the peer ``first`` or last."""
        with throttled(self.proxy, each=self.rate):
            theirs = self._theirs(cached) if first else None
            once = self._ours(cached, alone, EACH_ONCE)
            ours = self._ours(cached, alone)
            theirs = theirs or self._theirs(cached)
        return Race(state, self.versions[self.truth], theirs, once, ours)

    def alone(self) -> Alone:
        """Measured on a few of the images."""
        measured = []
        for version in ("0.9.0", "0.15.0", "0.25.0"):
            self._have_only(())
            with throttled(self.proxy, each=self.rate):
                measured.append(time_alone(self.engine.url, f"{self.images}:v{version}", MODEL))
        return Alone(median(m.pull for m in measured), median(m.boot for m in measured))

    def _theirs(self, cached: Collection[int]) -> Theirs:
        self._have_only(cached)
        search, found = self.git.search(self.env)
        assert found == f"v{self.versions[self.truth]}", found
        return Theirs(search, self.git.check_ends(self.env), self.git.check_again(found, self.env))

    def _have_only(self, cached: Collection[int]) -> None:
        """Make the engine have the images ``cached``, the base, and no others."""
        wanted = {f"{self.images}:v{self.versions[index]}" for index in cached}
        with contextlib.closing(self.engine.client()) as client, throttled(self.proxy):
            for image in client.images.list():
                if not any(tag in wanted or tag.endswith(":base") for tag in image.tags):
                    client.images.remove(image.id, force=True)
            for name in sorted(wanted - {tag for i in client.images.list() for tag in i.tags}):
                client.images.pull(name)

    def _ours(self, cached: Collection[int], alone: Alone, how: Sequence[str] = ()) -> Ours:
        """A ``vbisect run``."""
        self._have_only(cached)
        self.proxy.exchanges.clear()
        ends = ("--from", self.versions[0], "--to", self.versions[-1])
        places = ("--image-repo", self.images, "--results", str(self.vbisect.results))
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "vbisect", "run", *ends, *VBISECT, *how, *places],
            env={**self.vbisect.env, "DOCKER_HOST": self.engine.url, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
        assert not done.returncode, done
        answer = json.loads(done.stdout)
        assert answer["answer"]["first_after"] == self.versions[self.truth], answer
        boots = [
            self.versions.index(event["version"])
            for event in events(Path(answer["run_dir"]))
            if event["event"] == "build_ready"
        ]
        first = 0.0 if boots[0] in cached else alone.pull
        layers = [e for e in self.proxy.seen(kind="blob", method="GET") if e.size >= PADDING]
        return Ours(
            seconds,
            bound=first + len(boots) * alone.boot,
            came=sum(e.sent for e in layers),
            needed=len(set(boots).difference(cached)) * max((e.size for e in layers), default=0),
            gets=len(self.proxy.seen(kind="manifest", method="GET")),
            pulled=len({e.path for e in layers}),
        )


@contextlib.contextmanager
def throttled(proxy: RegistryProxy, *, each: float | None = None) -> Iterator[None]:
    """Limit each connection in the block to these bytes per second; then to what was before."""
    before = proxy.rate_each
    proxy.rate_each = each
    try:
        yield
    finally:
        proxy.rate_each = before


def push(registry: LocalRegistry, repository: str, versions: Sequence[str], truth: int) -> None:
    """Push a family that is fixed from ``versions[truth]`` on."""
    broken = versions[:truth]

    def change(version: str, behaviour: Behaviour) -> Behaviour:
        fail_rate = {"generate": 1.0} if version in broken else {}
        return replace(behaviour, fail_rate=fail_rate, scale_out=None)

    image_family(
        registry, repository, boot_seconds=BOOT_SECONDS, padding_bytes=PADDING, change=change
    )


def draw_truths(number: int, candidates: int) -> list[int]:
    """Boundaries spread over the range: one drawn from each of ``number`` even stretches."""
    drawn = random.Random(SEED)
    edges = [1 + (candidates - 1) * part // number for part in range(number + 1)]
    return [drawn.randrange(*stretch) for stretch in pairwise(edges)]


def measure(options: argparse.Namespace, scratch: Path) -> list[Race]:
    """Race everything, printing it as it comes."""
    (scratch / "wheels").mkdir(parents=True)
    releases = family(scratch / "wheels")
    versions = releases.versions["vllm"]
    races: list[Race] = []
    third = random.Random(SEED).sample(range(len(versions)), len(versions) // 3)
    with (
        Engine(f"--max-concurrent-downloads={options.downloads}") as engine,
        LocalRegistry() as registry,
        RegistryProxy(registry.host) as proxy,
        releases.index() as index,
    ):
        registry.push_image("base", ["base"], [base_layer()], {})
        with contextlib.closing(engine.client()) as client:
            client.images.pull(f"{proxy.host}/base:base")
        git = GitBisect(scratch, versions)
        vbisect = Vbisect(index, scratch, scratch / "cache", scratch / "runs")
        print(
            f"{'fixed in':>15}", *(f"{c:>8}" for c in COLUMNS), "   GETs/images   load", flush=True
        )
        for number, truth in enumerate(draw_truths(options.truths, len(versions))):
            push(registry, f"fixed-{truth}", versions, truth)
            images = f"{proxy.host}/fixed-{truth}"
            bench = Bench(engine, proxy, options.rate, git, vbisect, images, versions, truth)
            alone = bench.alone()
            for state, cached in (("cold", []), ("warm", third)):
                races.append(bench.race(state, cached, alone, first=number % 2 == 0))
                print(races[-1].line(), flush=True)
            print(
                f"      one pull {alone.pull:.2f} s, one boot with its request {alone.boot:.2f} s"
            )
    return races


def figures(races: Sequence[Race]) -> dict[str, float]:
    """What the last line says."""
    cold, warm = ([r for r in races if r.state == state] for state in ("cold", "warm"))
    runs = [run for race in races for run in (race.once, race.ours)]
    return {
        "cold_ratio": median(r.theirs.search / r.once.seconds for r in cold),
        "warm_ratio": median(r.theirs.certain / r.ours.seconds for r in warm),
        "cold_ratio_same_certainty": median(r.theirs.certain / r.ours.seconds for r in cold),
        "critical_path_ratio": median(run.seconds / run.bound for run in runs),
        "bytes_ratio": sum(run.came for run in runs) / sum(run.needed for run in runs),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="vbisect against git bisect run, by the clock")
    parser.add_argument("--truths", type=int, default=5, help="how many boundaries to search for")
    parser.add_argument("--downloads", type=int, default=6, help="of the engine, at once")
    parser.add_argument("--rate", type=float, default=RATE, help="bytes/s of each connection")
    parser.add_argument("--scratch", type=Path, help="a new directory, to keep the runs in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vbisect-walltime-") as temporary:
        races = measure(options, options.scratch or Path(temporary, "scratch"))
    gets, pulled = (sum(getattr(r.ours, what) for r in races) for what in ("gets", "pulled"))
    print(f"GETs of manifests at the registry: {gets} for {pulled} images that were pulled")
    print(json.dumps({name: round(figure, 3) for name, figure in figures(races).items()}))


if __name__ == "__main__":
    main()
