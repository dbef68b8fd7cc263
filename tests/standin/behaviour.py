"""How one stand-in release behaves; the wheel carries this module and its values as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .quirks import QUIRKS

ENDPOINTS = ("chat", "completions", "generate")

# What can be wrong with a release, beyond too few choices; "none" is a healthy server.
FAULTS = (
    "none",
    # never ready
    "exit_before_ready",  # logs `fault_log`, exits with `fault_exit`
    "hang",  # logs nothing, never listens
    "chatty_hang",  # logs a line every 0.2 s, never listens
    "port_never_opened",  # logs a complete start, never listens
    "unhealthy",  # listens, /health stays 503
    "oom_before_ready",  # takes memory until the kernel kills it, or 1.5 GiB and `fault_exit`
    "crowded",  # beside another server of the same vbisect: `fault_log` and `fault_exit`
    # ready, then not
    "crash_on_request",  # dies on the first generation request; `fault_exit` below 0: by a signal
    "oom_on_request",  # as oom_before_ready, on the first generation request
    "ready_then_exit",  # exits `exit_after_seconds` after its first healthy answer
    # ready, answers wrongly
    "wrong_version",  # /version names another release
    "http_500",
    "slow_request",  # every generation takes at least 5 s, or `request_seconds`
    "not_json",
    "too_many_choices",
    "duplicate_index",
    "wrong_indices",  # 1..n instead of 0..n-1
    "missing_finish_reason",
    "cut_stream",  # a stream, or a body, ends half way
    # ends badly
    "stubborn",  # ignores SIGTERM and SIGINT, in the engine process too
)

LOG_STYLES = ("process", "bracket", "plain")


@dataclass(frozen=True)
class Behaviour:
    """Everything that can differ between two stand-in releases; the defaults are a healthy one."""

    fail_rate: Mapping[str, float] = field(default_factory=dict)
    """Per endpoint: probability that a request gets fewer than n choices. At 1.0 it gets one."""
    kept_choices: int | None = None
    """How many choices a failing request keeps; None: one at rate 1.0, else 1..n-1 at random."""
    seed: int = 0
    served: tuple[str, ...] = ENDPOINTS
    scale_out: str | None = None
    """"404" or "403": generate answers so without --enable-scale-out; None: no such argument."""

    loads_weights: bool = False
    """Load a hub's model as vLLM does: by huggingface_hub, from its cache, downloaded silently."""
    boot_seconds: float = 0.0
    request_seconds: float = 0.0
    fault: str = "none"
    fault_log: str = ""
    fault_exit: int = 1
    exit_after_seconds: float = 0.3

    stream_error: tuple[str, ...] = ()
    """Endpoints whose streams for n > 1 break off with an error event, under HTTP 200."""
    quirks: Mapping[str, str] = field(default_factory=dict)
    """Per kind of request (see quirks.py): "500" or "400" for that answer, "crash" to die of it,
    "answered" to answer what is refused else, "fewer" to keep one choice, "bare": no logprobs."""
    reported_version: str | None = None
    default_temperature: float = 1.0
    """The temperature of a request that names none: the model's own generation_config."""
    output_mode: bool = False
    """generate answers with output_mode, stop_reason and weight_versions, as since 0.32.0."""
    flat_errors: bool = False
    """Errors as vLLM wrote them before {"error": {...}}: the fields at the top level."""

    leaks: str = ""
    """Text in the log and in every JSON answer, as a careless server leaks a secret."""

    spawn_engine: bool = False
    """Start an EngineCore process in the same process group, as vLLM does."""
    engine_own_session: bool = False
    """The EngineCore process leaves the process group (setsid)."""
    v0_engine: bool = False
    """The log names the V0 engine unless VLLM_USE_V1=1, as before 0.8.0."""
    names_engine: bool = True
    """The log has the line that names it; not so where only warnings are logged."""
    v1_only: bool = False
    """There is no V0 any more, whatever VLLM_USE_V1 says, as since 0.11.0."""
    ignores_n: tuple[str, ...] = ()
    """The engines that give one choice whatever n is: V1 in 0.7.3."""
    not_in_v1: str = ""
    """What V1 cannot do: it falls back to V0 with a line of log, or dies where V1 was asked for."""
    falls_back_though_asked: bool = False
    """It falls back where V1 was asked for, too."""
    needs_cpu_metadata: bool = False
    """Refuse to start unless `vllm` is installed as a version that contains "cpu"."""

    compiles: bool = False
    """Compile what samples at the first request, with $CXX or g++, unless Dynamo is off."""

    asks_hub: bool = False
    """Refuse to start without the model at HF_ENDPOINT, unless it is a folder."""

    honours_host: bool = False
    """Listen where --host says, as inside a container; else on 127.0.0.1 whatever it says."""

    by_model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What is otherwise while a model is served under this name, as `{"tiny-qwen2": {…}}`."""

    removed_arguments: tuple[str, ...] = ()
    known_arguments: tuple[str, ...] = ()
    request_logging_default: bool = False
    logs_prompt: bool = False
    """The request log holds the prompt too, as through 0.11.0."""
    logged_prompt: str = ""
    """What the log has as the prompt, whatever was sent."""
    logged_n: int | None = None
    """What the log has as n, whatever was sent; 0: no line with parameters at all."""
    log_style: str = "process"
    max_seconds: float = 120.0
    """Server and engine end themselves after this long, so that no failed test leaves one."""

    def __post_init__(self) -> None:
        """Refuse what the server would silently ignore."""
        if self.fault not in FAULTS:
            raise ValueError(f"unknown fault {self.fault!r}; known: {', '.join(FAULTS)}")
        if self.scale_out not in (None, "404", "403"):
            raise ValueError(f"scale_out must be None, '404' or '403', got {self.scale_out!r}")
        if self.log_style not in LOG_STYLES:
            raise ValueError(f"unknown log style {self.log_style!r}")
        if unknown := set(self.quirks.values()) - set(QUIRKS):
            raise ValueError(f"unknown quirks {sorted(unknown)}")
        if unknown := {*self.fail_rate, *self.served, *self.stream_error} - set(ENDPOINTS):
            raise ValueError(f"unknown endpoints {sorted(unknown)}")

    def serving(self, names: Sequence[str]) -> Behaviour:
        """The behaviour of a server that serves a model under `names`."""
        changes = [self.by_model[name] for name in names if name in self.by_model]
        return replace(self, **{k: v for change in changes for k, v in change.items()})

    def dumps(self, version: str) -> str:
        """The text of behaviour.json for a release of this version."""
        return json.dumps({"version": version, **asdict(self)}, indent=1, sort_keys=True)


def load(path: Path) -> tuple[str, Behaviour]:
    """The version and the behaviour that `Behaviour.dumps` wrote to `path`."""
    values: dict[str, Any] = json.loads(path.read_text())
    version = str(values.pop("version"))
    for name in ("served", "stream_error", "removed_arguments", "known_arguments", "ignores_n"):
        values[name] = tuple(values[name])
    return version, Behaviour(**values)
