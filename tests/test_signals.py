"""No interrupt is lost, wherever the main thread is and whoever was handed the signal."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from standin.running import wait
from vbisect.commands.signals import signals_as_interrupt
from vbisect.errors import Interrupted

LONG = 120.0
"""Seconds after which a wait that nobody interrupts fails its test."""

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def the_same_after() -> Iterator[None]:
    """Whatever a test does, signals are handled as before, and no thread stays."""
    numbers = [*NUMBERS, signal.SIGURG]
    before = [signal.getsignal(number) for number in numbers]
    hook, threads = sys.unraisablehook, threading.active_count()
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    assert sys.unraisablehook is hook
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1


class Dying:
    """A signal arrives while Python ends the object's life."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.own: Dying | None = self  # only the collector ends it

    def __del__(self) -> None:
        signal.raise_signal(self.number)


def interrupted(action: Callable[[], object]) -> None:
    """``action`` under signals as interrupts: it raises, or a long sleep after it is ended."""
    with signals_as_interrupt():
        action()
        time.sleep(LONG)
    pytest.fail("the interrupt was lost")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_interrupts(number: int) -> None:
    """As Ctrl-C does."""
    with pytest.raises(Interrupted):
        interrupted(lambda: signal.raise_signal(number))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_while_garbage_is_collected(number: int) -> None:
    """The exception is lost in there, and comes again where it can go on."""

    def collect() -> None:
        Dying(number)
        gc.collect()

    with pytest.raises(Interrupted):
        interrupted(collect)


def test_a_signal_in_a_weakref_callback() -> None:
    """Lost there as well."""
    kept = []

    def drop() -> None:
        thing = Dying(signal.SIGURG)  # which interrupts nothing
        thing.own = None
        kept.append(weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT)))

    with pytest.raises(Interrupted):
        interrupted(drop)


def test_a_signal_while_a_lost_one_is_seen_to() -> None:
    """Raised right there, it would be lost for good."""
    returned = []

    class Told:
        @property
        def exc_type(self) -> type[BaseException]:
            signal.raise_signal(signal.SIGINT)
            return KeyboardInterrupt

    def call() -> None:
        sys.unraisablehook(Told())  # type: ignore[arg-type]
        returned.append(True)

    with pytest.raises(Interrupted):
        interrupted(call)
    assert returned


def test_other_errors_of_destructors_are_told_as_before() -> None:
    """Only an interrupt is raised again."""
    told = []
    before, sys.unraisablehook = sys.unraisablehook, lambda seen: told.append(seen.exc_type)
    try:
        with signals_as_interrupt():
            Broken()
    finally:
        sys.unraisablehook = before
    assert told == [ZeroDivisionError]


class Broken:
    """Raises when it ends."""

    def __del__(self) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("what", ["lock", "socket", "process"])
def test_a_signal_that_another_thread_took(number: int, what: str) -> None:
    """It does not end the main thread's wait of itself."""
    main = threading.get_native_id()
    lock = threading.Lock()
    lock.acquire()
    ours, theirs = socket.socketpair()
    ours.settimeout(LONG)
    waits: dict[str, Callable[[], object]] = {
        "lock": lambda: lock.acquire(timeout=LONG),
        "socket": lambda: ours.recv(1),
        "process": lambda: subprocess.run(["sleep", str(LONG)], check=False),
    }

    def take() -> None:
        wait(lambda: _state(main) == "S", 30)
        signal.pthread_kill(threading.get_ident(), number)

    def begin() -> None:
        taker.start()
        waits[what]()

    taker = threading.Thread(target=take)
    with ours, theirs, pytest.raises(Interrupted):
        interrupted(begin)
    taker.join()


def _state(thread: int) -> str:
    """Whether a thread runs (R) or sleeps (S), as proc(5) has it."""
    stat = Path(f"/proc/self/task/{thread}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def test_what_is_ignored_stays_ignored() -> None:
    """As under ``nohup``, and in the background of a shell."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_as_interrupt():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("module", ["termios", "typer"])
@pytest.mark.parametrize("command", [("-m", "vbisect"), ("script",)], ids=["module", "script"])
def test_an_interrupt_while_vbisect_is_imported_is_no_traceback(
    command: tuple[str, ...], module: str, tmp_path: Path
) -> None:
    """It comes to whatever is imported then: to the first thing, and to the last."""
    (tmp_path / f"{module}.py").write_text("raise KeyboardInterrupt\n")
    script = [str(Path(sys.executable).with_name("vbisect"))]
    done = subprocess.run(
        [*(script if command == ("script",) else [sys.executable, *command]), "--version"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
