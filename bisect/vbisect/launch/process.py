"""Start one vLLM server as a process from an environment, and be sure it ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from vbisect.full_disk import with_room_in
from vbisect.launch.diagnosis import diagnose_exit
from vbisect.launch.hub_cache import hub_cache, not_while_downloading
from vbisect.launch.inherited import DECIDING, with_loopback_direct, with_whole_folders
from vbisect.launch.port import free_port, listens_on
from vbisect.launch.readiness import Ready, check_version, wait_until_ready
from vbisect.launch.server import Ended, LaunchSpec, Server
from vbisect.launch.signs import tree_counters
from vbisect.paths import cache_root
from vbisect.processes import OWNER_VARIABLE, Guarded, scratch_directory
from vbisect.reasons import SkipReason, Untestable
from vbisect.text import scrub_file

_GRACE_SECONDS = 15
_PORT_ATTEMPTS = 3
_NOT_INHERITED = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",  # without bytecode every boot takes twice as long
    "VIRTUAL_ENV",
    *DECIDING,  # those that were there as the run began come with the settings
)
"""How the names of variables begin that no server takes from the environment."""

CACHE = "cache"
"""The folder of an environment with what its servers keep; it goes with the environment."""


@contextmanager
def launch_process(
    spec: LaunchSpec, vllm: Path, built_version: str, given_up: threading.Event
) -> Iterator[Server]:
    """A ready server for the duration of the block; everything it started ends with the block.

    ``vllm`` is the command of an environment, ``built_version`` that of the wheel in it, which may
    be a rebuild. Raises ``Untestable`` with the diagnosis when it does not get ready, or is another
    version, ``HostError`` when nothing can be written, ``Cancelled`` when it is ``given_up``
    meanwhile.
    """
    with ExitStack() as stack:
        attempts = Retrying(
            retry=retry_if_exception_type(_PortRaceError),
            stop=stop_after_attempt(_PORT_ATTEMPTS),
            reraise=True,
        )
        try:
            server = attempts(
                lambda: stack.enter_context(_attempt(spec, vllm, built_version, given_up))
            )
        except _PortRaceError:
            raise Untestable(
                SkipReason.PORT_TAKEN, f"the server's port was taken {_PORT_ATTEMPTS} times"
            ) from None
        yield server


@contextmanager
def run_python(
    spec: LaunchSpec, vllm: Path, words: Sequence[str]
) -> Iterator[Callable[[], Ended | None]]:
    """A script by the Python beside ``vllm``, with the variables of its servers, for the block.

    ``words`` are what follows ``python -I``. What the block is given tells how it ended.
    """
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_directory())
        stack.callback(scrub_file, spec.log)
        process = stack.enter_context(
            Guarded(
                [str(vllm.with_name("python")), "-I", *words],
                log=spec.log,
                environment=_environment(spec, vllm, scratch),
                directory=scratch,
                grace=_GRACE_SECONDS,
            )
        )
        yield lambda: _ended(process.poll())


class _PortRaceError(Exception):
    """Somebody else took the port between choosing and binding it."""


@contextmanager
def _attempt(
    spec: LaunchSpec, vllm: Path, built_version: str, given_up: threading.Event
) -> Iterator[Server]:
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_directory())
        stack.callback(scrub_file, spec.log)  # once nothing writes there any more
        started = time.monotonic()
        earlier = spec.log.stat().st_size if spec.log.exists() else 0
        port = free_port()
        command = _command(spec, vllm, port)
        base_url = f"http://127.0.0.1:{port}"
        environment = _environment(spec, vllm, scratch)
        cache = Path(hub_cache(environment, str(Path.home())))
        with Guarded(
            command,
            log=spec.log,
            environment=environment,
            directory=scratch,  # Python imports from there, and the results may be anybody's
            grace=_GRACE_SECONDS,
        ) as process:
            # while what it wrote is still there
            with (
                with_room_in(spec.log.parent, scratch, cache_root()),
                not_while_downloading(spec.model, cache),
            ):
                ready = _wait(spec, base_url, port, process, given_up, earlier)
                check_version(ready.version, spec.version, built_version)
            yield Server(
                base_url=base_url,
                model=ready.model,
                reported_version=ready.version,
                command=tuple(command),
                boot_seconds=time.monotonic() - started,
                log_bytes=spec.log.stat().st_size,
                wait=lambda seconds: _ended(process.wait(seconds)),
            )


def _command(spec: LaunchSpec, vllm: Path, port: int) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(port)]
    return [str(vllm), "serve", str(Path(spec.model).expanduser()), *address, *spec.arguments]


def _ended(returncode: int | None) -> Ended | None:
    return None if returncode is None else Ended(returncode)


def _wait(
    spec: LaunchSpec,
    base_url: str,
    port: int,
    process: Guarded,
    given_up: threading.Event,
    earlier: int,
) -> Ready:
    """``earlier`` is the length of the log that earlier attempts left, in bytes."""
    try:
        ready = wait_until_ready(
            base_url,
            spec.log,
            lambda: _ended(process.poll()),
            lambda: tree_counters(process.guard_pid),
            spec.boot_timeout,
            given_up,
            earlier,
        )
    except Untestable as failed:
        if failed.reason is SkipReason.PORT_TAKEN:
            raise _PortRaceError from None
        raise
    except OSError as error:
        raise Untestable(SkipReason.EXITED_BEFORE_READY, str(error)) from None
    if not listens_on(port, process.guard_pid):
        code = process.wait(1)
        if code is not None:
            raise diagnose_exit(spec.log, Ended(code), earlier)
        raise _PortRaceError
    return ready


def _environment(spec: LaunchSpec, vllm: Path, scratch: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
    environment = with_loopback_direct(inherited)
    environment["PATH"] = f"{vllm.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    # vLLM leaves sockets in its temporary directory; what it found out and compiled is worth
    # keeping, for this build alone: vLLM knows what it cached by the files of models, not by its
    # own version (``_LazyRegisteredModel`` in model_executor/models/registry.py of 0.11 … 0.32)
    cache = vllm.parent.parent / CACHE
    environment["TMPDIR"] = str(scratch)
    environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    environment["VLLM_CACHE_ROOT"] = str(cache / "vllm")
    environment["VLLM_NO_USAGE_STATS"] = "1"
    environment["PYTHONUNBUFFERED"] = "1"
    if spec.gpus:
        # numbers mean what NVML and Docker mean by them only in the order of the PCI bus:
        # https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
        environment |= {
            "CUDA_VISIBLE_DEVICES": ",".join(spec.gpus),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
    environment.update(spec.environment)
    environment = with_whole_folders(environment)
    environment[OWNER_VARIABLE] = str(spec.owner.absolute())
    return environment
