"""Which of vLLM's two engines runs: V0 or V1, as the server's log says.

0.7.3 runs V0 unless told otherwise, 0.8 to 0.10 fall back to it silently for some hardware and
arguments, and 0.11.0 has it no more.
"""

from __future__ import annotations

import re
from pathlib import Path

from vbisect.launch.log_lines import LogLines

_STARTS = re.compile(r"Initializing a (V\d) LLM engine \(v")
"""So from 0.7.3 to 0.32.0: ``v1/engine/core.py`` and ``engine/llm_engine.py`` of vLLM."""


def engine_version(log: Path, since: int = 0) -> str | None:
    """The engine that was started last from byte ``since`` of the log on, if it says so."""
    engine = None
    for line in LogLines(log, since).new():
        if started := _STARTS.search(line):
            engine = started[1]
    return engine
