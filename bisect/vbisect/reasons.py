"""Why a release could not be tested: the typed reasons of a skip, each with what to do about it."""

from __future__ import annotations

from enum import StrEnum


class SkipReason(StrEnum):
    """Every way a trial can end without a verdict."""

    EXCLUDED = "excluded"
    NOT_PUBLISHED = "not published"
    NOT_INSTALLABLE = "not installable"
    NOT_PULLABLE = "image not pullable"
    BUILD_FAILED = "image build failed"
    UNKNOWN_ARGUMENT = "argument not known"
    OUT_OF_MEMORY = "not enough memory"
    DRIVER_TOO_OLD = "driver too old"
    GPU_NOT_SUPPORTED = "GPU not supported"
    NO_DEVICE = "no usable device"
    MODEL_NOT_ACCESSIBLE = "model not accessible"
    HUB_NOT_REACHED = "model hub not reached"
    MODEL_NOT_SUPPORTED = "model not supported"
    BROKEN_DEPENDENCIES = "broken dependencies"
    SYSTEM_LIBRARY = "system library too old"
    SYSTEM_PACKAGE = "system package missing"
    NO_COMPILER = "no C++ compiler"
    ENGINE_MISSING = "engine not in this release"
    ENGINE_NOT_USED = "engine not used"
    PORT_TAKEN = "port taken"
    NOT_STARTED = "not started by the engine"
    NOT_STARTABLE = "image cannot be started"
    EXITED_BEFORE_READY = "exited before ready"
    KILLED = "killed"
    BOOT_TIMEOUT = "never ready"
    WRONG_VERSION = "wrong version"
    ENDPOINT_NOT_SERVED = "endpoint not served"
    REQUEST_REJECTED = "request rejected"
    SERVER_ERROR = "server error"
    NO_ANSWER = "no answer"
    DIFFERENT_FAILURE = "different failure"
    VARIATION_NOT_ASKED = "variation not asked"
    COMMAND_SKIPPED = "command said skip"
    COMMAND_TIMEOUT = "command timed out"

    @property
    def of_the_run(self) -> bool:
        """Whether it is no release's doing: what every other would meet on this host too."""
        return self in _OF_THE_RUN


