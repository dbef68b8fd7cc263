"""Turn a build into a server: start it, wait until it is ready, diagnose it when it is not."""

from vbisect.launch.arguments import Limited, effective_arguments, effective_environment
from vbisect.launch.server import LaunchSpec, Server, launch

__all__ = [
    "LaunchSpec",
    "Limited",
    "Server",
    "effective_arguments",
    "effective_environment",
    "launch",
]
