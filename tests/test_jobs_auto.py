"""How many servers run at once where nobody says so, and what one takes from another."""

from __future__ import annotations

import json
import os
import shlex
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import made
from driving import Vbisect, counts, events, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from standin.nvml import build_library, device, gpu_environment
from test_jobs import at_once, right
from test_times import timed, write
from vbisect.errors import Cancelled
from vbisect.launch import Limited
from vbisect.probes import CommandSettings
from vbisect.releases import Device
from vbisect.run.at_once import settled
from vbisect.run.capacity import Capacity, engine_capacity, host_capacity
from vbisect.run.room import room_on
from vbisect.run.settings import RunSettings
from vbisect.run.slots import SlotPool, plan_slots

GIB = 2**30
NEVER = threading.Event()
BAD = Behaviour(fail_rate={"chat": 1.0})
NO_MEMORY = "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
CROWDED = Behaviour(fault="crowded", fault_log=NO_MEMORY)
KILLED = Behaviour(fault="crowded", fault_exit=-9)
MADE = {f"70.{n}": BAD if n < 3 else Behaviour() for n in range(5)}
LACKING = {
    "71.0": BAD,
    **{f"71.{n}": Behaviour() for n in range(1, 4)},
    "71.4": CROWDED,
    "72.0": BAD,
    **{f"72.{n}": Behaviour() for n in range(1, 4)},
    "72.4": KILLED,
}
QUICK = ("--n", "4", "--confidence", "0.6")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases."""
    with PackageIndex(world(tmp_path_factory.mktemp("auto"), MADE | LACKING)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("auto-cache")


@pytest.fixture
def vbisect(command: Callable[..., Vbisect], index: PackageIndex, cache: Path) -> Vbisect:
    """The command over them."""
    return command(index, cache)


@contextmanager
def on_processors(*numbers: int) -> Iterator[None]:
    """What is started meanwhile may use these processors alone, as with taskset."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def settings_of(run_dir: Path) -> RunSettings:
    return RunSettings.read(run_dir)


def files(root: Path, contents: dict[str, str]) -> Path:
    """A root with these files of a kernel."""
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       32000000 kB\nMemAvailable:   16777216 kB\n"}


def test_the_processors_of_this_process_count(tmp_path: Path) -> None:
    """Not those of the machine."""
    files(tmp_path, MEMINFO)
    first = min(os.sched_getaffinity(0))
    with on_processors(first):
        assert host_capacity(tmp_path) == Capacity(1, 16 * GIB)
    assert host_capacity(tmp_path).processors == len(os.sched_getaffinity(0))


