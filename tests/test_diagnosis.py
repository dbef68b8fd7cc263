"""Failed starts read into a reason: real causes, consequences that hide them, hostile logs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vbisect.errors import HostError
from vbisect.launch import Ended
from vbisect.launch.diagnosis import diagnose_exit, known_cause, last_words, read_log
from vbisect.reasons import ADVICE, SkipReason

HEALTHY = Path(__file__).parent / "data" / "healthy-0.32.0.log"
R = SkipReason
LogMaker = Callable[[str | bytes], Path]

CAUSES = [
    (R.UNKNOWN_ARGUMENT, "main.py: error: unrecognized arguments: --enable-scale-out"),
    (R.UNKNOWN_ARGUMENT, "api_server.py: error: argument --task: invalid choice: 'x'"),
    (R.OUT_OF_MEMORY, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
    (R.OUT_OF_MEMORY, "ValueError: No available memory for the cache blocks. Try increasing"),
    (R.OUT_OF_MEMORY, "ValueError: Free memory on device (1.2/79.1 GiB) on startup is too low"),
    (
        R.OUT_OF_MEMORY,
        "ValueError: Available memory on node 0 (5.1/12.9 GiB) on startup is less than desired "
        "CPU memory utilization (0.92, 11.9 GiB).",
    ),
    (
        R.DRIVER_TOO_OLD,
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
    ),
    (
        R.DRIVER_TOO_OLD,
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.9, please update",
    ),
    (
        R.DRIVER_TOO_OLD,
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 804: forward "
        "compatibility was attempted on non supported HW",
    ),
    (
        R.GPU_NOT_SUPPORTED,
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
    ),
    # vllm/worker/worker.py of V0, vllm/v1/core/kv_cache_utils.py before and since 0.11
    (
        R.OUT_OF_MEMORY,
        "ValueError: The model's max seq len (30000) is larger than the maximum number of tokens "
        "that can be stored in KV cache (19632). Try increasing `gpu_memory_utilization` or",
    ),
    (
        R.OUT_OF_MEMORY,
        "ValueError: To serve at least one request with the models's max seq len (40960), (10.00 "
        "GiB KV cache is needed, which is larger than the available KV cache memory (1.25 GiB).",
    ),
    (
        R.OUT_OF_MEMORY,
        "ValueError: To serve at least one request with the model's max seq len (131072), 9.5 GiB "
        "KV cache is needed, which is larger than the available KV cache memory (6.91 GiB).",
    ),
    # vllm-project/vllm#31700, #28305
    (
        R.DRIVER_TOO_OLD,
        "torch.AcceleratorError: CUDA error: the provided PTX was compiled with an unsupported "
        "toolchain.",
    ),
    (
        R.DRIVER_TOO_OLD,
        "ptxas application ptx input, line 9; fatal : Unsupported .version 8.7; current version is "
        "'8.4'",
    ),
    # vllm-project/vllm#31338
    (R.GPU_NOT_SUPPORTED, "ptxas fatal : Value 'sm_121a' is not defined for option 'gpu-name'"),
    (
        R.GPU_NOT_SUPPORTED,
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. "
        "Your Tesla V100-PCIE-32GB GPU has compute capability 7.0. You can use float16 instead",
    ),
    (R.NO_DEVICE, "RuntimeError: Failed to infer device type, please set VLLM_LOGGING_LEVEL"),
    (
        R.MODEL_NOT_ACCESSIBLE,
        "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url",
    ),
    (R.MODEL_NOT_ACCESSIBLE, "huggingface_hub.errors.GatedRepoError: 403 Client Error."),
    (
        R.MODEL_NOT_ACCESSIBLE,
        "OSError: nonesuch/m is not a local folder and is not a valid model identifier listed on",
    ),
    (
        R.MODEL_NOT_ACCESSIBLE,
        "huggingface_hub.errors.HfHubHTTPError: 403 Forbidden: Please enable access to public "
        "gated repositories in your fine-grained token settings to view this repository.",
    ),
    (R.MODEL_NOT_ACCESSIBLE, "ValueError: No supported config format found in nonesuch/m"),
    (
        R.MODEL_NOT_ACCESSIBLE,
        "pydantic_core.ValidationError: Invalid repository ID or local directory specified: 'x/m'.",
    ),
    (
        R.HUB_NOT_REACHED,
        'requests.exceptions.ReadTimeout: (ReadTimeoutError("HTTPSConnectionPool(host='
        "'huggingface.co', port=443): Read timed out. (read timeout=10)\"), '(Request ID: d)')",
    ),
    (
        R.HUB_NOT_REACHED,
        'requests.exceptions.ConnectTimeout: (MaxRetryError("HTTPSConnectionPool(host='
        "'hf-mirror.com', port=443): Max retries exceeded with url: /x/m/resolve/main/config.json",
    ),
    (R.HUB_NOT_REACHED, "httpx.ConnectError: [Errno -3] Temporary failure in name resolution"),
    (
        R.HUB_NOT_REACHED,
        "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: "
        "https://huggingface.co/api/models/x/m/tree/main",
    ),
    (
        R.HUB_NOT_REACHED,
        "huggingface_hub.errors.HfHubHTTPError: Client error '429 Too Many Requests' for url",
    ),
    (
        R.HUB_NOT_REACHED,
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't "
        "find them in the cached files.",
    ),
    (
        R.NO_COMPILER,
        "torch._inductor.exc.InductorError: InvalidCxxCompiler: No working C++ compiler found in",
    ),
    (
        R.SYSTEM_LIBRARY,
        "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found "
        "(required by /env/vllm/_C.abi3.so)",
    ),
    (
        R.SYSTEM_LIBRARY,
        "AttributeError: '_OpNamespace' '_C_utils' object has no attribute 'init_cpu_threads_env'",
    ),
    (
        R.BROKEN_DEPENDENCIES,
        "AttributeError: Qwen2Tokenizer has no attribute all_special_tokens_extended. Did you mean",
    ),
    (
        R.BROKEN_DEPENDENCIES,
        "AttributeError: 'Qwen2Tokenizer' object has no attribute 'all_special_tokens_extended'",
    ),
    (R.BROKEN_DEPENDENCIES, "ModuleNotFoundError: No module named 'transformers.models.x'"),
    (
        R.MODEL_NOT_SUPPORTED,
        "Value error, Model architectures ['NewForCausalLM'] are not supported for now. Supported",
    ),
    (
        R.MODEL_NOT_SUPPORTED,
        "ValueError: Tokenizer class TokenizersBackend does not exist or is not currently imported",
    ),
    (R.PORT_TAKEN, "OSError: [Errno 98] Address already in use"),
]

BEFORE = "(APIServer pid=7) INFO 11-22 17:08:50 [model.py:733] Resolved architecture: Qwen2\n" * 3
AFTER = """\
(EngineCore pid=9) Process EngineCore:
(EngineCore pid=9)   File "/env/vllm/v1/engine/core.py", line 1402, in run_engine_core
(EngineCore pid=9)     raise e
(APIServer pid=7) Traceback (most recent call last):
(APIServer pid=7)   File "/env/bin/vllm", line 10, in <module>
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above. \
Failed core proc(s): {'EngineCore': 1}
"""


@pytest.fixture
def log(tmp_path: Path) -> LogMaker:
    """Writes a server log."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "server.log"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(("reason", "line"), CAUSES, ids=[line[:40] for _, line in CAUSES])
