"""The search against a declared world, in virtual time: no server starts, no clock is read."""

from vbisect.simulate.answer import Answer, Status, is_wrong
from vbisect.simulate.simulation import Run, Trial, simulate
from vbisect.simulate.strategies import STRATEGIES, Mode, Strategy, Vbisect
from vbisect.simulate.summary import Summary, summarise
from vbisect.simulate.world import DeclaredChange, World, read_world

__all__ = [
    "STRATEGIES",
    "Answer",
    "DeclaredChange",
    "Mode",
    "Run",
    "Status",
    "Strategy",
    "Summary",
    "Trial",
    "Vbisect",
    "World",
    "is_wrong",
    "read_world",
    "simulate",
    "summarise",
]