def test_control_groups_limit_processors_and_memory(tmp_path: Path) -> None:
    """Any of those on the way, of version 2; what is only cached there is free."""
    files(
        tmp_path,
        {
            **MEMINFO,
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/memory.max": f"{10 * GIB}\n",
            "sys/fs/cgroup/pod/memory.current": f"{5 * GIB}\n",
            "sys/fs/cgroup/pod/memory.stat": f"anon 7\ninactive_file {GIB}\nactive_file {GIB}\n",
            "sys/fs/cgroup/pod/box/memory.max": "max\n",
            "sys/fs/cgroup/pod/box/memory.current": f"{GIB}\n",
            "sys/fs/cgroup/pod/box/cpu.max": "150000 100000\n",
        },
    )
    assert host_capacity(tmp_path) == Capacity(1, 7 * GIB)


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    """In a container its own is shown as the root, whatever it is called outside."""
    files(
        tmp_path,
        {
            **MEMINFO,
            "proc/self/cgroup": "4:memory:/docker/ab\n3:cpu:/docker/ab\n0::/docker/ab\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{6 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{3 * GIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {GIB}\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert host_capacity(tmp_path) == Capacity(1, 4 * GIB)
    unlimited = {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert host_capacity(files(tmp_path, unlimited)).memory == 16 * GIB


def test_files_that_say_nothing(tmp_path: Path) -> None:
    """No such kernel, or a damaged one."""
    assert host_capacity(tmp_path).memory is None
    files(tmp_path, {"proc/meminfo": "MemAvailable:\n\0", "proc/self/cgroup": ":\n::\nx\n"})
    assert host_capacity(tmp_path).memory is None


class _Engine:
    """What an engine tells of its host."""

    def __init__(self, remote: bool, processors: int | None, memory: int | None) -> None:
        self.remote, self.processors, self.memory = remote, processors, memory


def test_the_host_of_an_engine_counts(tmp_path: Path) -> None:
    """Not the machine that vbisect runs on, nor its groups; half of another one's memory."""
    files(tmp_path, MEMINFO)
    here, small, there, silent = (
        engine_capacity(_Engine(*told), tmp_path)  # type: ignore[arg-type]
        for told in (
            (False, 64, 30 * GIB),
            (False, 64, 4 * GIB),
            (True, 64, 30 * GIB),
            (True, None, None),
        )
    )
    assert (here, small) == (Capacity(64, 16 * GIB), Capacity(64, 4 * GIB))
    assert (there, silent) == (Capacity(64, 15 * GIB), Capacity(None, None))


@pytest.mark.parametrize(
    ("changed", "capacity", "servers", "why"),
    [
        ({}, Capacity(2, 16 * GIB), 2, "2 processors can be used"),
        ({}, Capacity(8, 10 * GIB), 3, "10.74 GB of memory are free, and each takes 3.22 GB"),
        ({}, Capacity(8, GIB), 1, "1.07 GB of memory are free"),
        ({}, Capacity(4, None), 4, "4 processors"),
        ({}, Capacity(None, None), 1, "1 processor "),
        ({"env": (Limited(text="VLLM_CPU_KVCACHE_SPACE=8"),)}, Capacity(8, 20 * GIB), 2, "memory"),
        ({"model": "org/model"}, Capacity(8, 90 * GIB), 1, "org/model takes is not known"),
        ({"control_model": "~/model"}, Capacity(8, 90 * GIB), 1, "~/model takes is not known"),
        ({"command": CommandSettings(command=("/x",))}, Capacity(8, 90 * GIB), 1, "a command may"),
    ],
)
def test_room_on_processors(
    changed: dict[str, Any], capacity: Capacity, servers: int, why: str
) -> None:
    """One processor each, and memory; one at a time where a second may be too many."""
    room = room_on(made.settings(**changed), capacity)
    assert room.servers == servers
    assert why in room.why


@pytest.mark.parametrize(
    ("number", "fetched", "jobs"),
    [(2, True, 2), (5, True, 5), (51, True, 8), (5, False, 1), (51, False, 1)],
)
def test_no_more_than_end_it_sooner(number: int, fetched: bool, jobs: int, tmp_path: Path) -> None:
    """However much room there is: few for a small range, one where downloads take the time."""
    versions = [f"0.{n}" for n in range(number)]
    asked = made.settings(candidates=made.releases(versions), jobs_asked="auto")
    write(tmp_path, "before", timed("1.0", fetch=480, boot=150, request=2), host="here")
    found = settled(asked, Capacity(64, 999 * GIB), versions if fetched else (), tmp_path)
    assert found.jobs == jobs
    assert found.notes[-1] == (
        f"{jobs} server{'s' * (jobs > 1)} at once (--jobs auto): 64 servers at once have room, and "
        "would hardly end it sooner."
    )


needs_two = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 or (host_capacity().memory or 0) < 7 * GIB,
    reason="two servers of a tiny model have no room here",
)


@needs_two
def test_a_run_has_as_many_servers_as_there_is_room_for(vbisect: Vbisect) -> None:
    """Says so, records it, and is repeated by a line that leaves it to the host."""
    asked = ("--from", "70.0", "--to", "70.4", *QUICK, "--jobs", "auto")
    two = sorted(os.sched_getaffinity(0))[:2]
    with on_processors(*two):
        done = vbisect.run(*asked)
        plan = vbisect("plan", "--device", "cpu", *asked, "--results", vbisect.results)
    right(done, "70.2", "70.3")
    assert at_once(done.run_dir) == 2
    said = "2 servers at once (--jobs auto): 2 processors can be used, and each takes one."
    assert done.stderr.count(said) == 1
    assert said in plan.stdout
    assert "on average with 2 servers at once" in plan.stdout
    recorded = settings_of(done.run_dir)
    assert (recorded.jobs, recorded.jobs_asked) == (2, "auto")
    assert "--jobs" not in shlex.split(recorded.replay_command())
    with on_processors(two[0]):
        alone = vbisect.run(*asked)
    assert "1 server at once (--jobs auto): 1 processor can be used" in alone.stderr
    assert settings_of(alone.run_dir).jobs == 1
    assert at_once(alone.run_dir) == 1


@needs_two
def test_a_resumed_run_has_no_more_than_there_is_room_for(vbisect: Vbisect, tmp_path: Path) -> None:
    """It keeps the number it settled on, as long as the host carries that."""
    two = sorted(os.sched_getaffinity(0))[:2]
    with on_processors(*two):
        run = vbisect.start("--from", "70.0", "--to", "70.4", *QUICK, "--jobs", "auto")
        run_dir = run.until(lambda told: any(e["event"] == "trial_started" for e in told))
        run.kill()
    before = len(events(run_dir))
    with on_processors(two[0]):
        done = vbisect.resume(run_dir)
    right(done, "70.2", "70.3")
    assert "1 server at once, not 2, for now 1 processor can be used" in done.stderr
    assert settings_of(run_dir).jobs == 2
    resumed = [e for e in events(run_dir)[before:] if e["event"].startswith("trial_")]
    under_way = 0
    for event in resumed:
        under_way += 1 if event["event"] == "trial_started" else -1
        assert under_way <= 1


def test_a_number_is_named_by_the_line_that_repeats_a_run(vbisect: Vbisect) -> None:
    """One, too: the host would settle on another."""
    done = vbisect.run("--from", "70.0", "--to", "70.1", *QUICK, "--jobs", "1")
    assert "servers at once" not in done.stderr
    words = shlex.split(settings_of(done.run_dir).replay_command())
    assert words[words.index("--jobs") + 1] == "1"


def test_the_run_of_an_older_vbisect_is_repeated_as_it_was() -> None:
    """It had one server where no number was given, and says no more than that."""
    assert "--jobs" not in made.settings().replay_command()
    assert "--jobs 3 " in made.settings(jobs=3).replay_command()


@needs_two
@pytest.mark.parametrize("major", ["71", "72"])
def test_what_lacked_memory_beside_another_is_tested_again_alone(
    vbisect: Vbisect, major: str
) -> None:
    """It said nothing of the release: by its own words, or killed without any."""
    done = vbisect.run("--from", f"{major}.0", "--to", f"{major}.4", *QUICK, "--jobs", "2")
    right(done, f"{major}.0", f"{major}.1")
    lacking = f"{major}.4"
    assert done.trials[lacking]["outcome"] == "pass"
    assert f"The trial of {lacking} lacked memory while there were others" in done.stderr
    assert counts(done.run_dir, "trial_started")[lacking] == 2
    told = [
        (e["event"], e.get("version") or e["record"]["version"])
        for e in events(done.run_dir)
        if e["event"].startswith("trial_")
    ]
    [_, again] = [n for n, each in enumerate(told) if each == ("trial_started", lacking)]
    under_way = set[str]()
    for event, version in told[:again]:
        (under_way.add if event == "trial_started" else under_way.discard)(version)
    assert under_way == {lacking}, "nothing else is under way"
    assert told[again + 1] == ("trial_finished", lacking), "nor begins before it is over"


def test_whoever_is_alone_waits_for_all_and_is_waited_for() -> None:
    """Of several the one after the other, and nobody waits for ever."""
    pool = SlotPool(plan_slots((), jobs=3, asked="none"))
    held: list[bool] = []

    def work(number: int) -> None:
        alone = number % 5 == 0
        with (pool.taken_alone if alone else pool.taken)(NEVER) as place:
            assert not held or (not alone and not any(held))
            held.append(alone)
            assert not alone or len(held) == 1
            held.remove(alone)
            assert not (alone and place.shared)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, range(200)))
    given_up = threading.Event()
    given_up.set()
    with pool.taken(NEVER) as first:
        with pytest.raises(Cancelled), pool.taken_alone(given_up):
            pass
        assert not first.shared
        with pool.taken(NEVER) as second:
            assert first.shared
            assert second.shared


