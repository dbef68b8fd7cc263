"""Ctrl-C, SIGTERM and SIGHUP end a command at once, and none of them gets lost.

Python raises the interrupt in the main thread, wherever that is. Two things can keep it from there:
in a ``__del__`` or a weakref callback the exception is printed and forgotten
(https://docs.python.org/3/library/sys.html#sys.unraisablehook), and a signal that the kernel hands
to another thread does not end a wait of the main thread
(https://docs.python.org/3/library/signal.html#signals-and-threads). A thread watches for both.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import CodeType, FrameType
from typing import Any

from vbisect.errors import Interrupted

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_NUDGE = signal.SIGURG
"""Ends a system call of the main thread, so that it looks for signals; ignored by default."""

_NUDGES, _NUDGE_SECONDS = 5, 0.05
"""The main thread may just be about to begin its wait: one nudge can come too early."""

_AGAIN = 0
"""Written in place of a signal's number, of which there is no 0: an interrupt was lost."""


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Signals that end a program raise ``KeyboardInterrupt`` in the block, as Ctrl-C does.

    Those that were ignored before (``nohup``) still are, and a second SIGHUP always is. Outside of
    the block an interrupt is ``Interrupted``. To be used in the main thread.
    """
    with _Watch() as watch:
        numbers = [n for n in _NUMBERS if signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, watch.interrupt) for number in numbers}
        try:
            yield
        except KeyboardInterrupt:
            # typer would end without a word
            raise Interrupted("interrupted") from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Watch:
    """The thread that brings to the main thread what did not arrive there."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._main = threading.main_thread().ident or 0
        self._thread = threading.Thread(target=self._watch, name="watch signals", daemon=True)
        self._hook: Callable[[Any], Any] = sys.unraisablehook

    def __enter__(self) -> _Watch:
        self._old_nudge = signal.signal(_NUDGE, _do_nothing)
        self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        sys.unraisablehook = self._hook
        signal.set_wakeup_fd(self._old_fd)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)
        signal.signal(_NUDGE, self._old_nudge)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: interrupt the main thread, now or once it can be."""
        if number == signal.SIGHUP:  # of a terminal that closes, shell and kernel tell one each
            signal.signal(number, signal.SIG_IGN)
        if _is_within(frame, _Watch._unraisable.__code__):
            self._say_again()  # raised in there, it would be lost once more
            return
        raise KeyboardInterrupt

    def _unraisable(self, told: Any) -> None:
        """An interrupt that was raised where it cannot go on is raised again."""
        if told.exc_type is not None and issubclass(told.exc_type, KeyboardInterrupt):
            self._say_again()
        else:
            self._hook(told)

    def _say_again(self) -> None:
        with suppress(OSError):  # a full pipe says enough
            os.write(self._write, bytes([_AGAIN]))

    def _watch(self) -> None:
        while said := os.read(self._read, 1024):
            if _AGAIN in said:
                signal.pthread_kill(self._main, signal.SIGINT)
            elif set(said) != {_NUDGE}:
                self._nudge()

    def _nudge(self) -> None:
        """Have the main thread see a signal that it, or any other thread, was handed."""
        over = threading.Event()
        for _ in range(_NUDGES):
            signal.pthread_kill(self._main, _NUDGE)
            over.wait(_NUDGE_SECONDS)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Even so a signal with a handler ends system calls."""


def _is_within(frame: FrameType | None, code: CodeType) -> bool:
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False
