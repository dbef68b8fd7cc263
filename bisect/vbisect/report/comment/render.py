"""The comment that tells of a run: a pure function of its directory."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from vbisect.errors import UsageError
from vbisect.locks import is_at_work
from vbisect.reasons import ADVICE
from vbisect.report.comment.environment import builds, facts
from vbisect.report.comment.logs import fit, folded, log_ends
from vbisect.report.comment.strip import strip
from vbisect.report.comment.tables import trials_table, variations_table
from vbisect.report.comment.text import MOST, block, code, length, prose
from vbisect.report.templating import Filters, load_template
from vbisect.run.sameness import asked_of_a_server, question
from vbisect.run.scope import scope_of
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState

if TYPE_CHECKING:
    from jinja2 import Template

_GIST = re.compile(r"<!-- vbisect-gist: ([0-9a-f]{1,64}) ([0-9a-f]{32}) -->")
_TRIALS, _VARIATIONS, _BUILDS, _REPLAY = 20_000, 6_000, 8_000, 4_000
"""The most characters of these parts; they leave a third of the comment to the logs."""
_STARTED_WITH = ("--runtime", "--device", "--tp", "--slots-per-gpu")
_REPLAY_LINE = re.compile(r"^vbisect run .*$", re.MULTILINE)


@dataclass(frozen=True)
class GistLink:
    """The gist that a comment links to; ``digest`` is that of its files."""

    id: str
    url: str
    digest: str

    @property
    def marker(self) -> str:
        """How the comment remembers it."""
        return f"<!-- vbisect-gist: {self.id} {self.digest} -->"


@dataclass(frozen=True)
class Comment:
    """What is sent; ``cut`` when it has no room for all of the logs."""

    body: str
    cut: bool


_NO_END = "the run is going on still, or was killed"


def marker(settings: RunSettings) -> str:
    """The first line of a comment: the same for every run that asks the same of servers alike.

    A server that is started otherwise, as on another device or with another engine, is another
    question; how long is waited for it is none. No text of a server ever stands in a comment's
    first line.
    """
    return _marker(question(settings))


def is_ours(body: str, settings: RunSettings) -> bool:
    """Whether a comment begins as one about this question does."""
    return _first_line(body) == marker(settings)


def may_be_ours(body: str, settings: RunSettings) -> bool:
    """Whether a comment of an older vbisect is about this question, as far as it tells.

    Its marker leaves out what a server is started with beside its arguments and environment; its
    line to repeat it says the most of that. Edited, it has the marker of today.
    """
    older = {
        "probe": asked_of_a_server(settings),
        "model": settings.model,
        "skeleton": settings.skeleton,
        "arguments": sorted(str(argument) for argument in settings.serve_args),
        "environment": sorted(str(variable) for variable in settings.variables),
    }
    replay = _REPLAY_LINE.search(body)
    return (
        _first_line(body) == _marker(older)
        and replay is not None
        and _started_with(replay[0]) == _started_with(settings.replay_command())
    )


def _marker(asked: dict[str, object]) -> str:
    return f"<!-- vbisect: {digest_of(asked)} -->"


def _first_line(body: str) -> str:
    return body.split("\n", 1)[0].strip()


def _started_with(replay: str) -> dict[str, str]:
    """What of a replayed run no older marker holds, by its flags."""
    try:
        words = shlex.split(replay)
    except ValueError:  # it was cut
        words = replay.split()
    return {flag: value for flag, value in pairwise(words) if flag in _STARTED_WITH}


def linked_gist(body: str) -> tuple[str, str] | None:
    """The id of the gist that an earlier comment links to, and the digest of its files."""
    found = re.fullmatch(_GIST, [*body.split("\n", 2), ""][1].strip())
    return (found[1], found[2]) if found else None


def digest_of(value: object) -> str:
    """32 hexadecimal digits that stand for a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def to_comment(state: RunState, run_dir: Path, gist: GistLink | None = None) -> Comment:
    """The whole comment, below what GitHub takes whatever the logs hold.

    Raises ``UsageError`` for a run without a single trial.
    """
    if not state.records:
        raise UsageError(f"{run_dir} holds no finished trial: there is nothing to tell yet.")
    ends = log_ends(state, run_dir, min(MOST, 20 * MOST // len(state.records)))
    told = _told(state, run_dir, gist)
    room = MOST - length(_rendered(told, logs="", cut=True))
    cut = not fit(ends, room)
    return Comment(_rendered(told, logs=folded(ends, room), cut=cut), cut)


def _told(state: RunState, run_dir: Path, gist: GistLink | None) -> dict[str, object]:
    settings, finding = state.settings, state.finding
    records = state.records.values()
    of_both = [r for record in records for r in (record, record.control) if r is not None]
    reasons = {record.reason for record in of_both if record.reason is not None}
    scope = scope_of(state)
    return {
        "marker": marker(settings),
        "gist": gist,
        "state": state,
        "settings": settings,
        "finding": finding,
        "message": _sentence(finding.message if finding else _without_end(run_dir)),
        "unfinished": finding is None or finding.status.resumable,
        "scope": scope,
        "strip": strip(state),
        "trials": trials_table(state, _TRIALS),
        "variations": variations_table(state, _VARIATIONS),
        "advice": {str(reason): ADVICE[reason] for reason in sorted(reasons)},
        "untried": len(settings.versions) - len(state.records),
        "notes": list(dict.fromkeys(state.notes))[:8],
        "facts": facts(state, run_dir),
        "builds": builds(state, run_dir, _BUILDS),
        "replay": block(settings.replay_command(), _REPLAY),
    }


def _without_end(run_dir: Path) -> str:
    return "the run is going on still" if is_at_work(run_dir) else "the run was killed"


def _sentence(clause: str) -> str:
    return clause[:1].upper() + clause[1:].rstrip(".")


def _rendered(told: dict[str, object], *, logs: str, cut: bool) -> str:
    return _template().render(**told, logs=logs, cut=cut)


@cache
def _template() -> Template:
    filters: Filters = {
        "prose": _prose,
        "code": lambda value, limit=400: Markup(code(value, limit)),
    }
    return load_template("comment.md.j2", _prose, filters, keep_trailing_newline=False)


def _prose(value: object, limit: int = 800) -> Markup:
    return value if isinstance(value, Markup) else Markup(prose(value, limit))
