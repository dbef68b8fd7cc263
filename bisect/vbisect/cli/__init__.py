"""The command line: parse, call, print; no logic."""

from vbisect.cli import probe, run, tools
from vbisect.cli.application import app

__all__ = ["app", "probe", "run", "tools"]
