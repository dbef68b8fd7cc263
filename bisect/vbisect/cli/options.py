"""The options that say what a server is asked, the same for every command."""

from __future__ import annotations

from typing import Annotated

import typer

Command = Annotated[
    list[str] | None, typer.Argument(metavar="[-- CMD ARG…]", help="Command probe.")
]
Endpoint = Annotated[str, typer.Option(help="chat, completions or generate.")]
N = Annotated[list[int] | None, typer.Option("--n", help="Choices to ask for (8).")]
Stream = Annotated[bool, typer.Option("--stream", help="Ask for a stream.")]
Suite = Annotated[
    bool, typer.Option("--suite", help="Ask all variations: n = 1 … 16, stream, seed, ….")
]
Temperature = Annotated[float, typer.Option(help="Sampling temperature.")]
TopP = Annotated[float, typer.Option(help="Nucleus sampling.")]
MaxTokens = Annotated[int, typer.Option(help="Tokens per choice.")]
RequestTimeout = Annotated[float, typer.Option(help="Seconds per request.")]
CommandTimeout = Annotated[float, typer.Option(help="Seconds per call of CMD.")]