GPUS = [device(f"GPU-{index}", processes=1 if index < 6 else 0) for index in range(8)]
ON_GPUS = ("--device", "cuda", "--runtime", "venv", "--model", "tiny:qwen2", "--jobs", "auto")


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stand-in for the driver's library."""
    return build_library(tmp_path_factory.mktemp("driver") / "nvml")


@needs_two
def test_one_server_for_each_free_group_of_gpus(
    vbisect: Vbisect, nvml: Path, tmp_path: Path
) -> None:
    """Two of eight are free; one where both work together, and where the GPUs are unlike."""

    def planned(gpus: list[str], *words: str) -> tuple[int, str]:
        host = gpu_environment(nvml, tmp_path / "gpus", gpus)
        asked = ("plan", "--from", "70.0", "--to", "70.4", *ON_GPUS, *words)
        own = ("--results", vbisect.results)
        plan = json.loads(vbisect(*asked, *own, "--json", **host).stdout)
        return plan["jobs"], vbisect(*asked, *own, **host).stdout

    jobs, told = planned(GPUS)
    assert jobs == 2
    assert "2 servers at once (--jobs auto): 2 GPUs can be used" in told
    assert planned(GPUS, "--tp", "2")[0] == 1
    assert planned(GPUS, "--serve-arg", "--tensor-parallel-size 2")[0] == 1
    assert planned(GPUS, "--env", "CUDA_VISIBLE_DEVICES=6,7")[0] == 1
    jobs, told = planned([*GPUS[:7], device("GPU-7", name="NVIDIA L40S")])
    assert jobs == 1
    assert "the GPUs are not alike" in told
    assert planned(GPUS[:6])[0] == 1


@needs_two
def test_a_run_on_gpus_gives_each_server_its_own(
    vbisect: Vbisect, nvml: Path, tmp_path: Path
) -> None:
    """As many at once as GPUs are free, and the busy ones are left alone."""
    host = gpu_environment(nvml, tmp_path / "gpus", GPUS)
    own = ("--json", "--fresh", "--results", vbisect.results)
    done = vbisect("run", "--from", "70.0", "--to", "70.4", *ON_GPUS, *QUICK, *own, **host)
    right(done, "70.2", "70.3")
    assert at_once(done.run_dir) == 2
    recorded = settings_of(done.run_dir)
    assert (recorded.device, recorded.jobs) == (Device.CUDA, 2)