def test_a_cause_is_found_above_its_consequence(
    log: LogMaker, reason: SkipReason, line: str
) -> None:
    """The worker's own line is the reason and the detail, whatever follows from it."""
    prefix = "(EngineCore pid=9) ERROR 11-22 17:08:50 [core.py:1380] "
    found = diagnose_exit(log(f"{BEFORE}{prefix}{line}\n{AFTER}"), Ended(1))
    assert (found.reason, found.detail) == (reason, line)
    assert found.reason in ADVICE


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "(Worker pid=3) ERROR 11-22 17:08:50 [worker.py:1] ",
        "(VllmWorker-0 pid=3) ERROR 11-22 17:08:50 [worker.py:1] ",
        "ERROR 04-10 12:00:00 [core.py:386] ",
        "\x1b[1;36m(EngineCore_0 pid=3)\x1b[0;0m ERROR 08-28 12:00:00 [core.py:700] ",
    ],
)
def test_the_detail_is_the_message_alone(log: LogMaker, prefix: str) -> None:
    """Prefixes of every generation of vLLM's logging are left out of what a person reads."""
    line = "ValueError: No available memory for the cache blocks."
    found = known_cause(log(f"{BEFORE}{prefix}{line}\n{AFTER}"))
    assert found is not None
    assert found.detail == line
    other = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig"
    assert last_words(log(f"{BEFORE}{prefix}{other}\n{AFTER}")) == other


