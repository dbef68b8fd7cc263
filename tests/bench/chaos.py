"""Strikes runs at random moments and resumes them: nothing may be lost, repeated or left behind.

Real vbisect processes over stand-in releases. Each run is struck, by one of ``KINDS`` at moments
that its seed decides, and resumed until it ends; its answer has to be that of an undisturbed run.
Prints every fault with what repeats it, counts for each kind, and last one JSON line:
``{"runs", "strikes", "wrong", "lost", "left", "broken"}``, where

* wrong: another answer, an undocumented exit code, no report, or no end;
* lost: an earlier journal that is no prefix of the later one, or a release tested twice;
* left: a process, a port or a folder, ten seconds after vbisect ended;
* broken: a finished environment that cannot import its vLLM.

    python tests/bench/chaos.py [--strikes N] [--seed S] [--only KIND] [--workers W]
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import itertools
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from driving import Vbisect, processes, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from standin.running import wait

BAD = Behaviour(fail_rate={"chat": 1.0}, spawn_engine=True, engine_own_session=True)
GOOD = Behaviour(spawn_engine=True)
RELEASES = {"80.0": BAD, "80.1": GOOD, "80.2": GOOD}
QUESTION = ("--from", "80.0", "--to", "80.2", "--n", "4", "--confidence", "0.8")
FAULTS = ("wrong", "lost", "left", "broken")
GONE_SECONDS = 10.0
END_SECONDS = 120.0
DISK_BYTES = 16 << 20
MOST_LIVES = 20


class Life:
    """One vbisect process of a run, from its start to its end."""

    def __init__(self, vbisect: Vbisect, words: list[str], output: Path, terminal: bool) -> None:
        self.vbisect, self.output = vbisect, output
        command = [sys.executable, "-m", "vbisect", "run", *words, "--json"]
        self._master: int | None = None
        self._reader: threading.Thread | None = None
        if terminal:
            self._master, slave = os.openpty()
            streams: dict[str, Any] = {"stdin": slave, "stdout": slave, "stderr": slave}
            streams |= {"start_new_session": True, "preexec_fn": _own_terminal}
        else:
            streams = {"stdin": subprocess.DEVNULL, "process_group": 0}
            streams |= {
                "stdout": output.open("wb"),
                "stderr": output.with_suffix(".err").open("wb"),
            }
        self.process = subprocess.Popen(command, env=vbisect.env, **streams)
        if self._master is None:
            streams["stdout"].close()
            streams["stderr"].close()
        else:
            os.close(slave)
            self._over = threading.Event()
            self._reader = threading.Thread(target=self._read)
            self._reader.start()

    def close_terminal(self) -> None:
        """As a terminal's window is closed: its session is hung up, and writing to it fails."""
        if self._reader is not None:
            self._over.set()
            self._reader.join()
            self._reader = None

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to vbisect, or to its group as a terminal does."""
        with contextlib.suppress(ProcessLookupError):
            if self.process.poll() is None:
                (os.killpg if group else os.kill)(self.process.pid, number)

    def below(self, wanted: str = "", but: str = "-m vbisect") -> list[int]:
        """The processes of this run with ``wanted`` in their command lines, ``but`` not this."""
        found = processes(f"VBISECT_CACHE_DIR={self.vbisect.cache}\0".encode())
        return [p for p, line in found.items() if wanted in line and but not in line]

    def end(self, seconds: float = END_SECONDS) -> int | None:
        """Its exit code; ``None`` when it does not end."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # says where every thread is
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
            self.process.wait()
            code = None
        self.close_terminal()
        return code

    def told(self, name: str = "") -> str:
        """What it wrote to stdout, or to stderr with ``".err"``."""
        path = self.output.with_suffix(name) if name else self.output
        return path.read_text(errors="replace") if path.exists() else ""

    def _read(self) -> None:
        assert self._master is not None
        with self.output.with_suffix(".err").open("wb") as kept:
            while not self._over.is_set():
                if select.select([self._master], [], [], 0.02)[0]:
                    try:
                        kept.write(os.read(self._master, 1 << 16))
                    except OSError:  # nobody has it open any more
                        self._over.wait()
        os.close(self._master)


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


# What happens to a run


