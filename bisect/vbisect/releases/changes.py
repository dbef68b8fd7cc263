"""Which arguments and environment variables each vLLM release knows, as shipped with vbisect."""

from __future__ import annotations

from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict

Default = bool | int | float | str


class Setting(BaseModel):
    """An argument or environment variable.

    ``spans`` are the stretches of releases that have it: the first and the last one, ``None`` when
    none is known to lack it after that. ``defaults`` are those of an argument whose default
    changed, by the release from which on each holds.
    """

    model_config = ConfigDict(frozen=True)

    spans: tuple[tuple[str, str | None], ...]
    defaults: dict[str, Default] = {}


class Note(BaseModel):
    """What else is to be known of a setting from release ``since`` on; ``source`` is an address."""

    model_config = ConfigDict(frozen=True)

    since: str
    text: str
    source: str


class Changes(BaseModel):
    """What is known of every setting over the releases whose sources were ``read``, oldest first.

    ``aliases`` maps other spellings of an argument, as in ``-tp``, to its name.
    """

    model_config = ConfigDict(frozen=True)

    read: tuple[str, ...]
    arguments: dict[str, Setting]
    variables: dict[str, Setting]
    aliases: dict[str, str]
    notes: dict[str, tuple[Note, ...]]

    def argument_name(self, word: str) -> str:
        """The name of the argument in a word of a command line, as in ``--no-x=1`` for ``--x``.

        vLLM takes underscores for dashes, and ``--x.y`` for a part of ``--x``.
        """
        name = word.partition("=")[0]
        if name.startswith("--"):
            name = name.replace("_", "-").partition(".")[0]
        name = self.aliases.get(name, name)
        positive = "--" + name.removeprefix("--no-")
        known = name in self.arguments or positive not in self.arguments
        return name if known else positive


@cache
def changes() -> Changes:
    """The shipped changes (0.7.3 … 0.33.0)."""
    text = resources.files(__package__).joinpath("changes.json").read_text(encoding="utf-8")
    return Changes.model_validate_json(text)
