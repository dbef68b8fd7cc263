"""The pip of this interpreter, which the kernel ends together with whoever runs it."""

from __future__ import annotations

import os
import sys

_RUN = """
import ctypes, os, runpy, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv.pop(1)):
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


def pip_command(*arguments: str) -> list[str]:
    """The command line of ``pip ARGUMENTS``, for the thread that calls this to wait for."""
    # -P: modules are not looked for in the current directory, which may be anybody's
    return [sys.executable, "-P", "-c", _RUN, str(os.getpid()), *arguments]
