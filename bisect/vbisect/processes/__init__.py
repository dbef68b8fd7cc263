"""Child processes that end with vbisect, whatever way vbisect ends."""

from vbisect.processes.guarded import Guarded
from vbisect.processes.orphans import OWNER_VARIABLE, end_orphans, scratch_directory

__all__ = ["OWNER_VARIABLE", "Guarded", "end_orphans", "scratch_directory"]
