"""The command line: parse, call, print; no logic."""

from vbisect.cli import run, tools
from vbisect.cli.application import app

__all__ = ["app", "run", "tools"]
