"""Child processes that end with vbisect, whatever way vbisect ends."""

from vbisect.processes.guarded import Guarded
from vbisect.processes.orphans import OWNER_VARIABLE, end_orphans
from vbisect.processes.pip import pip_command
from vbisect.processes.scratch import scratch_directory

__all__ = ["OWNER_VARIABLE", "Guarded", "end_orphans", "pip_command", "scratch_directory"]