def test_a_healthy_log_names_no_cause(log: LogMaker) -> None:
    """A real server's chatter about Triton, NUMA and ulimits is not a cause of anything."""
    assert "Application startup complete" in HEALTHY.read_text(encoding="utf-8")
    assert known_cause(HEALTHY) is None
    crashed = log(HEALTHY.read_bytes() + b"Fatal Python error: Aborted\n")
    assert diagnose_exit(crashed, Ended(-6)).detail == "signal 6: Fatal Python error: Aborted"


def test_only_what_comes_after_a_byte_counts(log: LogMaker) -> None:
    """What an earlier attempt wrote into the same log does not explain a later end."""
    first = b"OSError: [Errno 98] Address already in use\n"
    path = log(first + b"KeyError: 'slot'\n")
    assert known_cause(path) is not None
    assert known_cause(path, since=len(first)) is None
    found = diagnose_exit(path, Ended(3), since=len(first))
    assert (found.reason, found.detail) == (
        R.EXITED_BEFORE_READY,
        "exit status 3: KeyError: 'slot'",
    )


def test_an_unknown_end_is_told_in_the_logs_own_words(log: LogMaker) -> None:
    """The last error that is not a mere consequence is quoted, else the last line."""
    error = "(EngineCore pid=9) ERROR 11-22 17:08:50 [core.py:13] KeyError: 'slot'\n"
    assert (
        diagnose_exit(log(BEFORE + error + AFTER), Ended(1)).detail
        == "exit status 1: KeyError: 'slot'"
    )
    assert last_words(log("one\ntwo\n\n\x1b[0m\n")) == "two"
    assert last_words(log(AFTER)).startswith("(APIServer") is False


def test_a_type_error_is_no_unknown_argument(log: LogMaker) -> None:
    """Python's own errors speak of arguments too, and not of those on the command line."""
    line = "TypeError: argument of type 'NoneType' is not iterable"
    assert known_cause(log(f"{BEFORE}(EngineCore pid=9) {line}\n{AFTER}")) is None


RETRIED = [
    "'(ReadTimeoutError(\"HTTPSConnectionPool(host='huggingface.co', port=443): Read timed out. "
    "(read timeout=10)\"), '(Request ID: 3)')' thrown while requesting HEAD https://hf-mirror.com/x",
    "Error retrieving file list: 429 Client Error: Too Many Requests for url: x, retrying 1 of 2",
]


@pytest.mark.parametrize("line", RETRIED)
def test_a_request_that_was_repeated_is_no_cause(log: LogMaker, line: str) -> None:
    """The hub was asked again, and what the server ended of came after."""
    found = diagnose_exit(
        log(f"{BEFORE}{line}\nRetrying in 1s [Retry 1/5].\nKeyError: 'a'\n"), Ended(1)
    )
    assert found.reason is R.EXITED_BEFORE_READY
    again = known_cause(log(f"{line}\nhuggingface_hub.errors.LocalEntryNotFoundError: no\n"))
    assert again is not None
    assert again.reason is R.HUB_NOT_REACHED


@pytest.mark.parametrize("said", ["[Errno 28] No space left on device", "write failed: Errno 28"])
def test_a_full_disk_is_the_hosts(log: LogMaker, said: str) -> None:
    """Where the weights go, above all."""
    with pytest.raises(HostError, match="The disk is full"):
        diagnose_exit(log(f"{BEFORE}OSError: {said}: '/root/.cache/huggingface/hub/x'\n"), Ended(1))


def test_advice_for_a_gpu_names_what_helps() -> None:
    """One argument is all that it takes, where the log knows which."""
    assert "--max-model-len" in ADVICE[R.OUT_OF_MEMORY]
    assert "--dtype half" in ADVICE[R.GPU_NOT_SUPPORTED]
    assert set(R) == ADVICE.keys()


