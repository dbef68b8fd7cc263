"""Which arguments and variables of a run some of its releases do not have, said beforehand.

Told from what vbisect ships (``vbisect.releases.changes``), and never refused for it: a release may
be patched, and the data may be behind. Of releases outside of those that were read, only the lack
of what has gone before is told.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence

from packaging.version import Version

from vbisect.launch import Limited
from vbisect.releases import Release
from vbisect.releases.changes import Changes, Setting, changes
from vbisect.run.docker_settings import DockerSettings

_NAMED = 4
"""As many releases are named one by one; of more the first and the last."""


def not_known(
    serve_args: Iterable[Limited], env: Iterable[Limited], versions: Sequence[str]
) -> tuple[str, ...]:
    """A line for each argument or variable that some of ``versions``, oldest first, do not have."""
    known = changes()
    return (
        *(
            told
            for limited in serve_args
            for name, piece in _arguments(limited, known)
            if (told := _argument(name, piece, limited.specifier, versions, known))
        ),
        *(told for variable in env if (told := _variable(variable, versions, known))),
    )


def for_no_candidate(
    serve_args: Iterable[Limited],
    env: Iterable[Limited],
    docker: DockerSettings | None,
    candidates: Sequence[Release],
) -> tuple[str, ...]:
    """A line for each option that is limited to versions of which none is a candidate."""
    versions = [release.version for release in candidates]
    given = [*(("--serve-arg", each) for each in serve_args), *(("--env", each) for each in env)]
    if docker is not None:
        given += [("--image-variant", variant) for variant in docker.image_variant]
    idle = [
        f"{option} '{limited}'"
        for option, limited in given
        if not any(map(limited.applies_to, versions))
    ]
    if docker is not None:
        named = docker.images.items()
        idle += [
            f"--image {version}={image}" for version, image in named if version not in versions
        ]
    return tuple(f"{option} is for none of the candidates: it changes nothing." for option in idle)


def _arguments(limited: Limited, known: Changes) -> Iterator[tuple[str, str]]:
    """Each argument in ``limited``: its name, and the words that are its own."""
    words = shlex.split(limited.text)
    starts = [i for i, word in enumerate(words) if word.startswith("-") and not _is_number(word)]
    for start, beyond in zip(starts, [*starts[1:], len(words)], strict=True):
        yield known.argument_name(words[start]), shlex.join(words[start:beyond])


def _is_number(word: str) -> bool:
    return word.removeprefix("-").replace(".", "", 1).isdigit()


def _argument(
    name: str, piece: str, specifier: str, versions: Sequence[str], known: Changes
) -> str | None:
    setting = known.arguments.get(name)
    if not name.startswith("--"):
        return None
    if setting is None and any(each.startswith(name) for each in known.arguments):
        return None  # argparse takes the beginning of a name for all of it
    meant = Limited(text=piece, specifier=specifier)
    lacking = [v for v in versions if meant.applies_to(v) and _lacks(setting, v, known.read)]
    if not lacking:
        return None
    told = f"{name} is unknown to {_named(lacking)}: they will not start with it."
    return f"{told} {_advice('--serve-arg', meant, setting, versions, known.read)}"


def _variable(meant: Limited, versions: Sequence[str], known: Changes) -> str | None:
    name = meant.text.partition("=")[0]
    setting = known.variables.get(name)
    if setting is None:  # it is not vLLM's
        return None
    lacking = [v for v in versions if meant.applies_to(v) and _lacks(setting, v, known.read)]
    if not lacking:
        return None
    told = f"{name} is unknown to {_named(lacking)}: it changes nothing there."
    return f"{told} {_advice('--env', meant, setting, versions, known.read)}"


def _lacks(setting: Setting | None, version: str, read: Sequence[str]) -> bool:
    """Whether it is known that ``version`` does not have the setting.

    Of one that was not read itself, its neighbours tell, if they agree.
    """
    wanted = Version(version)
    older = [each for each in read if Version(each) <= wanted]
    newer = [each for each in read if Version(each) >= wanted]
    if not older or (setting is None and not newer):
        return False
    return not any(_has(setting, each) for each in (older[-1], *newer[:1]))


def _has(setting: Setting | None, version: str) -> bool:
    wanted = Version(version)
    return setting is not None and any(
        Version(first) <= wanted and (last is None or wanted <= Version(last))
        for first, last in setting.spans
    )


def _advice(
    option: str,
    meant: Limited,
    setting: Setting | None,
    versions: Sequence[str],
    read: Sequence[str],
) -> str:
    """What to write instead."""
    limits = [_specifier(first, last, read) for first, last in setting.spans] if setting else []
    options = [
        Limited(text=meant.text, specifier=",".join(filter(None, (limit, meant.specifier))))
        for limit in limits
    ]
    useful = [each for each in options if any(map(each.applies_to, versions))]
    if not useful:
        return "Leave it out: no candidate is known to have it."
    written = " ".join(f"{option} {shlex.quote(str(each))}" for each in useful)
    return f"Write {written}."


def _specifier(first: str, last: str | None, read: Sequence[str]) -> str:
    """The versions of a stretch, as PEP 440 has it; it may well begin before the first one read."""
    limits = [f">={first}"] if first != read[0] else []
    limits += [f"<{read[read.index(last) + 1]}"] if last is not None else []
    return ",".join(limits)


def _named(versions: Sequence[str]) -> str:
    if len(versions) <= _NAMED:
        return ", ".join(versions)
    return f"{versions[0]} … {versions[-1]} ({len(versions)} releases)"
