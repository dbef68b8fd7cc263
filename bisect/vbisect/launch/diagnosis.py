"""Why a server did not start or stopped: its log and exit code read into a typed reason.

The patterns are those of real vLLM logs, most telling first; a cause printed by a worker stands
further up than the "Engine core initialization failed" that follows from it.
"""

from __future__ import annotations

import re
from pathlib import Path

from vbisect import full_disk
from vbisect.errors import HostError
from vbisect.launch.server import Ended
from vbisect.reasons import SkipReason, Untestable
from vbisect.text import one_line

_READ_BYTES = 512 * 1024

_LONG_LINE = 1000
"""Characters of a line, before and after what is looked for in it."""

_CAUSES: tuple[tuple[SkipReason, str], ...] = (
    (
        SkipReason.UNKNOWN_ARGUMENT,
        r"unrecognized arguments?: .*|: error: argument .*|no such option",
    ),
    (SkipReason.ENGINE_NOT_USED, r"VLLM_USE_V1=1 is not supported with"),
    (SkipReason.PORT_TAKEN, r"address already in use|Errno 98\b"),
    (
        SkipReason.DRIVER_TOO_OLD,
        # what compiles PTX at run time is the driver's: it says the last one of its own ptxas
        r"NVIDIA driver on your system is too old|unsatisfied condition: cuda>=|Error 80[34]\b"
        r"|provided PTX was compiled with an unsupported toolchain|cudaErrorUnsupportedPtxVersion"
        r"|Unsupported \.version [\d.]+; current version is",
    ),
    (
        SkipReason.GPU_NOT_SUPPORTED,
        # Triton brings a ptxas of its own, which knows the GPUs of its day
        r"no kernel image is available|Value 'sm_\w+' is not defined for option 'gpu-name'"
        r"|Bfloat16 is only supported on GPUs with compute capability",
    ),
    (
        SkipReason.OUT_OF_MEMORY,
        r"CUDA out of memory|OutOfMemoryError|No available memory for the cache blocks"
        r"|Free memory on device|less than desired"
        r"|Cannot allocate memory|DefaultCPUAllocator: can't allocate"
        # of V0 and of V1, where one request of the longest context does not fit
        r"|larger than the maximum number of tokens that can be stored in KV cache"
        r"|KV cache is needed, which is larger than",
    ),
    (SkipReason.NO_COMPILER, r"No working C\+\+ compiler found|InvalidCxxCompiler"),
    (
        SkipReason.SYSTEM_LIBRARY,
        r"version `?GLIBC\S* not found|version `?GLIBCXX\S* not found"
        r"|'_C_utils' object has no attribute|cannot open shared object file",
    ),
    (
        SkipReason.MODEL_NOT_ACCESSIBLE,
        r"GatedRepoError|gated repo|40[13] Client Error|401 Unauthorized|403 Forbidden"
        r"|RepositoryNotFoundError|is not a local folder and is not a valid model identifier",
    ),
    (
        SkipReason.HUB_NOT_REACHED,
        # of requests, of httpx (huggingface_hub from 1.0 on), of transformers
        r"(?:429|50\d) (?:Client|Server) Error|(?:Client|Server) error '(?:429|50\d)"
        r"|Max retries exceeded with url: /(?:api/models|[\w.-]+/[\w.-]+/resolve)/"
        r"|host='[\w.-]+', port=\d+\): Read timed out|httpx\.(?:Connect|Read)(?:Error|Timeout)\b"
        r"|OfflineModeIsEnabled|LocalEntryNotFoundError|We couldn't connect to '\S+'"
        r"|specific connection error when trying to load",
    ),
    (
        SkipReason.MODEL_NOT_ACCESSIBLE,
        # what vLLM makes of any of these, before 0.9 and since
        r"No supported config format found in|Invalid repository ID or local directory specified",
    ),
    (
        SkipReason.MODEL_NOT_SUPPORTED,
        r"Model architectures .{0,200}(are not supported|failed to be inspected)"
        r"|does not recognize this architecture|Tokenizer class \S+ does not exist"
        r"|is not a multimodal model",
    ),
    (SkipReason.NO_DEVICE, r"Failed to infer device type|No CUDA GPUs are available"),
    (
        SkipReason.BROKEN_DEPENDENCIES,
        r"ModuleNotFoundError: .*|ImportError: .*|has no attribute '?all_special_tokens_extended"
        r"|operator torchvision::\S+ does not exist|undefined symbol: \S+",
    ),
)
_COMPILED = tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in _CAUSES)
_TRIED_AGAIN = re.compile(r"thrown while requesting|retrying (?:in )?\d", re.IGNORECASE)
"""What huggingface_hub and vLLM log of a request that they then repeat."""

