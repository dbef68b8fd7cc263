"""What a run means for somebody who runs one of its releases: ``upgrade_of`` says it all.

Everything is worked out from the run's state and the commits kept beside it, and nothing is
rendered here.
"""

from vbisect.report.upgrade.advice import Advice, advise
from vbisect.report.upgrade.commits import Commits, LikelyCommit
from vbisect.report.upgrade.known import Certainty, Evidence, KnownChange, evidence, known_changes
from vbisect.report.upgrade.sides import Side
from vbisect.report.upgrade.speeds import Speed, speeds
from vbisect.report.upgrade.steps import Step, StepKind
from vbisect.report.upgrade.whole import Upgrade, upgrade_of

__all__ = [
    "Advice",
    "Certainty",
    "Commits",
    "Evidence",
    "KnownChange",
    "LikelyCommit",
    "Side",
    "Speed",
    "Step",
    "StepKind",
    "Upgrade",
    "advise",
    "evidence",
    "known_changes",
    "speeds",
    "upgrade_of",
]
