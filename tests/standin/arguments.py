"""The command line of the stand-in `vllm`, with vLLM's own way of refusing arguments."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .behaviour import Behaviour

VALUES: dict[str, dict[str, Any]] = {
    "--host": {},
    "--port": {"type": int, "default": 8000},
    "--model": {},
    "--served-model-name": {"nargs": "+"},
    "--load-format": {"default": "auto"},
    "--dtype": {
        "choices": ("auto", "half", "float16", "bfloat16", "float", "float32"),
        "default": "auto",
    },
    "--max-model-len": {"type": int, "default": 4096},
    "--gpu-memory-utilization": {"type": float, "default": 0.9},
    "--max-num-seqs": {"type": int, "default": 256},
    "--max-num-batched-tokens": {"type": int},
    "--tensor-parallel-size": {"type": int, "default": 1},
    "--hf-overrides": {"type": json.loads},
    "--limit-mm-per-prompt": {},
    "--seed": {"type": int},
    "--tokenizer": {},
    "--revision": {},
    "--chat-template": {},
    "--generation-config": {},
    "--uvicorn-log-level": {},
}
FLAGS = ("--enforce-eager", "--trust-remote-code", "--disable-log-requests")


def parse(argv: list[str], version: str, behaviour: Behaviour) -> argparse.Namespace:
    """Read `vllm serve …`; like vLLM, exits with code 2 for arguments it does not know."""
    parser = argparse.ArgumentParser(prog="vllm", allow_abbrev=False)
    parser.add_argument("-v", "--version", action="version", version=version)
    commands = parser.add_subparsers(dest="subparser", required=True)
    serve = commands.add_parser("serve", allow_abbrev=False)
    serve.add_argument("model_tag", nargs="?")
    for name, options in VALUES.items():
        if name not in behaviour.removed_arguments:
            serve.add_argument(name, **options)
    for name in FLAGS:
        if name not in behaviour.removed_arguments:
            serve.add_argument(name, action="store_true")
    if "--enable-log-requests" not in behaviour.removed_arguments:
        serve.add_argument(
            "--enable-log-requests",
            action=argparse.BooleanOptionalAction,
            default=behaviour.request_logging_default,
        )
    if behaviour.scale_out is not None:
        serve.add_argument("--enable-scale-out", action="store_true")
    for name in behaviour.known_arguments:
        serve.add_argument(name, nargs="?", const=True)
    # vLLM takes --max_model_len for --max-model-len.
    args = parser.parse_args([_dashed(word) for word in argv])
    args.model = args.model_tag or args.model or "Qwen/Qwen3-0.6B"
    # Absent (removed) arguments read as their defaults from here on.
    if not hasattr(args, "enable_log_requests"):
        args.enable_log_requests = behaviour.request_logging_default
    if getattr(args, "disable_log_requests", False):
        args.enable_log_requests = False
    args.enable_scale_out = getattr(args, "enable_scale_out", False)
    return args


def _dashed(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value
