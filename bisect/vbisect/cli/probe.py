"""``vbisect probe``, the probe against a server that is already running."""

from __future__ import annotations

from typing import Annotated

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


@app.command()
def probe(
    url: Annotated[str, typer.Argument(metavar="URL", help="As in http://127.0.0.1:8000.")],
    command: Command = None,
    endpoint: Endpoint = "chat",
    n: N = None,
    stream: Stream = False,
    suite: Suite = False,
    model: Annotated[str | None, typer.Option(help="The first that the server names.")] = None,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.9,
    max_tokens: MaxTokens = 16,
    request_timeout: RequestTimeout = 300,
    command_timeout: CommandTimeout = 600,
    repeat: Annotated[int, typer.Option(help="Look so many times; one failure fails.")] = 1,
    every: Annotated[
        str | None, typer.Option(help="Look again and again, as in 60s, until stopped.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Prometheus metrics, with --every.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Where they are served.")] = "127.0.0.1",
    json_output: Annotated[
        bool, typer.Option("--json", help="One JSON object; with --every, one a line.")
    ] = False,
) -> None:
    """The probe against a running server: exit code 0 pass, 1 fail, 3 could not be judged.

    OPENAI_API_KEY is sent where it is set. With --every it ends with 0 once it is stopped.
    """
    from vbisect.commands.probe import probe_server
    from vbisect.run.options import RunOptions

    options = RunOptions(
        start="",
        end="",
        endpoint=endpoint,
        n=tuple(n or ()),
        stream=stream,
        suite=suite,
        model=model,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        request_timeout=request_timeout,
        command=tuple(command or ()),
        command_timeout=command_timeout,
    )
    raise typer.Exit(
        probe_server(
            url,
            options,
            repeat=repeat,
            every=every,
            metrics_port=metrics_port,
            metrics_host=metrics_host,
            json_output=json_output,
        )
    )
