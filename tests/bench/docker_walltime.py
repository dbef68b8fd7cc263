"""How much sooner vbisect answers than ``git bisect run`` with a shell script, on the same images.

Both search the 51 stand-in images of vLLM 0.7.3 to 0.33.0 for the release that fixed a bug. The
servers are ready ``BOOT_SECONDS`` after their process has started; a failing one always returns a
single choice, so that one request is enough for either. Each search meets the same engine (a
private dockerd that downloads ``--downloads`` layers at once: six, as the README advises; its own
default is three) without images but for the base layer that all share: none of the 51 is there when
it is cold, the same third when it is warm.

The registry is behind a proxy that limits every connection to ``RATE`` bytes a second, as nginx's
``limit_rate`` and CDNs do; an image is one layer of ``PADDING`` bytes, so that pulling one takes
about twice a boot, and several pulls at once do not slow each other down. On the shared line the
same rate is the limit of all connections together.

The peer (``git_bisect``) is what a capable user writes: pull, start, look every half second
whether the server is ready, ask once, remove. ``git bisect`` is told its two ends; vbisect tests
them. The ratios are against that, and beside them (``checked``) against the same after a check of
both ends, which is what vbisect's answer stands on. vbisect has ``--jobs`` servers at once (six, as
on a host with eight GPUs), and beside that (``one``) a single one as the peer has.

``critical`` is the wall time of the vbisect with one server over what ``ideal_schedule`` makes of
its own trials with as many connections as the engine has, and with the times that one pull and one
boot with its request take when ``docker`` alone does them, measured here. ``shared_line_ratio`` is
the wall time of a vbisect that pulls nothing ahead over that of vbisect as it is, on the shared
line: about 1 or more says that pulling ahead does no harm there.

Prints its figures, and last one JSON line: ``{"cold_ratio", "warm_ratio", "critical_path_ratio",
…}``, medians over the truths. It runs as root, for the dockerd, with the interpreter that has
vbisect installed.

    python tests/bench/docker_walltime.py [--truths N] [--jobs N] [--downloads N]
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

from vbisect.search import Outcome

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.docker_alone import Alone, time_alone
from bench.git_bisect import GitBisect
from bench.ideal_schedule import ideal_seconds
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
    *("--runtime", "docker", "--device", "cpu", "--model", MODEL, "--json"),
    *("--endpoint", "generate", "--n", "4", "--confidence", "0.5", "--fresh"),
]
AS_IT_IS = ["-m", "vbisect"]
PULLING_NOTHING_AHEAD = [
    "-c",
    "from vbisect.shell import main\n"
    "from vbisect.run.runtimes.docker import DockerRuntime\n"
    "DockerRuntime.lookahead = 0\n"
    "main()",
]


@dataclass(frozen=True)
class Row:
    """What one truth came to; times in seconds."""

    peer: float
    ends: float
    """What a check of both ends adds to the peer."""
    vbisect: float
    one: float
    """With one server at once."""
    ideal: float
    """Of that."""

    def cells(self) -> tuple[float, ...]:
        """What is printed, in the order of ``COLUMNS``."""
        checked = self.peer + self.ends
        ratios = self.peer / self.vbisect, self.peer / self.one, checked / self.one
        times = self.peer, checked, self.vbisect, self.one, self.ideal
        return *times, *ratios, self.one / self.ideal


COLUMNS = ("peer", "checked", "vbisect", "one", "ideal", "ratio", "one", "checked", "critical")
RATIO, ONE, CHECKED, CRITICAL = 5, 6, 7, 8


@dataclass(frozen=True)
class Bench:
    """Both sides, and the images of one truth in a throttled registry."""

    engine: Engine
    downloads: int
    jobs: int
    proxy: RegistryProxy
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

    def measure(self, cached: Collection[int], alone: Alone) -> Row:
        """Search with images ``cached`` at first, in both ways."""
        with throttled(self.proxy, each=RATE):
            self._have_only(cached)
            ends = self.git.check_ends(self.env)
            self._have_only(cached)
            peer, found = self.git.search(self.env)
            assert found == f"v{self.versions[self.truth]}", found
            self._have_only(cached)
            ours, _ = self._run(jobs=self.jobs)
            self._have_only(cached)
            one, trials = self._run()
        ideal = ideal_seconds(
            len(self.versions),
            trials,
            cached=cached,
            pull_seconds=alone.pull,
            trial_seconds=alone.boot,
            connections=self.downloads,
        )
        return Row(peer, ends, ours, one, ideal)

    def on_a_shared_line(self) -> tuple[float, float]:
        """Seconds that vbisect takes there without pulling ahead, and as it is."""
        with throttled(self.proxy, total=RATE):
            self._have_only(())
            without, _ = self._run(PULLING_NOTHING_AHEAD)
            self._have_only(())
            return without, self._run()[0]

    def alone(self) -> Alone:
        """Measured on a few of the images."""
        measured = []
        for version in ("0.9.0", "0.15.0", "0.25.0"):
            self._have_only(())
            with throttled(self.proxy, each=RATE):
                measured.append(time_alone(self.engine.url, f"{self.images}:v{version}", MODEL))
        return Alone(median(m.pull for m in measured), median(m.boot for m in measured))

    def _have_only(self, cached: Collection[int]) -> None:
        """Make the engine have the images ``cached``, the base, and no others."""
        wanted = {f"{self.images}:v{self.versions[index]}" for index in cached}
        with contextlib.closing(self.engine.client()) as client, throttled(self.proxy):
            for image in client.images.list():
                if not any(tag in wanted or tag.endswith(":base") for tag in image.tags):
                    client.images.remove(image.id, force=True)
            for name in sorted(wanted - {tag for i in client.images.list() for tag in i.tags}):
                client.images.pull(name)

    def _run(
        self, how: Sequence[str] = AS_IT_IS, jobs: int = 1
    ) -> tuple[float, list[tuple[int, Outcome]]]:
        """Seconds that ``vbisect run`` takes, and its trials in order."""
        ends = ("--from", self.versions[0], "--to", self.versions[-1])
        places = ("--image-repo", self.images, "--results", str(self.vbisect.results))
        servers = ("--jobs", str(jobs))
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, *how, "run", *ends, *VBISECT, *places, *servers],
            env={**self.vbisect.env, "DOCKER_HOST": self.engine.url},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
        assert not done.returncode, done
        answer = json.loads(done.stdout)
        assert answer["answer"]["first_after"] == self.versions[self.truth], answer
        recorded = events(Path(answer["run_dir"]))
        records = [event["record"] for event in recorded if event["event"] == "trial_finished"]
        return seconds, [
            (self.versions.index(record["version"]), Outcome(record["outcome"]))
            for record in records
        ]


@contextlib.contextmanager
def throttled(
    proxy: RegistryProxy, *, each: float | None = None, total: float | None = None
) -> Iterator[None]:
    """Limit the proxy in the block to these bytes per second; afterwards to what was before."""
    before = proxy.rate_each, proxy.rate_total
    proxy.rate_each, proxy.rate_total = each, total
    try:
        yield
    finally:
        proxy.rate_each, proxy.rate_total = before


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


def print_row(state: str, version: str, cells: Sequence[float]) -> None:
    """One line of the table."""
    numbers = "".join(f"{cell:9.2f}" for cell in cells)
    load = os.getloadavg()[0]
    print(f"{state:5} {version:9}{numbers}{load:6.1f}", flush=True)


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, float]:
    """Measure everything, printing it as it comes; what the last line says."""
    (scratch / "wheels").mkdir(parents=True)
    releases = family(scratch / "wheels")
    versions = releases.versions["vllm"]
    rows: dict[str, list[tuple[float, ...]]] = {"cold": [], "warm": []}
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
        print(f"{'fixed in':>15}", *(f"{c:>8}" for c in COLUMNS), " load", flush=True)
        for truth in draw_truths(options.truths, len(versions)):
            push(registry, f"fixed-{truth}", versions, truth)
            images = f"{proxy.host}/fixed-{truth}"
            sizes = options.downloads, options.jobs
            bench = Bench(engine, *sizes, proxy, git, vbisect, images, versions, truth)
            alone = bench.alone()
            for state, cached in (("cold", []), ("warm", third)):
                rows[state].append(bench.measure(cached, alone).cells())
                print_row(state, versions[truth], rows[state][-1])
        print(f"one pull {alone.pull:.2f} s, one boot with its request {alone.boot:.2f} s")
        without, ours = bench.on_a_shared_line()
        print(f"shared line: {without:.1f} s pulling nothing ahead, {ours:.1f} s as it is")
    middle = {state: [median(c) for c in zip(*rs, strict=True)] for state, rs in rows.items()}
    for state, cells in middle.items():
        print_row(state, "median", cells)
    return {
        "cold_ratio": middle["cold"][RATIO],
        "warm_ratio": middle["warm"][RATIO],
        "critical_path_ratio": median(row[CRITICAL] for rs in rows.values() for row in rs),
        "cold_ratio_one": middle["cold"][ONE],
        "warm_ratio_one": middle["warm"][ONE],
        "cold_ratio_one_checked": middle["cold"][CHECKED],
        "warm_ratio_one_checked": middle["warm"][CHECKED],
        "shared_line_ratio": without / ours,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="vbisect against git bisect run, by the clock")
    parser.add_argument("--truths", type=int, default=5, help="how many boundaries to search for")
    parser.add_argument("--downloads", type=int, default=6, help="of the engine, at once")
    parser.add_argument("--jobs", type=int, default=6, help="servers of vbisect at once")
    parser.add_argument("--scratch", type=Path, help="a new directory, to keep the runs in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vbisect-walltime-") as temporary:
        figures = measure(options, options.scratch or Path(temporary, "scratch"))
    print(json.dumps({name: round(figure, 3) for name, figure in figures.items()}))


if __name__ == "__main__":
    main()
