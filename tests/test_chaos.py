"""Runs struck at random moments, in every way there is, come to the answer of undisturbed ones."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from chaos import FAULTS, campaign

STRIKES = 60
SEED = 5000


def test_nothing_is_lost_and_nothing_left(tmp_path: Path) -> None:
    """``tests/bench/chaos.py`` strikes longer, and repeats what is told here."""
    told: list[str] = []
    counted = campaign(tmp_path, strikes=STRIKES, seed=SEED, workers=2, say=told.append)
    assert counted["strikes"] >= STRIKES
    assert not any(counted[fault] for fault in FAULTS), "\n".join(told)
