"""Turn a build into a server: start it, wait until it is ready, diagnose it when it is not."""

from vbisect.launch.arguments import Limited, effective_arguments, effective_environment
from vbisect.launch.process import launch_process
from vbisect.launch.server import Ended, LaunchSpec, Server

__all__ = [
    "Ended",
    "LaunchSpec",
    "Limited",
    "Server",
    "effective_arguments",
    "effective_environment",
    "launch_process",
]
