"""The Docker engine the user means, on this machine or reached over SSH."""

from vbisect.engine.connection import Engine, connect, engine_answers
from vbisect.engine.disk import Disk
from vbisect.engine.gpus import GpuAccess

__all__ = ["Disk", "Engine", "GpuAccess", "connect", "engine_answers"]
