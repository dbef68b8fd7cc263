"""The commands beside ``vbisect run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vbisect.cli.application import app


@app.command()
def versions(
    start: Annotated[str | None, typer.Option("--from", help="Oldest release.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Newest release.")] = None,
    pre: Annotated[bool, typer.Option("--pre", help="Pre-releases too.")] = False,
    image_repo: Annotated[
        str | None, typer.Option(help="Ask for images too, as in vllm/vllm-openai.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """The releases there are, and where each can be had."""
    from vbisect.commands.versions import list_known

    list_known(start, end, pre=pre, image_repo=image_repo, json_output=json_output)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    format_name: Annotated[str, typer.Option("--format", help="md, html, csv or json.")] = "md",
    on: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="The release you run (the oldest that was tested)."),
    ] = None,
) -> None:
    """A report from a run directory, on stdout."""
    from vbisect.commands.report import print_report

    print_report(run_dir, format_name, on)


@app.command()
def post(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.")],
    issue: Annotated[str, typer.Option(help="OWNER/REPO#N, or the address of its page.")],
    gist: Annotated[
        bool, typer.Option("--gist", help="Logs too long for a comment go to a secret gist.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")
    ] = False,
) -> None:
    """A run as a comment on a GitHub issue; posted again, the comment is edited."""
    from vbisect.commands.post import post

    post(run_dir, issue, gist=gist, dry_run=dry_run)


@app.command()
def clean(
    version: Annotated[
        list[str] | None, typer.Argument(help="Only what is of these versions.")
    ] = None,
    docker_host: Annotated[
        str | None, typer.Option(help="The engine, as in ssh://user@gpu01.")
    ] = None,
) -> None:
    """Remove what vbisect made or pulled, except what is in use."""
    from vbisect.commands.clean import remove_everything

    remove_everything(tuple(version or ()), docker_host)


@app.command()
def doctor(
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    docker_host: Annotated[
        str | None, typer.Option(help="The engine, as in ssh://user@gpu01.")
    ] = None,
    image_repo: Annotated[
        str | None, typer.Option(help="Repository of the images (vllm/vllm-openai).")
    ] = None,
) -> None:
    """Is this host fit: engine, GPU and driver, disk, registry, tokens."""
    from vbisect.commands.doctor import examine

    raise typer.Exit(examine(device, docker_host, image_repo))


@app.command()
def simulate(
    world: Annotated[Path, typer.Argument(metavar="WORLD.json", help="A declared world.")],
    repeat: Annotated[
        int | None, typer.Option(help="Runs, each with the next seed; only figures are printed.")
    ] = None,
    strategy: Annotated[str, typer.Option(help="vbisect, linear or midpoint.")] = "vbisect",
    confidence: Annotated[
        float | None, typer.Option(help="Wanted certainty of the answer (the world's, 0.95).")
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Test every candidate.")] = False,
    find_all: Annotated[
        bool, typer.Option("--find-all", help="Narrow down every change, not just one.")
    ] = False,
    hint: Annotated[
        int | None, typer.Option(help="The candidate it probably came with: tested early.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """The search against a declared world, in virtual time; starts nothing."""
    from vbisect.commands.simulate import simulate_world
    from vbisect.simulate import Mode

    simulate_world(
        world,
        Mode(sweep=sweep, find_all=find_all, hint=hint),
        repeat=repeat,
        strategy=strategy,
        confidence=confidence,
        json_output=json_output,
    )
