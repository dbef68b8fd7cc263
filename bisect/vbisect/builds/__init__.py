"""Turn a release into a build: an environment on disk that a server can be started from."""

from vbisect.builds.environment import Environment, EnvironmentRequest, held_environment
from vbisect.builds.prefetch import Prefetcher

__all__ = ["Environment", "EnvironmentRequest", "Prefetcher", "held_environment"]
