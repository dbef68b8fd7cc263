"""``vbisect run`` with ``vbisect plan``, which take the same options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vbisect.cli.application import app
from vbisect.cli.options import (
    Command,
    CommandTimeout,
    Endpoint,
    MaxTokens,
    N,
    RequestTimeout,
    Stream,
    Suite,
    Temperature,
    TopP,
)

if TYPE_CHECKING:
    from vbisect.run.state import RunState


@app.command("run", help="Find the release between --from and --to where the answer changes.")
@app.command("plan", help="What a run with these options would do; starts nothing.")
def run(
    context: typer.Context,
    start: Annotated[str | None, typer.Option("--from", help="Oldest release.")] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Newest release, or nightly, or latest.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with the run in this directory.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Go on with a run that somebody else began: it is code."),
    ] = False,
    from_issue: Annotated[
        str | None,
        typer.Option(
            "--from-issue",
            help="OWNER/REPO#N, its address or its saved .json: take the options from its text.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Run what --from-issue proposes without asking.")
    ] = False,
    command: Command = None,
    probe: Annotated[str, typer.Option(help="n-choices or command.")] = "n-choices",
    endpoint: Endpoint = "chat",
    n: N = None,
    stream: Stream = False,
    suite: Suite = False,
    bisect_on: Annotated[
        str | None, typer.Option(help="The variation of --suite that decides, as in stream (all).")
    ] = None,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.9,
    max_tokens: MaxTokens = 16,
    request_timeout: RequestTimeout = 300,
    command_timeout: CommandTimeout = 600,
    model: Annotated[
        str | None,
        typer.Option(help="tiny:qwen2, tiny:qwen2_5_vl, a directory or a Hugging Face id."),
    ] = None,
    control_model: Annotated[
        str | None,
        typer.Option(help="A second model to ask the same: is it the model's bug, or everyone's?"),
    ] = None,
    skeleton: Annotated[
        bool, typer.Option("--skeleton", help="Real configuration, two random layers.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="auto, v0, v1 or both: vLLM's engine; 0.7.3 … 0.10.2 have two.")
    ] = "auto",
    runtime: Annotated[str, typer.Option(help="auto, docker or venv.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    serve_arg: Annotated[
        list[str] | None,
        typer.Option(help="ARG[; SPECIFIER], as in '--enable-scale-out; >=0.30'. Repeatable."),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="K=V[; SPECIFIER], or K to pass on. Repeatable.")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Leave out A or A..B. Repeatable.")] = None,
    pre: Annotated[bool, typer.Option("--pre", help="Pre-releases are candidates too.")] = False,
    find: Annotated[str, typer.Option(help="auto, fix or break.")] = "auto",
    sweep: Annotated[bool, typer.Option("--sweep", help="Test every candidate.")] = False,
    find_all: Annotated[
        bool, typer.Option("--find-all", help="Narrow down every change, not just one.")
    ] = False,
    hint: Annotated[
        str | None, typer.Option(help="The release it probably came with: tested early.")
    ] = None,
    failure: Annotated[
        str | None,
        typer.Option(help="Only failures told with this text are the bug (both ends decide)."),
    ] = None,
    max_skips: Annotated[
        int, typer.Option(help="Boots that may end in a skip between the two sides.")
    ] = 10,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Test again what earlier runs have tested.")
    ] = False,
    try_all: Annotated[
        bool,
        typer.Option("--try-all", help="Try also the releases that this host cannot run."),
    ] = False,
    confidence: Annotated[float, typer.Option(help="Wanted certainty of a verdict.")] = 0.95,
    jobs: Annotated[
        str,
        typer.Option(help="Servers at once; auto: as many as the host has room for and pay."),
    ] = "auto",
    tp: Annotated[int, typer.Option(help="GPUs for each server.")] = 1,
    slots_per_gpu: Annotated[int, typer.Option(help="Small servers on each GPU.")] = 1,
    boot_timeout: Annotated[
        float, typer.Option(help="Seconds a booting server may show no sign of life.")
    ] = 600,
    docker_host: Annotated[
        str | None,
        typer.Option(help="The engine, as in ssh://user@gpu01.", rich_help_panel="Containers"),
    ] = None,
    image_repo: Annotated[
        str | None,
        typer.Option(
            help="Repository of the images (vllm/vllm-openai).", rich_help_panel="Containers"
        ),
    ] = None,
    image_variant: Annotated[
        list[str] | None,
        typer.Option(
            help="VARIANT[; SPECIFIER] of a tag, as in 'cu129; >=0.20'. Repeatable.",
            rich_help_panel="Containers",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            help="A picture to send with chats; VERSION=IMAGE: the container image of one version. "
            "Repeatable."
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            help="all, none, ids like 0,1, or CDI names like nvidia.com/gpu=0.",
            rich_help_panel="Containers",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="The most a container may use, as in 64GB.", rich_help_panel="Containers"
        ),
    ] = None,
    build: Annotated[
        str | None,
        typer.Option(
            help="never, auto (where there is no image) or always.", rich_help_panel="Containers"
        ),
    ] = None,
    base_image: Annotated[
        str | None, typer.Option(help="What built images start from.", rich_help_panel="Containers")
    ] = None,
    disk_budget: Annotated[
        str | None,
        typer.Option(
            help="The most pulled images may take, as in 200GB.", rich_help_panel="Containers"
        ),
    ] = None,
    pull_timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds a pull may make no progress (300).", rich_help_panel="Containers"
        ),
    ] = None,
    latest_deps: Annotated[
        bool, typer.Option("--latest-deps", help="Today's dependencies for old releases too.")
    ] = False,
    results: Annotated[
        Path, typer.Option(metavar="<path>", parser=_folder, help="Where run directories go.")
    ] = Path("results"),
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    from vbisect.commands.run import new_run, old_run
    from vbisect.run.options import DockerOptions, RunOptions

    planned = context.info_name == "plan"
    if resume is not None:
        if planned:
            raise typer.BadParameter(
                "a run that was begun has its plan already", param_hint="--resume"
            )
        if others := sorted(_given(context) - {"--resume", "--results", "--json", "--trust"}):
            raise typer.BadParameter(
                f"a run goes on with the options it was begun with: leave out {', '.join(others)}",
                param_hint="--resume",
            )
        state, run_dir = old_run(resume, trusted=trust)
    else:
        if trust:
            raise typer.BadParameter("it is for --resume", param_hint="--trust")
        if yes and from_issue is None:
            raise typer.BadParameter("it is for --from-issue", param_hint="--yes")
        if command is None and sys.argv[-1] == "--":  # a variable of the shell that is not set
            raise typer.BadParameter("no command follows it", param_hint="--")
        options = RunOptions(
            start=start or "",
            end=end or "",
            skip=tuple(skip or ()),
            pre=pre,
            probe=probe,
            endpoint=endpoint,
            n=tuple(n or ()),
            stream=stream,
            suite=suite,
            bisect_on=bisect_on,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            request_timeout=request_timeout,
            command=tuple(command or ()),
            command_timeout=command_timeout,
            model=model,
            control_model=control_model,
            skeleton=skeleton,
            engine=engine,
            runtime=runtime,
            device=device,
            serve_args=tuple(serve_arg or ()),
            env=tuple(env or ()),
            latest_deps=latest_deps,
            docker=DockerOptions(
                docker_host=docker_host,
                image_repo=image_repo,
                image_variant=tuple(image_variant) if image_variant else None,
                image=tuple(image) if image else None,
                gpus=gpus,
                memory=memory,
                build=build,
                base_image=base_image,
                disk_budget=disk_budget,
                pull_timeout=pull_timeout,
            ),
            find=find,
            sweep=sweep,
            find_all=find_all,
            hint=hint,
            failure=failure,
            max_skips=max_skips,
            fresh=fresh,
            try_all=try_all,
            confidence=confidence,
            jobs=jobs,
            tensor_parallel=tp,
            slots_per_gpu=slots_per_gpu,
            boot_timeout=boot_timeout,
        )
        if from_issue is not None:
            from vbisect.commands.from_issue import with_issue

            options = with_issue(options, from_issue, _given(context), agreed=yes or planned)
        if planned:
            from vbisect.commands.plan import print_plan

            print_plan(options, results, json_output=json_output)
            return
        state, run_dir = new_run(options, results)
    _print_run(state, run_dir, json_output)


def _folder(text: str) -> Path:
    """A variable of the shell that is not set names no folder."""
    if not text:
        raise typer.BadParameter("it is empty")
    return Path(text)


def _given(context: typer.Context) -> set[str]:
    """The options on the command line, by their flags; ``-- CMD`` for a command."""
    return {
        flag if flag.startswith("-") else "-- CMD"
        for parameter in context.command.params
        if (source := context.get_parameter_source(parameter.name or ""))
        and source.name != "DEFAULT"
        for flag in parameter.opts
    }


def _print_run(state: RunState, run_dir: Path, json_output: bool) -> None:
    from vbisect.report.formats import render
    from vbisect.report.terminal import print_answer

    if json_output:
        sys.stdout.write(render("json", state, run_dir))
    else:
        print_answer(state, run_dir)
    assert state.finding is not None
    raise typer.Exit(state.finding.status.exit_code)
