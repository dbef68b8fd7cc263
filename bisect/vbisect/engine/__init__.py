"""The Docker engine the user means, on this machine or reached over SSH."""

from vbisect.engine.connection import Engine, connect, engine_answers
from vbisect.engine.disk import Disk

__all__ = ["Disk", "Engine", "connect", "engine_answers"]
