"""What is asked of a server; one call gives one observation."""

from vbisect.probes.command import CommandProbe, CommandSettings
from vbisect.probes.interface import (
    FailureKind,
    NoResponse,
    Observation,
    Probe,
    ProbeTarget,
    SentRequest,
)
from vbisect.probes.n_choices import Endpoint, NChoicesProbe, NChoicesSettings
from vbisect.probes.suite import SuiteSettings, Variation

__all__ = [
    "CommandProbe",
    "CommandSettings",
    "Endpoint",
    "FailureKind",
    "NChoicesProbe",
    "NChoicesSettings",
    "NoResponse",
    "Observation",
    "Probe",
    "ProbeTarget",
    "SentRequest",
    "SuiteSettings",
    "Variation",
]
