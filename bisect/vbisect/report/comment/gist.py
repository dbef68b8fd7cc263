"""The logs of a run as files of a gist."""

from __future__ import annotations

from pathlib import Path

from vbisect.report.comment.logs import log_ends
from vbisect.run.state import RunState

_MOST_OF_ALL = 8_000_000
_MOST_OF_ONE = 900_000
"""Characters; GitHub shows a file's first megabyte (https://docs.github.com/rest/gists/gists)."""


def gist_files(state: RunState, run_dir: Path) -> dict[str, str]:
    """Name to content, one log for each tested release; of a very long one only the end."""
    most = min(_MOST_OF_ONE, _MOST_OF_ALL // max(1, len(state.records)))
    files = {}
    for end in log_ends(state, run_dir, most):
        cut = "" if end.whole else f"[the end of a log of {end.size:,} bytes]\n"
        files[f"{end.version}-{end.name}"] = cut + end.text
    return files