def _kill(life: Life, _: random.Random) -> None:
    life.signal(signal.SIGKILL)


def _term(life: Life, _: random.Random) -> None:
    life.signal(signal.SIGTERM)


def _int(life: Life, _: random.Random) -> None:
    life.signal(signal.SIGINT, group=True)


def _int_twice(life: Life, dice: random.Random) -> None:
    life.signal(signal.SIGINT, group=True)
    time.sleep(dice.uniform(0, 0.3))
    life.signal(signal.SIGINT, group=True)


def _hup(life: Life, _: random.Random) -> None:
    life.close_terminal()


def _stop_cont(life: Life, dice: random.Random) -> None:
    life.signal(signal.SIGSTOP)
    time.sleep(dice.uniform(0.1, 1))
    life.signal(signal.SIGCONT)


def _stop_kill(life: Life, dice: random.Random) -> None:
    life.signal(signal.SIGSTOP)
    time.sleep(dice.uniform(0, 0.5))
    life.signal(signal.SIGKILL)


def _server(life: Life, dice: random.Random) -> None:
    _kill_one(life, dice, "bin/vllm serve")


def _guard(life: Life, dice: random.Random) -> None:
    _kill_one(life, dice, "guard.py")


def _uv(life: Life, dice: random.Random) -> None:
    _kill_one(life, dice, "bin/uv ")


