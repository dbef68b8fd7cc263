"""A full disk says nothing of a release: the run stops, is told of, and can be gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disks import fill, small_disk
from driving import Done, Vbisect, counts, world
from made import settings
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from vbisect.builds.uv import UvResult
from vbisect.errors import HostError
from vbisect.full_disk import with_room_in
from vbisect.launch.diagnosis import diagnose_exit
from vbisect.launch.server import Ended
from vbisect.reasons import SkipReason, Untestable
from vbisect.run.journal import EventKind, Journal, read_journal

NO_SPACE = "OSError: [Errno 28] No space left on device: '/var/cache/vllm'"
RELEASES = {
    "76.0": Behaviour(fail_rate={"chat": 1.0}, boot_seconds=0.5),
    "76.1": Behaviour(),
    "76.2": Behaviour(),
    "75.0": Behaviour(fault="exit_before_ready", fault_log=NO_SPACE),
    "75.1": Behaviour(),
}
QUICK = ("--n", "4", "--confidence", "0.8")  # one boot of each


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageIndex]:
    """The releases."""
    with PackageIndex(world(tmp_path_factory.mktemp("disk-wheels"), RELEASES)) as served:
        yield served


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their environments."""
    return tmp_path_factory.mktemp("disk-cache")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one."""
    with small_disk(tmp_path / "disk", "4m") as place:
        yield place


@pytest.fixture
def vbisect(command: Callable[..., Vbisect], index: PackageIndex, cache: Path) -> Vbisect:
    """The command over the releases."""
    return command(index, cache)


def stopped(done: Done) -> str:
    """What a run that stopped for the host's sake told; no release was skipped for it."""
    assert (done.returncode, done.json["status"]) == (4, "failed"), done.stderr
    assert all(trial["outcome"] != "skip" for trial in done.json["trials"])
    assert "Traceback" not in done.stderr
    message: str = done.json["message"]
    return message


@pytest.mark.parametrize("moment", ["run_started", "trial_started", "build_ready", "server_ready"])
def test_a_full_disk_for_results_stops_the_run(vbisect: Vbisect, disk: Path, moment: str) -> None:
    """Whatever it was that could not be written: a server's log, the journal, what was asked."""
    vbisect.results = disk
    started = vbisect.start("--from", "76.0", "--to", "76.2", *QUICK)
    run_dir = started.until(lambda journal: any(e["event"] == moment for e in journal))
    filler = fill(disk)
    done = started.end()
    assert stopped(done)
    assert counts(run_dir, "trial_finished") == {}
    filler.unlink()
    resumed = vbisect.resume(run_dir)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.json["answer"]["first_after"] == "76.1"
    assert counts(run_dir, "trial_finished") == {"76.0": 1, "76.1": 1, "76.2": 1}
    assert (run_dir / "report.md").stat().st_size > 0


def test_a_full_disk_for_environments_stops_the_run(
    command: Callable[..., Vbisect], index: PackageIndex, tmp_path: Path
) -> None:
    """That a release could not be installed for it is not the release's."""
    with small_disk(tmp_path / "cache", "40m") as cache:
        vbisect = command(index, cache)
        started = vbisect.start("--from", "76.0", "--to", "76.2", *QUICK)
        run_dir = started.until(lambda seen: any(e["event"] == "trial_started" for e in seen))
        filler = fill(cache, leaving=20_000)
        assert stopped(started.end())
        filler.unlink()
        resumed = vbisect.resume(run_dir)
        assert resumed.returncode == 0, resumed.stderr
        assert resumed.json["answer"]["first_after"] == "76.1"


def test_a_server_that_finds_a_disk_full_is_no_skip(vbisect: Vbisect) -> None:
    """The disk may be another one than vbisect writes to."""
    message = stopped(vbisect.run("--from", "75.0", "--to", "75.1", *QUICK))
    assert NO_SPACE in message


def test_a_skip_stands_only_where_there_is_room(disk: Path, tmp_path: Path) -> None:
    """What is too little room is told by the folder it is in."""
    skip = Untestable(SkipReason.EXITED_BEFORE_READY, "the log is empty")

    def skipped() -> None:
        with with_room_in(disk, tmp_path / "nowhere"):
            raise skip

    with pytest.raises(Untestable):
        skipped()
    filler = fill(disk, leaving=4096)
    with pytest.raises(HostError, match=f"Nothing can be written to {disk}: No space left"):
        skipped()
    assert list(disk.iterdir()) == [filler]


def test_a_log_that_tells_of_a_full_disk_is_the_hosts(tmp_path: Path) -> None:
    """Before any other cause that it names."""
    log = tmp_path / "log"
    log.write_text(f"{NO_SPACE}\nImportError: cannot import name 'x'\n")
    with pytest.raises(HostError, match="The disk is full: OSError"):
        diagnose_exit(log, Ended(1))


SHARED_MEMORY = [
    "h:7:7 [0] NCCL WARN Error: failed to extend /dev/shm/nccl-Wx3yZ1 to 33030532 bytes, error: No "
    "space left on device (28)",
    "h:7:7 [0] misc/shmutils.cc:72 NCCL WARN Error while creating shared memory segment "
    "/dev/shm/nccl-a (size 9637888), error: No space left on device (28)",
    "RuntimeError: unable to write to file </torch_4021_1_2>: No space left on device (28)",
    '  File "/usr/lib/python3.12/multiprocessing/shared_memory.py", line 111, in __init__\n'
    "    os.ftruncate(self._fd, size)\nOSError: [Errno 28] No space left on device",
]


@pytest.mark.parametrize("text", SHARED_MEMORY)
def test_full_shared_memory_is_no_full_disk(tmp_path: Path, text: str) -> None:
    """How much of it a release takes is its own; others may do with what there is."""
    log = tmp_path / "log"
    log.write_text(f"{text}\n")
    assert diagnose_exit(log, Ended(1)).reason is SkipReason.EXITED_BEFORE_READY
    log.write_text(f"{text}\nTraceback:\n  File\n{NO_SPACE}\n")
    with pytest.raises(HostError, match="/var/cache/vllm"):
        diagnose_exit(log, Ended(1))


def test_half_an_event_is_never_left_in_a_journal(disk: Path) -> None:
    """What could not be written whole is not there at all, and the next event is."""
    settings().write(disk)
    with Journal(disk) as journal:
        journal.append(EventKind.NOTE, text="before")
        whole = (disk / "journal.jsonl").read_bytes()
        filler = fill(disk, leaving=4096)
        with pytest.raises(HostError, match="The journal cannot be written: No space left"):
            journal.append(EventKind.NOTE, text="x" * 100_000)
        assert (disk / "journal.jsonl").read_bytes() == whole
        os.truncate(filler, 0)
        journal.append(EventKind.NOTE, text="after")
    events, torn = read_journal(disk)
    assert ([event["text"] for event in events], torn) == (["before", "after"], b"")


def test_full_shared_memory_is_none_for_uv_either() -> None:
    """uv says the same of both; how much of it there is, is the host's own setting."""
    told = "error: Failed to install\n  cause: failed to write {}: No space left (os error 28)"
    assert UvResult(2, told.format("/home/u/.cache/uv/x")).disk_full
    assert not UvResult(2, told.format("/dev/shm/uv/x")).disk_full
    assert not UvResult(0, told.format("/home/u/.cache/uv/x")).disk_full
