"""The stand-in server: `vllm serve`, on the standard library alone.

The wheels carry this file as `vllm/standin_server.py`, with `behaviour.json` beside it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from .arguments import parse
from .behaviour import Behaviour, load
from .log import Log
from .web import NO_LIMIT, PATHS, Server, exhaust_memory

READS = ("/health", "/ping", "/version", "/v1/models")
START_FAILED = "RuntimeError: Engine core initialization failed. See root cause above."

MODULE = "vllm-model_executor-models-qwen2"
WEIGHTS = "*.safetensors"

# Sleeps until its own deadline: nothing but a signal to it, or to its group, ends it sooner.
ENGINE = (
    "import signal, sys, time\n"
    "if sys.argv[2] == 'stubborn': signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "time.sleep(float(sys.argv[1]))"
)


def another_server() -> bool:
    """Whether another `vllm serve` with this one's cache directory runs on this machine."""
    mark = f"VBISECT_CACHE_DIR={os.environ.get('VBISECT_CACHE_DIR')}\0".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            served = len(words) > 2 and words[1].endswith(b"/vllm") and words[2] == b"serve"
            other = served and int(entry.name) != os.getpid()
            if other and mark in (entry / "environ").read_bytes():
                return True
        except OSError:
            continue
    return False


class Process:
    """The process around the server: start, faults of the start, signals, end."""

    def __init__(self, args: Any, version: str, behaviour: Behaviour) -> None:
        self.args, self.version, self.behaviour = args, version, behaviour
        self.log = Log(behaviour.log_style)
        self.stop = threading.Event()
        self.engine: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Serve until told to stop; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            stubborn = self.behaviour.fault == "stubborn"
            signal.signal(number, signal.SIG_IGN if stubborn else lambda *_: self.stop.set())
        watchdog = threading.Timer(self.behaviour.max_seconds, os._exit, [99])
        watchdog.daemon = True
        watchdog.start()
        try:
            return self._run()
        finally:
            if self.engine is not None:
                self.engine.kill()
                self.engine.wait()

    def _run(self) -> int:
        fault, log = self.behaviour.fault, self.log
        if fault == "hang":
            self.stop.wait()
            return 0
        log.info("utils.py:272", f"vLLM API server version {self.version}")
        given = {name: value for name, value in vars(self.args).items() if value}
        log.info("utils.py:286", f"non-default args: {given}")
        if self.behaviour.leaks:
            log.info("utils.py:290", f"environment: {self.behaviour.leaks}")
        if refusal := self._refusal():
            log.error(refusal)
            return 1
        if self._v1_wanted() and (lacks := self.behaviour.not_in_v1):
            text = f"{lacks} is not supported by the V1 Engine. Falling back to V0. "
            log.info("arg_utils.py:1627", text)
        server = Server(self.args, self.version, self.behaviour, log)
        server.one_choice = self._engine_kind() in self.behaviour.ignores_n
        try:
            server.server_bind()
        except OSError as error:
            log.error(f"OSError: {error}")
            return 1
        self._inspect_model()
        self._start_engine()
        if self.behaviour.names_engine:
            log.info(
                "core.py:122",
                f"Initializing a {self._engine_kind()} LLM engine (v{self.version}) with config: "
                f"model='{self.args.model}', load_format={self.args.load_format}",
                self.engine.pid if self.engine else os.getpid(),
            )
        if self.behaviour.loads_weights and (problem := self._load()):
            log.error(problem)
            return 1
        while fault == "chatty_hang" and not self.stop.wait(0.2):
            log.info("utils.py:501", "Waiting for 1 local, 0 remote core engine proc(s) to start.")
        if self.stop.wait(self.behaviour.boot_seconds):
            return 0
        if fault == "exit_before_ready":
            log.error(self.behaviour.fault_log or START_FAILED)
            return self.behaviour.fault_exit
        if fault == "oom_before_ready":
            exhaust_memory()
            log.error(self.behaviour.fault_log or NO_LIMIT)
            return self.behaviour.fault_exit
        if fault == "crowded" and self._crowded():
            log.error(self.behaviour.fault_log)
            if self.behaviour.fault_exit < 0:
                os.kill(os.getpid(), -self.behaviour.fault_exit)
            return self.behaviour.fault_exit
        self._serve(server)
        if fault == "ready_then_exit":
            # Counted from the first healthy answer: a loaded machine must not miss the ready phase.
            while not server.seen_ready.wait(0.05) and not self.stop.is_set():
                pass
            if not self.stop.wait(self.behaviour.exit_after_seconds):
                log.error(
                    self.behaviour.fault_log or "RuntimeError: Engine core died unexpectedly."
                )
                return self.behaviour.fault_exit
        self.stop.wait()
        for text in ("Shutting down", "Application shutdown complete."):
            log.uvicorn(text, sys.stderr)
        return 0

    def _crowded(self) -> bool:
        """Whether there is another server; at its first boot it waits for one to come.

        That it has booted is noted beside its own code.
        """
        noted = Path(__file__).with_name("crowded")
        first = not noted.exists()
        noted.touch()
        while not (found := another_server()) and first and not self.stop.wait(0.05):
            pass
        return found

    def _refusal(self) -> str:
        """Why this installation or this model cannot be served; empty when it can."""
        if self.behaviour.needs_cpu_metadata:
            from importlib import metadata  # only here: it costs 30 ms

            try:
                installed = metadata.version("vllm")
            except metadata.PackageNotFoundError:
                installed = ""
            if "cpu" not in installed:
                return "RuntimeError: Failed to infer device type, please set the environment..."
        lacks, forced = self.behaviour.not_in_v1, os.environ.get("VLLM_USE_V1") == "1"
        if lacks and forced and not self.behaviour.falls_back_though_asked:
            return f"NotImplementedError: VLLM_USE_V1=1 is not supported with {lacks}."
        model = self.args.model
        if model.startswith(("/", ".")) and not Path(model).is_dir():
            return f"OSError: {model} is not a local folder and is not a valid model identifier"
        if self.behaviour.asks_hub and not os.environ.get("HF_HUB_OFFLINE"):
            from .hub_client import refusal  # only here: it costs 30 ms

            return refusal(model)
        return ""

    def _inspect_model(self) -> None:
        """Note what the model's class is like where the cache is named, as vLLM does since 0.11."""
        if root := os.environ.get("VLLM_CACHE_ROOT"):
            note = Path(root, "modelinfos", f"{MODULE}-Qwen2ForCausalLM.json")
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps({"hash": "of the module", "modelinfo": {}}))

    def _load(self) -> str:
        """Have the weights, downloaded without a word where they are not there; what is wrong."""
        if self.args.load_format == "dummy" or Path(self.args.model).is_dir():
            return ""
        problems: list[str] = []
        loading = threading.Thread(target=self._download, args=[problems], daemon=True)
        loading.start()
        while loading.is_alive() and not self.stop.wait(0.02):
            pass
        return "".join(problems)

    def _download(self, problems: list[str]) -> None:
        from huggingface_hub import snapshot_download

        try:
            folder = snapshot_download(
                self.args.model, revision=self.args.revision, allow_patterns=["*.json", WEIGHTS]
            )
            if not sum(file.stat().st_size for file in Path(folder).glob(WEIGHTS)):
                problems.append("RuntimeError: Cannot find any model weights")
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")

    def _engine_kind(self) -> str:
        """As EngineArgs._is_v1_supported_oracle of 0.8 decides."""
        if self.behaviour.v1_only:
            return "V1"
        return "V1" if self._v1_wanted() and not self.behaviour.not_in_v1 else "V0"

    def _v1_wanted(self) -> bool:
        return os.environ.get("VLLM_USE_V1", "0" if self.behaviour.v0_engine else "1") == "1"

    def _start_engine(self) -> None:
        behaviour = self.behaviour
        if behaviour.spawn_engine:
            arguments = (behaviour.max_seconds, behaviour.fault)
            self.engine = subprocess.Popen(
                [sys.executable, "-S", "-c", ENGINE, *map(str, arguments), "VLLM::EngineCore"],
                start_new_session=behaviour.engine_own_session,
            )

    def _serve(self, server: Server) -> None:
        log = self.log
        log.info("api_server.py:657", f"Starting vLLM server on http://{self._address(server)}")
        hidden = self.behaviour.scale_out == "404" and not self.args.enable_scale_out
        for path, endpoint in [*((path, "") for path in READS), *PATHS.items()]:
            if endpoint not in ("", *self.behaviour.served) or (endpoint == "generate" and hidden):
                continue
            methods = "POST" if endpoint else "GET"
            log.info("launcher.py:60", f"Route: {path}, Methods: {methods}")
        if self.behaviour.fault != "port_never_opened":
            server.server_activate()
            threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        log.uvicorn(f"Started server process [{os.getpid()}]", sys.stderr)
        log.uvicorn("Waiting for application startup.", sys.stderr)
        log.uvicorn("Application startup complete.", sys.stderr)

    def _address(self, server: Server) -> str:
        return f"{self.args.host or '0.0.0.0'}:{server.server_port}"


def main(argv: list[str] | None = None) -> None:
    """The console script `vllm`; never returns."""
    version, behaviour = load(Path(__file__).with_name("behaviour.json"))
    args = parse(sys.argv[1:] if argv is None else argv, version, behaviour)
    behaviour = behaviour.serving(args.served_model_name or [args.model])
    code = Process(args, version, behaviour).run()
    sys.stdout.flush()
    sys.stderr.flush()
    # Request threads may still write; a normal exit could then abort on a held stream lock.
    os._exit(code)


def api_server() -> None:
    """`python -m vllm.entrypoints.openai.api_server`: the same server without a subcommand."""
    main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()