_ERROR_LINE = re.compile(r"^(?:\S+ )*?[\w.]*(?:Error|Exception)\b: .+")
_PREFIX = re.compile(
    r"^(?:\((?:APIServer|EngineCore|(?:Vllm)?Worker)[^)]*\) ?)*(?:[A-Z]+ \d\S+ \d\S+ \[\S+\] ?)?"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONSEQUENCE = "Engine core initialization failed"
_OWN_END = re.compile(r"got (?:fatal signal|SIGQUIT) from worker", re.IGNORECASE)
_ENGINE_KILLED = re.compile(r"Failed core proc\(s\): \{[^}\n]{0,500}: -9\b")


def known_cause(log: Path, since: int = 0) -> Untestable | None:
    """The cause a log names from byte ``since`` on, if it is one vbisect knows.

    ``log`` may be of any size and content. Raises as ``cause_in``.
    """
    return cause_in(read_log(log, since))


def cause_in(text: str) -> Untestable | None:
    """The cause that ``text`` names, if it is one vbisect knows.

    Raises ``HostError`` where that is a full disk.
    """
    if (line := full_disk.line_about(text)) is not None:
        told = one_line(_PREFIX.sub("", line))
        raise HostError(f"The disk is full: {told}. Free space there, then resume the run.")
    for reason, pattern in _COMPILED:
        for match in pattern.finditer(text):
            if not _TRIED_AGAIN.search(_around(text, match)):
                return Untestable(reason, _line_of(text, match))
    return None


def _line_of(text: str, match: re.Match[str]) -> str:
    """The line of a log that was found, without its prefix."""
    start = text.rfind("\n", 0, match.start()) + 1
    return one_line(_PREFIX.sub("", text[start:].partition("\n")[0]))


def _around(text: str, match: re.Match[str]) -> str:
    """That line as far as it is of a sane length."""
    before = text[max(match.start() - _LONG_LINE, 0) : match.start()].rpartition("\n")[2]
    return before + text[match.start() : match.end() + _LONG_LINE].partition("\n")[0]


def diagnose_exit(log: Path, ended: Ended, since: int = 0) -> Untestable:
    """Why the server ended before it was ready. Raises as ``cause_in``."""
    if ended.out_of_memory:
        return Untestable(
            SkipReason.OUT_OF_MEMORY, f"the kernel ran out of memory for it ({ended})"
        )
    cause = known_cause(log, since)
    if cause is not None:
        return cause
    if ended.code == -9 and not ended_itself(log, since):
        return Untestable(
            SkipReason.KILLED,
            "killed by signal 9 without a word, which is mostly the kernel running out of memory",
        )
    if _ENGINE_KILLED.search(read_log(log, since)):
        return Untestable(
            SkipReason.KILLED,
            "its engine was killed by signal 9, which is mostly the kernel running out of memory",
        )
    return Untestable(SkipReason.EXITED_BEFORE_READY, f"{ended}: {last_words(log, since)}")


def ended_itself(log: Path, since: int = 0) -> bool:
    """Whether a server that ended by signal 9 sent it to itself.

    The first releases of V1 do (``v1/engine/core_client.py``) when a process of theirs has failed.
    """
    return _OWN_END.search(read_log(log, since)) is not None


def last_words(log: Path, since: int = 0) -> str:
    """The last error in the log, or its last line, on one line."""
    lines = [_PREFIX.sub("", line).strip() for line in read_log(log, since).splitlines()]
    lines = [line for line in lines if line]
    errors = [x for x in lines if _ERROR_LINE.match(x) and _CONSEQUENCE not in x]
    chosen = errors or [line for line in lines if _CONSEQUENCE not in line] or lines
    words = (one_line(line) for line in reversed(chosen))
    return next(filter(None, words), "the log is empty")


def read_log(log: Path, since: int = 0) -> str:
    """The first and last half mebibyte of a log from byte ``since`` on, as text."""
    try:
        with log.open("rb") as handle:
            handle.seek(since)
            head = handle.read(_READ_BYTES)
            size = handle.seek(0, 2)
            handle.seek(max(size - _READ_BYTES, since + len(head)))
            tail = handle.read()
    except OSError:
        return ""
    return _COLOUR.sub("", (head + tail).decode("utf-8", errors="replace"))
