"""The application that every command belongs to."""

from __future__ import annotations

from typing import Annotated

import typer

from vbisect import __version__

app = typer.Typer(
    name="vbisect",
    help="Which vLLM release fixed or broke this? Tested on real servers, with evidence.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"vbisect {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