def _guard_and_vbisect(life: Life, dice: random.Random) -> None:
    life.signal(signal.SIGSTOP)  # or it could tell somebody that its guard is gone
    for guard in life.below("guard.py"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(guard, signal.SIGKILL)
    life.signal(signal.SIGKILL)


def _disk(life: Life, dice: random.Random) -> None:
    """Nothing but a few bytes is left, until vbisect has ended."""
    ballast = life.vbisect.results.parent / "ballast"
    with ballast.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
        while True:
            handle.write(bytes(4096))
    with contextlib.suppress(OSError):
        os.truncate(ballast, max(ballast.stat().st_size - dice.randrange(1 << 16), 0))
    wait(lambda: life.process.poll() is not None, END_SECONDS)
    ballast.unlink()


def _clean(life: Life, _: random.Random) -> None:
    done = life.vbisect("clean", timeout=END_SECONDS)
    if done.returncode:
        raise Fault("wrong", f"clean ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def _two(life: Life, dice: random.Random) -> None:
    """Another vbisect resumes the same run, or asks the same beside it."""
    run_dir = _run_dir(life.vbisect)
    if run_dir is not None and dice.random() < 0.7:
        second = life.vbisect.resume(run_dir, timeout=END_SECONDS)
        at_work = second.returncode == 2 and "Another vbisect is at work" in second.stderr
        if not at_work and not (second.returncode == 0 and _finished(run_dir)):
            said = second.stderr.strip()[-300:]
            raise Fault("wrong", f"the second ended with {second.returncode}: {said}")
        return
    results = life.vbisect.results.with_name(f"{life.vbisect.results.name}-beside")
    second = life.vbisect("run", *QUESTION, *OPTIONS, "--json", "--results", results)
    if second.returncode:
        said = second.stderr.strip()[-300:]
        raise Fault("wrong", f"the one beside ended with {second.returncode}: {said}")


def _kill_one(life: Life, dice: random.Random, wanted: str) -> None:
    """SIGKILL to one of these processes, once there is one."""
    while life.process.poll() is None:
        # the command line of a guard has that of its command in it
        if found := sorted(
            life.below(wanted, "-m vbisect" if wanted == "guard.py" else "guard.py")
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(found), signal.SIGKILL)
            return
        time.sleep(0.005)
    raise TooLate


class TooLate(Exception):
    """The run ended before there was anything to strike."""


@dataclass(frozen=True)
class Kind:
    """A way to strike.

    ``codes`` are those that vbisect then ends with, ``None`` where it goes on. A ``trace`` in the
    evidence may make it test a release again, or give up as for a fault of the host. With
    ``installs`` no environment is there before; ``orphans`` are ended by the next life only; one
    may die of the ``signal`` itself where nothing had begun. A run is struck ``most`` times: two
    crashes of a release are evidence, and could be the bug.
    """

    strike: Callable[[Life, random.Random], None]
    codes: tuple[int, ...] | None = None
    trace: bool = False
    installs: bool = False
    orphans: bool = False
    signal: int = 0
    most: int = 4
    words: tuple[str, ...] = ()


KINDS = {
    "kill": Kind(_kill, (-9,)),
    "term": Kind(_term, (130,), signal=signal.SIGTERM),
    "int": Kind(_int, (130,), signal=signal.SIGINT),
    "int-twice": Kind(_int_twice, (130, -signal.SIGINT), signal=signal.SIGINT),
    "hup": Kind(_hup, (130,), signal=signal.SIGHUP),
    "stop-cont": Kind(_stop_cont),
    "stop-kill": Kind(_stop_kill, (-9,)),
    "server": Kind(_server, trace=True, most=1),
    "guard": Kind(_guard, trace=True),
    "uv": Kind(_uv, trace=True, installs=True),
    "guard-and-vbisect": Kind(_guard_and_vbisect, (-9,), orphans=True),
    "disk": Kind(_disk, (4,)),
    "clean": Kind(_clean),
    "two": Kind(_two),
    "jobs": Kind(_kill, (-9,), words=("--jobs", "4")),
}
OPTIONS = ("--device", "cpu", "--fresh", "--jobs", "1")


_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Fault(Exception):
    """Something that must not be: one of ``FAULTS``, and what."""

    def __init__(self, sort: str, what: str) -> None:
        super().__init__(f"{sort}: {' '.join(_CONTROL.sub('', what).split())}")
        self.sort = sort


def _run_dir(vbisect: Vbisect) -> Path | None:
    """The directory of a run that can be resumed."""
    found = [p.parent for p in vbisect.results.glob("*/journal.jsonl") if _lines(p.parent)]
    return found[0] if found else None


def _lines(run_dir: Path) -> list[bytes]:
    """The whole lines of the journal."""
    try:
        return (run_dir / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    except OSError:
        return []


def _finished(run_dir: Path) -> bool:
    return any(b'"event": "run_finished"' in line for line in _lines(run_dir))


def answer_of(told: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same, struck or not."""
    answer = told["answer"] or {}
    names = ("change", "last_before", "first_after", "exact", "suspects")
    return {"status": told["status"], **{name: answer.get(name) for name in names}}


@dataclass
class Place:
    """Where one run after the other is: its cache, and room that can be filled."""

    folder: Path
    index: PackageIndex
    mounted: bool = False
    events: int = 0
    answer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the room, and see what an undisturbed run comes to."""
        self.room.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "vbisect-chaos", self.room]
        self.mounted = subprocess.run(mount, capture_output=True).returncode == 0
        vbisect = self.vbisect("undisturbed")
        done = vbisect.run(*QUESTION, timeout=END_SECONDS)
        self.answer, self.events = answer_of(done.json), len(_lines(done.run_dir))
        self.clear(vbisect)

    @property
    def room(self) -> Path:
        """The file system that results go to."""
        return self.folder / "room"

    def vbisect(self, name: str) -> Vbisect:
        """The command, with results of their own."""
        made = Vbisect(self.index, self.folder, self.folder / "cache", self.room / name)
        shutil.rmtree(made.temporary)
        made.temporary = self.folder / f"temporary-{name}"
        made.temporary.mkdir()
        made.env |= {"TMPDIR": str(made.temporary), "PYTHONFAULTHANDLER": "1"}
        return made

    def clear(self, vbisect: Vbisect) -> None:
        """End what is left of a run, and remove its files."""
        vbisect.close()
        for path in self.room.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(vbisect.temporary, ignore_errors=True)

    def close(self) -> None:
        """Give the room back."""
        if self.mounted:
            subprocess.run(["umount", "-l", self.room], check=True)


class Run:
    """One run through all its lives."""

    def __init__(self, place: Place, name: str, seed: int) -> None:
        self.kind, self.name, self.strikes = KINDS[name], name, 0
        self._place, self._dice = place, random.Random(f"{seed}/{name}")
        self._vbisect = place.vbisect(f"run-{seed}")
        self._output = place.folder / "output"
        self._journal: list[bytes] = []
        self._ports: set[int] = set()

    def live(self) -> list[Fault]:
        """Start it, strike it, resume it, until it ends; what was found wrong."""
        faults: list[Fault] = []
        try:
            self._live()
        except Fault as fault:
            faults.append(fault)
        for check in (self._left, self._broken):
            try:
                check()
            except Fault as fault:
                faults.append(fault)
        self._place.clear(self._vbisect)
        return faults

    def _live(self) -> None:
        if self.kind.installs or self._dice.random() < 0.3:
            shutil.rmtree(self._vbisect.cache / "environments", ignore_errors=True)
        wanted = self._dice.randint(1, self.kind.most)
        for _ in range(MOST_LIVES):
            run_dir = _run_dir(self._vbisect)
            words = ["--resume", str(run_dir)] if run_dir else self._first()
            hup = self.name == "hup" and self.strikes < wanted
            life = Life(self._vbisect, words, self._output, terminal=hup)
            struck = False
            while self.strikes < wanted and self._strike(life):
                struck = True
                if self.kind.codes is not None:
                    break
            code = life.end()
            self._ended(life, code, struck)
            if code == 0 and not hup:
                self._right(json.loads(life.told()))
                return
        raise Fault("wrong", f"no end after {MOST_LIVES} resumptions")

    def _first(self) -> list[str]:
        return [*QUESTION, *OPTIONS, *self.kind.words, "--results", str(self._vbisect.results)]

    def _strike(self, life: Life) -> bool:
        """Wait for the moment and strike; whether it came to that."""
        run_dir = _run_dir(self._vbisect)
        there = len(_lines(run_dir)) if run_dir else 0
        least = there if there < self._place.events else 0
        event = least if self.kind.installs else self._dice.randrange(least, self._place.events)
        later = self._dice.uniform(0, 0.5)

        def reached() -> bool:
            found = _run_dir(self._vbisect)
            return life.process.poll() is not None or len(_lines(found) if found else ()) >= event

        if not wait(reached, END_SECONDS):
            return False
        time.sleep(later)
        if life.process.poll() is not None:
            return False
        lines = processes(f"VBISECT_CACHE_DIR={self._vbisect.cache}\0".encode()).values()
        self._ports |= {int(port) for line in lines for port in re.findall(r"--port (\d+)", line)}
        try:
            self.kind.strike(life, self._dice)
        except TooLate:
            return False
        self.strikes += 1
        return True

    def _ended(self, life: Life, code: int | None, struck: bool) -> None:
        said = life.told(".err")
        if code is None:
            raise Fault("wrong", f"it did not end within {END_SECONDS:g} s: {said[-3000:]}")
        allowed = {0, *(self.kind.codes or ((4,) if self.kind.trace else ()))} if struck else {0}
        run_dir = _run_dir(self._vbisect)
        if struck and self.kind.signal and (run_dir is None or _finished(run_dir)):
            allowed.add(-self.kind.signal)  # there was nothing to lose
        if struck and self.kind.signal and "vbisect" not in said:
            allowed |= {-self.kind.signal, 1}  # Python itself was starting
        if code not in allowed:
            raise Fault("wrong", f"exit code {code}: {said[-500:]} {life.told()[-300:]}")
        if "vbisect" in said and ("Traceback" in said or "unexpected" in said):
            raise Fault("wrong", f"an unexpected error: {said[-500:]}")
        if run_dir is not None:
            told = code == 0 or (code == 130 and not _finished(run_dir))
            told &= self.name != "int-twice" and "reports cannot be written" not in said
            if told and not (run_dir / "report.md").exists():
                raise Fault("wrong", f"no report after exit code {code}: {said[-300:]}")
            self._kept(_lines(run_dir))
        if not self.kind.orphans and not wait(lambda: not life.below(), GONE_SECONDS):
            raise Fault("left", f"after exit code {code}: {self._lines_of(life.below())}")

    def _kept(self, lines: list[bytes]) -> None:
        """Nothing of the journal is lost, and nothing in it is there twice."""
        if lines[: len(self._journal)] != self._journal:
            raise Fault("lost", f"{len(self._journal)} lines became {len(lines)} others")
        self._journal = lines
        done: set[str] = set()
        for event in map(json.loads, lines):
            if event["event"] == "trial_finished" and event["record"]["outcome"] != "skip":
                done.add(event["record"]["version"])
            elif (
                event["event"] == "trial_started"
                and event["version"] in done
                and not self.kind.trace
            ):
                raise Fault("lost", f"{event['version']} is tested twice")
        for line, times in Counter(lines).items():
            if times > 1:
                raise Fault("lost", f"{times} times in the journal: {line[:200]!r}")

    def _right(self, told: dict[str, Any]) -> None:
        got = answer_of(told)
        if got != self._place.answer:
            trials = {
                t["version"]: (t["outcome"], t["reason"], t["detail"]) for t in told["trials"]
            }
            raise Fault("wrong", f"{got} instead of {self._place.answer}; {trials}")

    def _left(self) -> None:
        wait(lambda: not self._vbisect.left(), GONE_SECONDS)
        if left := self._vbisect.left():
            raise Fault("left", f"processes {left}")
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port in self._ports:
                line = self._lines_of([connection.pid] if connection.pid else [])
                if not line or str(self._vbisect.cache) in line[0]:
                    raise Fault("left", f"port {connection.laddr.port} of {line or 'nobody'}")
        parts = [*self._vbisect.results.rglob("*.part"), *self._vbisect.temporary.iterdir()]
        if parts:
            raise Fault("left", f"{[str(path.relative_to(self._place.folder)) for path in parts]}")
        if states := [*(self._place.folder / "state").rglob("*.log")]:
            told = states[0].read_text()[-1000:]
            shutil.rmtree(self._place.folder / "state")
            raise Fault("wrong", f"an unexpected error was logged: {told}")

    def _broken(self) -> None:
        for marker in self._vbisect.cache.glob("environments/*/vbisect-environment.json"):
            wanted = json.loads(marker.read_text())["wheel"]["version"]
            python = marker.parent / "bin" / "python"
            code = "import vllm; print(vllm.__version__)"
            asked = subprocess.run([python, "-c", code], capture_output=True, text=True)
            if asked.stdout.strip() != wanted:
                shutil.rmtree(marker.parent)
                raise Fault("broken", f"{marker.parent.name}: {asked.stderr.strip()[-200:]}")

    @staticmethod
    def _lines_of(pids: list[int]) -> list[str]:
        found = []
        for pid in pids:
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                found.append(line.decode(errors="replace")[:150])
        return found


def campaign(
    folder: Path,
    *,
    strikes: int,
    seed: int,
    only: str | None = None,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> dict[str, int]:
    """Runs until so many ``strikes`` were made; the counts of ``FAULTS``."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
    seeds, lock = itertools.count(seed), threading.Lock()
    kinds = [only] if only else list(KINDS)

    def made() -> int:
        return sum(count["strikes"] for count in counts.values())

    def work(place: Place) -> None:
        while True:
            with lock:
                if made() >= strikes:
                    return
                number = next(seeds)
            name = kinds[number % len(kinds)]
            if name == "disk" and not place.mounted:
                continue
            run = Run(place, name, number)
            faults = run.live()
            with lock:
                counts[name].update(runs=1, strikes=run.strikes)
                counts[name].update(fault.sort for fault in faults)
                for fault in faults:
                    say(f"--seed {number} --only {name} --strikes 1: {fault}")

    with PackageIndex(world(folder / "wheels", RELEASES)) as index:
        places: list[Place] = []
        try:
            for number in range(workers):
                places.append(Place(folder / str(number), index))
            if only == "disk" and not places[0].mounted:
                raise SystemExit("a disk can be filled only where a file system can be mounted")
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(work, places))
        finally:
            for place in places:
                place.close()
    for name, count in counts.items():
        if count["runs"]:
            say(f"{name:18}" + "".join(f"{count[n]:5} {n}" for n in ("runs", "strikes", *FAULTS)))
    return {n: sum(count[n] for count in counts.values()) for n in ("runs", "strikes", *FAULTS)}


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for all of it."""
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def main() -> int:
    """Strike and count; 1 when there was a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--strikes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with scratch() as folder:
        counted = campaign(folder, say=lambda line: print(line, flush=True), **vars(asked))
    print(json.dumps(counted))
    return 1 if any(counted[name] for name in FAULTS) else 0


if __name__ == "__main__":
    sys.exit(main())