ADVICE: dict[SkipReason, str] = {
    SkipReason.EXCLUDED: "It was left out with --skip.",
    SkipReason.NOT_PUBLISHED: "No wheel of this release exists for this device in the configured "
    "package index; try another --device or --runtime.",
    SkipReason.NOT_INSTALLABLE: "Read the resolver's reason; a package index that carries the "
    "pinned torch build (pip's extra-index-url or find-links) usually helps.",
    SkipReason.NOT_PULLABLE: "The registry has the image, but it could not be fetched whole; "
    "see the engine's words, and try again.",
    SkipReason.BUILD_FAILED: "Read the end of build.log in the trial's folder.",
    SkipReason.UNKNOWN_ARGUMENT: "Limit the argument to the versions that know it, "
    "as in --serve-arg '--enable-scale-out; >=0.30'.",
    SkipReason.OUT_OF_MEMORY: "Free memory on the host (or raise --memory). For a context that is "
    "too long, pass --serve-arg '--max-model-len 8192'; for a GPU that others use too, --serve-arg "
    "'--gpu-memory-utilization 0.5'; for weights that are too large, --tp or a smaller --model.",
    SkipReason.DRIVER_TOO_OLD: "Update the GPU driver, or, from 0.17.0 on and on a data-centre "
    "card, set --env VLLM_ENABLE_CUDA_COMPATIBILITY=1. --try-all tries what was not tried for it.",
    SkipReason.GPU_NOT_SUPPORTED: "This build cannot use this GPU; use another one or narrow the "
    "range. Without bfloat16, pass --serve-arg '--dtype half'; where only its ptxas is too old, "
    "--env TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas.",
    SkipReason.NO_DEVICE: "This build found no device it can use; check --device and the driver.",
    SkipReason.MODEL_NOT_ACCESSIBLE: "Check the model's name, and that HF_TOKEN is set and has "
    "access to it.",
    SkipReason.HUB_NOT_REACHED: "Look after the way to the model hub: HF_ENDPOINT, the proxies, "
    "and whether it limits requests without HF_TOKEN. With HF_HUB_OFFLINE=1 the model has to be in "
    "the cache.",
    SkipReason.MODEL_NOT_SUPPORTED: "This version cannot serve this model; narrow the range or "
    "choose another --model.",
    SkipReason.BROKEN_DEPENDENCIES: "The installed packages do not fit this version; see the "
    "server log.",
    SkipReason.SYSTEM_LIBRARY: "This build needs a newer C library than this system has; run it "
    "on a newer system or in a container.",
    SkipReason.SYSTEM_PACKAGE: "Install what is named; images have it (--runtime docker).",
    SkipReason.NO_COMPILER: "Install g++ and the Python headers on this host.",
    SkipReason.ENGINE_MISSING: "Releases from 0.11.0 on have V1 alone, with nothing to set; both "
    "engines are in 0.7.3 … 0.10.2. Narrow the range, or leave --engine out.",
    SkipReason.ENGINE_NOT_USED: "vLLM runs V0 where its V1 cannot do with the hardware, the model "
    "or an argument: change what the log names (--dtype float32 is such a one on a CPU, bfloat16 "
    "is not), or ask for --engine v0.",
    SkipReason.PORT_TAKEN: "Something else keeps taking the server's port; run it again.",
    SkipReason.NOT_STARTED: "Mend what the engine's words name on its host (a runtime that is "
    "missing, a limit or a right that it lacks): starting any image there by hand shows the same.",
    SkipReason.NOT_STARTABLE: "What is in the image keeps the engine from starting it, as its "
    "words say; --image and --image-repo name others.",
    SkipReason.EXITED_BEFORE_READY: "The server stopped by itself; the end of its log says why.",
    SkipReason.KILLED: "Something ended the server with signal 9, mostly the kernel for want of "
    "memory: free memory on the host, then run it again.",
    SkipReason.BOOT_TIMEOUT: "Raise --boot-timeout if this host is slow; else read the server log.",
    SkipReason.WRONG_VERSION: "The server reports another version than was asked for; its build is "
    "not to be trusted.",
    SkipReason.ENDPOINT_NOT_SERVED: "This version does not serve the endpoint as launched; it may "
    "need an argument, as in --serve-arg '--enable-scale-out; >=0.30'.",
    SkipReason.REQUEST_REJECTED: "The server refused the request itself; see its answer.",
    SkipReason.SERVER_ERROR: "The server answered with an error of its own; see the server log.",
    SkipReason.NO_ANSWER: "The server stayed up and gave no whole answer; raise --request-timeout "
    "or read the server log.",
    SkipReason.DIFFERENT_FAILURE: "It failed in another way than the failing end of the range; "
    "look at its responses before trusting either reading.",
    SkipReason.VARIATION_NOT_ASKED: "This version was not asked the variation that the bug shows "
    "in, so it says nothing about it; narrow the range or choose another with --bisect-on.",
    SkipReason.COMMAND_SKIPPED: "The command says that it cannot judge this version (exit status "
    "125); command.log in the trial's folder has its output.",
    SkipReason.COMMAND_TIMEOUT: "Raise --command-timeout if the command needs longer.",
}
"""A sentence a person can act on, for each reason."""


CAN_PASS = frozenset(
    {
        SkipReason.OUT_OF_MEMORY,
        SkipReason.HUB_NOT_REACHED,
        SkipReason.PORT_TAKEN,
        SkipReason.NOT_STARTED,
        SkipReason.EXITED_BEFORE_READY,
        SkipReason.KILLED,
        SkipReason.BOOT_TIMEOUT,
        SkipReason.SERVER_ERROR,
        SkipReason.NO_ANSWER,
        SkipReason.COMMAND_TIMEOUT,
    }
)
"""Reasons that need not be there at the next boot: such a skip is tried again before it counts."""

_OF_THE_RUN = frozenset(
    {
        SkipReason.OUT_OF_MEMORY,
        SkipReason.NO_DEVICE,
        SkipReason.MODEL_NOT_ACCESSIBLE,
        SkipReason.HUB_NOT_REACHED,
        SkipReason.SYSTEM_PACKAGE,
        SkipReason.NO_COMPILER,
        SkipReason.PORT_TAKEN,
        SkipReason.NOT_STARTED,
        SkipReason.KILLED,
    }
)
"""What a model, this host or its network lacks.

Not among them is what may differ by release although the host has a part in it: which drivers,
GPUs, system libraries, models and arguments a build takes, and an end for reasons unknown.
"""


class Untestable(Exception):
    """Raised wherever a trial cannot go on; the trial becomes a skip.

    ``detail`` is what was seen, in one line; ``notes`` are further lines of evidence.
    """

    def __init__(self, reason: SkipReason, detail: str, notes: tuple[str, ...] = ()) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.notes = notes