def test_a_kill_without_a_word_came_from_outside(log: LogMaker) -> None:
    """SIGKILL is the kernel's or somebody's; any other signal is only named."""
    assert diagnose_exit(log(BEFORE), Ended(-9)).reason is R.KILLED
    assert diagnose_exit(log(BEFORE), Ended(-9, out_of_memory=True)).reason is R.OUT_OF_MEMORY
    other = diagnose_exit(log(BEFORE), Ended(-11))
    assert other.reason is R.EXITED_BEFORE_READY
    assert other.detail.startswith("signal 11: ")


OWN_ENDS = [
    "CRITICAL 03-01 12:00:00 [core_client.py:269] Got fatal signal from worker processes, shutting "
    "down. See stack trace above for root cause issue.",
    "CRITICAL 02-01 12:00:00 async_llm.py:56] AsyncLLM got SIGQUIT from worker processes, shutting "
    "down. See stack trace above for root cause issue.",
]


@pytest.mark.parametrize("last", OWN_ENDS)
def test_a_server_that_killed_itself_was_not_killed(log: LogMaker, last: str) -> None:
    """The first releases of V1 end so, by signal 9, when a worker of theirs has failed."""
    found = diagnose_exit(log(f"{BEFORE}KeyError: 'a layer'\n{last}\n"), Ended(-9))
    assert found.reason is R.EXITED_BEFORE_READY
    assert found.detail == "signal 9: KeyError: 'a layer'"


@pytest.mark.parametrize("procs", ["{'EngineCore': -9}", "{'EngineCore_0': 1, 'EngineCore_1': -9}"])
def test_an_engine_that_was_killed_is_told_by_its_server(log: LogMaker, procs: str) -> None:
    """The server itself ends in good order then, which says as little of the release."""
    found = diagnose_exit(log(BEFORE + AFTER.replace("{'EngineCore': 1}", procs)), Ended(1))
    assert found.reason is R.KILLED


MANY = 3_000_000  # three times what is read of a log
HOSTILE = {
    "empty": b"",
    "one long line": b"x" * 10_000_000,
    "not UTF-8": bytes(range(128, 256)) * (MANY // 128),
    "escapes": b"\x1b[31m\x1b]0;title\x07" * (MANY // 14),
    "empty lines": b"\n" * MANY,
    "half an architecture": b"Model architectures " * (MANY // 20),
    "half a shortage": b"Available memory Free memory " * (MANY // 29),
    "half an error": b"a.b.Error" * (MANY // 9),
    "half a prefix": b"(APIServer" * (MANY // 10),
    "half a death": b"Failed core proc(s): {" * (MANY // 22),
    "full shared memory": b"/dev/shm: No space left on device " * (MANY // 34),
    "full shared memories": b"/dev/shm: No space left on device\n" * (MANY // 34),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_logs_are_read_fast_and_on_one_line(log: LogMaker, content: bytes) -> None:
    """Megabytes of anything cost seconds at most and become one clean, short line."""
    path = log(content)
    began = time.process_time()
    found = diagnose_exit(path, Ended(1))
    assert time.process_time() - began < 20
    assert found.reason is R.EXITED_BEFORE_READY
    assert found.detail.isprintable()
    assert len("exit status 1: ") < len(found.detail) <= len("exit status 1: ") + 300
    assert len(read_log(path)) <= 1024 * 1024


def test_a_cause_at_either_end_of_a_huge_log_is_found(log: LogMaker) -> None:
    """The middle of a huge log is not read; causes stand near its ends."""
    noise, cause = b"INFO nothing new\n" * 200_000, b"No CUDA GPUs are available\n"
    for content in (cause + noise, noise + cause):
        found = known_cause(log(content))
        assert found is not None
        assert found.reason is R.NO_DEVICE


def test_a_missing_log_is_no_surprise(tmp_path: Path) -> None:
    """A server that ended before it wrote anything is still explained."""
    found = diagnose_exit(tmp_path / "nowhere.log", Ended(127))
    assert found.detail == "exit status 127: the log is empty"
    assert known_cause(tmp_path) is None, "a directory"
