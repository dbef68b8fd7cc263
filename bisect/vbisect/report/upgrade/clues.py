"""Words by which a commit may be known to touch what a run asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vbisect.probes import Endpoint
from vbisect.run.settings import RunSettings
from vbisect.run.state import RunState
from vbisect.search import Outcome

_ENDPOINTS = {
    Endpoint.CHAT: (r"chat", r"serving_chat|chat_completion"),
    Endpoint.COMPLETIONS: (r"/v1/completions|\bcompletions?\b", r"serving_completion|/completion/"),
    Endpoint.GENERATE: (
        r"/v1/generate|\bgenerate\b|token.in.token.out|scale.out|serve.?tokens",
        r"serving_tokens|token_in_token_out|scale_out|/disagg/",
    ),
}
"""The words of each endpoint in titles, and in the paths of vLLM's sources."""

_CHOICES = {
    r"\bn ?>=? ?1\b|\bn ?=|\bn choices\b": 3.0,
    r"\bchoices?\b|parallel.sampl": 3.0,
    r"\bsampl(?:ing|er|ingparams)\b|\boutput.?kind\b": 1.0,
}
_CHOICES_PATHS = r"parallel_sampling|sampling_params|output_processor"
_COMMON = frozenset(
    (
        *("that", "this", "with", "from", "were", "have", "been", "when", "instead"),
        *("command", "ended", "exit", "status", "returned", "answer", "failed"),
        *("server", "error", "request", "http", "code"),
    )
)
"""Words of failures that tell nothing of their cause."""


@dataclass(frozen=True)
class Clues:
    """Patterns with their weights, for titles, and a pattern for the paths of sources."""

    titles: tuple[tuple[re.Pattern[str], float], ...]
    path: re.Pattern[str] | None

    def in_title(self, title: str) -> dict[str, float]:
        """What is found in a title, in lower case, each with its weight."""
        found = ((pattern.search(title), weight) for pattern, weight in self.titles)
        return {match[0].strip().lower(): weight for match, weight in found if match}

    def in_path(self, path: str) -> bool:
        """Whether a changed file is one that such a request passes through."""
        return path.startswith("vllm/") and bool(self.path and self.path.search(path))


def clues_of(state: RunState) -> Clues:
    """What the run asked, what went wrong there, and with which arguments."""
    weights: dict[str, float] = {}
    paths: list[str] = []
    suite = state.settings.suite
    asked = suite.request if suite else state.settings.n_choices
    if asked is not None:
        words, path = _ENDPOINTS[asked.endpoint]
        weights |= {words: 2.0}
        paths.append(path)
        if suite or max(asked.n) > 1:
            weights |= _CHOICES
            paths.append(_CHOICES_PATHS)
        if suite or asked.stream:
            weights[r"stream\w*"] = 2.0
    for word in _of_failures(state) | _of_arguments(state.settings) | _of_model(state.settings):
        weights.setdefault(rf"\b{re.escape(word)}\b", 1.0)
    compiled = tuple((re.compile(p, re.IGNORECASE), weight) for p, weight in weights.items())
    return Clues(compiled, re.compile("|".join(paths)) if paths else None)


def _of_failures(state: RunState) -> set[str]:
    """The telling words of what the failing releases did."""
    told = {
        record.signature or ""
        for record in state.records.values()
        if record.outcome is Outcome.FAIL
    }
    found = {word.lower() for text in told for word in re.findall(r"[A-Za-z_]{4,40}", text[:300])}
    return set(sorted(found - _COMMON)[:20])


def _of_arguments(settings: RunSettings) -> set[str]:
    """The names of the user's arguments, as people write them: ``scale-out`` and ``scale out``."""
    named = re.findall(
        r"--(?:enable-|disable-|no-)?([a-z][a-z0-9-]{3,40})",
        " ".join(argument.text for argument in settings.serve_args),
    )
    return {form for name in named for form in (name, name.replace("-", " "))}


def _of_model(settings: RunSettings) -> set[str]:
    """The family in a model's name: ``qwen2.5`` of ``Qwen/Qwen2.5-VL-7B-Instruct``."""
    last = settings.model.replace(":", "/").rstrip("/").rpartition("/")[2].lower()
    found = re.match(r"[a-z]+[0-9.]*(?:[-_]?vl)?", last)
    return {found[0].strip(".")} if found and len(found[0]) > 3 else set()
