"""From the text of an issue to the options of a run that may show its bug."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vbisect.issues.commands import ServeCommand, serve_commands
from vbisect.issues.found import Found, Line, Worth, best, lines_of, others
from vbisect.issues.model_names import id_of, model_ids
from vbisect.issues.proposal import Proposal
from vbisect.issues.requests import endpoints, parameters
from vbisect.issues.taken import argument, variable
from vbisect.issues.thread import Thread
from vbisect.issues.versions import is_development, versions

_MOST_COUNTS = 4
"""How many values of n are asked for."""

_MOST_OTHERS = 3
"""How many further values of one kind are shown."""

_LARGEST_N = 64
_HOTTEST = 2
"""The highest temperature that OpenAI's API takes; what is above it is no number of a request."""

_MOST_TOKENS = 131_072


def propose(thread: Thread) -> tuple[Proposal, ...]:
    """What the thread says about how to see its bug; of several values, the most telling one.

    Runs in time linear in the length of the text, and raises nothing, whatever it holds.
    """
    lines = lines_of(thread)
    commands = list(serve_commands(lines))
    sampling: dict[str, list[Found[float | bool]]] = {}
    for name, found in parameters(lines):
        sampling.setdefault(name, []).append(found)
    return (
        *_version(versions(lines)),
        *_model([*_served(commands), *model_ids(lines)]),
        *_endpoint(endpoints(lines)),
        *_sampling(sampling),
        *_of_commands(commands),
    )


def _version(found: Iterable[Found[str]]) -> Iterator[Proposal]:
    listed = list(found)
    released = [each for each in listed if not is_development(each.value)]
    chosen = best(released)[:1]
    yield from (_taken("--from", each.value, each.line) for each in chosen)
    for each in others(listed, chosen)[:_MOST_OTHERS]:
        why = "a build between two releases" if is_development(each.value) else "also named"
        yield replace(_taken("--from", each.value, each.line), refused=why)


def _served(commands: Iterable[ServeCommand]) -> Iterator[Found[str]]:
    for command in commands:
        named = id_of(command.model) if command.model else None
        if named is not None:
            yield Found(named, command.line, Worth.FACT)


def _model(found: list[Found[str]]) -> Iterator[Proposal]:
    chosen = best(found)[:1]
    yield from (_taken("--model", each.value, each.line) for each in chosen)
    for each in others(found, chosen)[:_MOST_OTHERS]:
        yield replace(_taken("--model", each.value, each.line), refused="also named")


def _endpoint(found: Iterable[Found[str]]) -> Iterator[Proposal]:
    for each in best(found)[:1]:
        yield _taken("--endpoint", each.value, each.line)


def _sampling(found: dict[str, list[Found[float | bool]]]) -> Iterator[Proposal]:
    counts = _counts(found.get("n", []))
    yield from (_taken("--n", str(each.value), each.line) for each in counts)
    # n is 8 where nobody says otherwise
    several = not counts or any(each.value > 1 for each in counts)
    for each in best(found.get("temperature", []))[:1]:
        taken = _taken("--temperature", _written(each.value), each.line)
        greedy = several and not each.value
        why = "vLLM refuses n > 1 where it samples greedily" if greedy else None
        if each.value > _HOTTEST:
            why = f"no temperature is above {_HOTTEST}"
        yield replace(taken, refused=why)
    for name in ("top_p", "max_tokens"):
        # the log has a value also where nobody asked for one
        asked = [f for f in found.get(name, []) if name == "top_p" or f.worth is not Worth.LOG]
        for each in best(asked)[:1]:
            if 0 < each.value <= (1 if name == "top_p" else _MOST_TOKENS):
                yield _taken(f"--{name.replace('_', '-')}", _written(each.value), each.line)
    for each in best(found.get("stream", []))[:1]:
        if each.value is True:
            yield _taken("--stream", None, each.line)
    for each in best(found.get("seed", []))[:1]:
        taken = _taken("seed", _written(each.value), each.line)
        yield replace(taken, refused="the probe sends no seed")


def _counts(found: list[Found[float | bool]]) -> list[Found[float | bool]]:
    """The counts of choices: several are asked for one after the other."""
    useful = [each for each in found if 1 <= each.value <= _LARGEST_N]
    above = [each for each in useful if each.value > 1]
    unlike: dict[float | bool, Found[float | bool]] = {}
    for each in sorted(above or useful, key=lambda each: -each.worth):
        unlike.setdefault(each.value, each)
    return sorted(list(unlike.values())[:_MOST_COUNTS], key=lambda each: each.value)


def _of_commands(commands: Iterable[ServeCommand]) -> Iterator[Proposal]:
    """The arguments and variables of the command that the issue is about."""
    for command in _main(commands):
        seen = set()
        for given in command.arguments:
            text, refused = argument(given)
            if given.name not in seen:
                seen.add(given.name)
                yield Proposal("--serve-arg", text, command.line.where, command.line.text, refused)
        for name, value in command.variables:
            text, refused = variable(name, value)
            yield Proposal("--env", text, command.line.where, command.line.text, refused)


def _main(commands: Iterable[ServeCommand]) -> list[ServeCommand]:
    """The first command that stands by itself, else the first in a sentence; none or one.

    "vllm serve returns one choice" reads like a command too, with "returns" for its model.
    """
    telling = [
        command
        for command in commands
        if command.arguments or (command.model and id_of(command.model))
    ]
    return sorted(telling, key=lambda command: not command.line.code)[:1]


def _taken(option: str, value: str | None, line: Line) -> Proposal:
    return Proposal(option, value, line.where, line.text)


def _written(value: float | bool) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
