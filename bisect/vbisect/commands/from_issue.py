"""``vbisect run --from-issue``: what an issue proposes, shown, and run only after a yes."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from vbisect.commands.consent import ask_to_run
from vbisect.errors import UsageError
from vbisect.github import GitHub, IssueReference
from vbisect.issues import Proposal, Thread, fetch, propose, read_saved
from vbisect.launch.engine_version import VARIABLE
from vbisect.run.options import RunOptions
from vbisect.text import one_line

_FETCH_SECONDS = 120
_DEFAULT_END = "nightly"
_EXCERPT = 90
"""Characters shown of a line in which something was found."""

_GIVEN = "given on the command line"
_REQUEST = {"--endpoint", "--n", "--stream", "--temperature", "--top-p", "--max-tokens"}


def with_issue(
    options: RunOptions, asked: str, given: Collection[str], *, agreed: bool
) -> RunOptions:
    """``options`` with what the issue ``asked`` for says, after a yes on the terminal.

    ``given`` are the names of the options on the command line, which win. ``agreed``: nobody needs
    to be asked. Raises ``UsageError`` for an issue that cannot be read or names no version, without
    a yes, and ``GitHubError``.
    """
    thread = _thread(asked)
    proposals = [_unless_given(p, options, given) for p in propose(thread)]
    merged = _merged(options, [p for p in proposals if p.refused is None], given)
    _show(thread, proposals, merged, given)
    if not merged.start:
        raise UsageError(f"{thread.name} names no vLLM version: give --from.")
    if not agreed:
        ask_to_run("--yes")
    return merged


def _thread(asked: str) -> Thread:
    if asked.endswith(".json") and not asked.startswith(("http://", "https://")):
        return read_saved(Path(asked))
    with GitHub(seconds=_FETCH_SECONDS) as github:
        return fetch(IssueReference.parse(asked, github.address.web_host), github)


def _unless_given(proposal: Proposal, options: RunOptions, given: Collection[str]) -> Proposal:
    if proposal.refused is not None:
        return proposal
    if options.command and proposal.option in _REQUEST:
        return replace(proposal, refused="the command asks by itself")
    if options.suite and proposal.option in ("--n", "--stream"):
        return replace(proposal, refused="--suite asks several by itself")
    several = options.suite or any(n > 1 for n in options.n)
    if several and proposal.option == "--temperature" and not float(proposal.value or 0):
        return replace(proposal, refused="vLLM refuses n > 1 where it samples greedily")
    if proposal.option in ("--serve-arg", "--env"):  # repeatable: the user's own is one of several
        own = {_first_word(text) for text in (*options.serve_args, *options.env)}
        if "--engine" in given:  # which says what this variable says
            own.add(_first_word(VARIABLE))
        wins = _first_word(proposal.value or "") in own
    else:
        wins = proposal.option in given
    return replace(proposal, refused=_GIVEN) if wins else proposal


def _first_word(text: str) -> str:
    """The name of a serve argument or variable."""
    return text.split(maxsplit=1)[0].partition("=")[0].replace("_", "-") if text.strip() else ""


def _merged(options: RunOptions, taken: Sequence[Proposal], given: Collection[str]) -> RunOptions:
    one = {p.option: p.value or "" for p in taken}
    counts = tuple(int(p.value) for p in taken if p.option == "--n" and p.value)
    return replace(
        options,
        start=one.get("--from", options.start),
        end=options.end if "--to" in given else _DEFAULT_END,
        model=one.get("--model", options.model),
        endpoint=one.get("--endpoint", options.endpoint),
        n=counts or options.n,
        stream="--stream" in one or options.stream,
        temperature=float(one.get("--temperature", options.temperature)),
        top_p=float(one.get("--top-p", options.top_p)),
        max_tokens=int(one.get("--max-tokens", options.max_tokens)),
        serve_args=(*_values(taken, "--serve-arg"), *options.serve_args),
        env=(*_values(taken, "--env"), *options.env),
    )


def _values(taken: Iterable[Proposal], option: str) -> Iterable[str]:
    return [p.value for p in taken if p.option == option and p.value]


def _show(
    thread: Thread, proposals: Sequence[Proposal], merged: RunOptions, given: Collection[str]
) -> None:
    """On stderr: stdout is for the answer."""
    _say(f"vbisect: {one_line(thread.name)}: {one_line(thread.title, 120)}")
    rows = [(_typed(p), f"{p.where}: {_excerpt(p)}") for p in proposals if p.refused is None]
    if "--to" not in given:
        rows.append((f"--to {merged.end}", "the newest there is"))
    if merged.model is None:
        rows.append(("", "no model is named: the default one is served"))
    _table(rows)
    refused = [p for p in proposals if p.refused is not None]
    if refused:
        _say("vbisect: seen there, but not taken:")
        _table([(_typed(p), f"{p.refused} ({p.where})") for p in refused])


def _table(rows: Sequence[tuple[str, str]]) -> None:
    width = min(40, max((len(left) for left, _ in rows), default=0))
    for left, right in rows:
        _say(f"  {left:<{width}}  {right}")


def _typed(proposal: Proposal) -> str:
    words = proposal.option if proposal.value is None else f"{proposal.option} {proposal.value}"
    return one_line(words, 100)


def _excerpt(proposal: Proposal) -> str:
    """The line around the value, without secrets; cut only after they were taken out."""
    text = one_line(proposal.excerpt, len(proposal.excerpt) + 1000)
    at = max(0, text.find((proposal.value or "").split(";")[0]) - _EXCERPT // 3)
    return ("…" if at else "") + one_line(text[at:], _EXCERPT)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
