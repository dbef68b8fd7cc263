"""The options of ``vbisect run`` as they were given."""

from __future__ import annotations

from dataclasses import dataclass

from vbisect.search import MAX_SKIPS


@dataclass(frozen=True)
class DockerOptions:
    """The options of ``vbisect run`` that concern containers, as given; ``None`` when not given."""

    docker_host: str | None = None
    image_repo: str | None = None
    image_variant: tuple[str, ...] | None = None
    image: tuple[str, ...] | None = None
    gpus: str | None = None
    memory: str | None = None
    build: str | None = None
    base_image: str | None = None
    disk_budget: str | None = None
    pull_timeout: float | None = None


@dataclass(frozen=True)
class RunOptions:
    """The options of ``vbisect run`` as given; times in seconds."""

    start: str
    end: str
    skip: tuple[str, ...] = ()
    pre: bool = False
    probe: str = "n-choices"
    endpoint: str = "chat"
    n: tuple[int, ...] = ()
    stream: bool = False
    suite: bool = False
    bisect_on: str | None = None
    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 16
    request_timeout: float = 300
    command: tuple[str, ...] = ()
    command_timeout: float = 600
    model: str | None = None
    control_model: str | None = None
    skeleton: bool = False
    engine: str = "auto"
    runtime: str = "auto"
    device: str = "auto"
    serve_args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    latest_deps: bool = False
    docker: DockerOptions = DockerOptions()
    find: str = "auto"
    sweep: bool = False
    find_all: bool = False
    hint: str | None = None
    failure: str | None = None
    max_skips: int = MAX_SKIPS
    fresh: bool = False
    try_all: bool = False
    confidence: float = 0.95
    jobs: str = "auto"
    tensor_parallel: int = 1
    slots_per_gpu: int = 1
    boot_timeout: float = 600
