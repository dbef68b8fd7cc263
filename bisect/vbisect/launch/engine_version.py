"""Which of vLLM's two engines runs, V0 or V1: what a release has, is told, and says in its log.

0.7.3 runs V0 unless told otherwise, 0.8 to 0.10 V1 unless the hardware or an argument needs V0, to
which they fall back with no more than a line of log; 0.11.0 has V0 no more, and 0.11.1 does not
know VLLM_USE_V1 (vllm/envs.py and EngineArgs in vllm/engine/arg_utils.py of these releases).
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from packaging.version import Version

from vbisect.launch.log_lines import LogLines
from vbisect.text import one_line

V0, V1 = "V0", "V1"
VARIABLE = "VLLM_USE_V1"

_V1_SINCE, _V1_ALONE_SINCE = (0, 7, 3), (0, 11)
_V1_BY_DEFAULT_SINCE = (0, 8)

_STARTS = re.compile(r"Initializing a (V\d) LLM engine \(v")
"""So from 0.7.3 to 0.32.0: ``v1/engine/core.py`` and ``engine/llm_engine.py`` of vLLM."""

_FALLS_BACK = "Falling back to V0"
_LONGEST_REASON = 250


class EngineAsked(StrEnum):
    """What ``--engine`` takes."""

    AUTO = "auto"
    V0 = "v0"
    V1 = "v1"
    BOTH = "both"

    @property
    def only(self) -> str | None:
        """The one engine that is asked for."""
        return {EngineAsked.V0: V0, EngineAsked.V1: V1}.get(self)


def engines_of(version: str) -> tuple[str, ...]:
    """The engines that ``version`` has; builds between releases count as the next one."""
    release = Version(version).release
    if release >= _V1_ALONE_SINCE:
        return (V1,)
    return (V0, V1) if release >= _V1_SINCE else (V0,)


def usual_engine(version: str) -> str:
    """The engine that ``version`` runs unless it is told otherwise, or has to fall back."""
    return V1 if Version(version).release >= _V1_BY_DEFAULT_SINCE else V0


def to_be_told(engine: str | None, version: str) -> str | None:
    """``engine`` where ``version`` does not run it in any case."""
    return engine if engine is not None and engines_of(version) != (engine,) else None


def variables_for(engine: str | None, version: str) -> dict[str, str]:
    """The environment variables that make ``version`` run ``engine``, one that it has."""
    told = to_be_told(engine, version)
    return {VARIABLE: "1" if told == V1 else "0"} if told else {}


def has_fallen_back(engine: str | None, version: str) -> bool:
    """Whether ``engine``, which ran without any having been asked for, is not the usual one."""
    return engine == V0 and usual_engine(version) == V1


def engine_version(log: Path, since: int = 0) -> str | None:
    """The engine that was started last from byte ``since`` of the log on, if it says so."""
    engine = None
    for line in LogLines(log, since).new():
        if started := _STARTS.search(line):
            engine = started[1]
    return engine


def why_fallen_back(log: Path, since: int = 0) -> str | None:
    """Why V0 runs instead of V1, in the words of the log from byte ``since`` on."""
    for line in LogLines(log, since).new():
        before, falls_back, _ = line.partition(_FALLS_BACK)
        if falls_back:
            return one_line(before[-_LONGEST_REASON:] + falls_back)
    return None
