"""The versions of a distribution on the package index that the user's pip is configured for."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

from vbisect.hour_cache import keep, recall
from vbisect.processes import pip_command
from vbisect.text import one_line

_PYTHON = re.compile(
    r"""\b\w+(?:Error|Disconnected)\(["'\d, ]*  # exceptions, one in the other
    | (?:<[^<>]*>|HTTPS?Connection(?:Pool)?\([^()]*\))[:,]?\ ["']?  # and what they are about
    | \[Errno\ -?\d+\]\ | \ \(_ssl\.c:\d+\)
    | ["'][)]*["']?:\ /\S*$ | ["'][)]+  # their ends; the path, which tells nothing
    """,
    re.VERBOSE,
)


TO_CHECK = "Check the network, the proxies and the index that pip is configured for (PIP_INDEX_URL)"
"""What to do about an index that cannot be reached."""


class IndexUnavailable(Exception):
    """No package index answered, or none has the distribution; the message says which."""


def list_versions(
    distribution: str,
    *,
    pre: bool = False,
    index: str | None = None,
    timeout: float = 90,
    anew: bool = False,
) -> tuple[Version, ...]:
    """Every version pip can see for this platform, oldest first.

    pip itself does the listing (``pip index versions --json``), so the user's index settings,
    certificates and proxies apply. ``index`` replaces the configured index; ``timeout`` is in
    seconds. A listing holds for an hour, unless pip's settings change or it is asked ``anew``.
    Raises ``IndexUnavailable``.
    """
    question = ("pip index", distribution, str(pre), index or "", *_settings())
    known = None if anew else recall(question)
    if isinstance(known, list):
        return tuple(sorted(_parse(str(text)) for text in known))
    listed = _ask(distribution, pre=pre, index=index, timeout=timeout)
    keep(question, [str(version) for version in listed])
    return listed


def _settings() -> list[str]:
    """What pip's answer depends on: its variables, its files and the interpreter.

    https://pip.pypa.io/en/stable/topics/configuration/#location
    """
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    above = (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    files = [
        *(f"{folder}/pip/pip.conf" for folder in (*above, home)),
        *("/etc/pip.conf", "~/.pip/pip.conf", f"{sys.prefix}/pip.conf"),
        os.environ.get("PIP_CONFIG_FILE", ""),
    ]
    variables = (f"{k}={v}" for k, v in os.environ.items() if k.upper().startswith("PIP_"))
    changed = []
    for name in files:
        try:
            changed.append(f"{name} {Path(name).expanduser().stat().st_mtime_ns}")
        except (OSError, RuntimeError):
            continue
    return [*sorted(variables), *changed, sys.prefix, platform.python_version()]


def _ask(distribution: str, *, pre: bool, index: str | None, timeout: float) -> tuple[Version, ...]:
    command = pip_command("index", "versions", distribution, "--json")
    command += ["--disable-pip-version-check", "--no-input", "--ignore-requires-python"]
    command += ["--retries", "1"]
    command += ["--pre"] if pre else []
    command += ["--index-url", index] if index else []
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise IndexUnavailable(
            f"the package index did not list {distribution} within {timeout:.0f} s"
        ) from None
    if answer.returncode:
        raise IndexUnavailable(_reason(answer.stderr))
    try:
        listed = json.loads(answer.stdout)["versions"]
    except (ValueError, KeyError, TypeError):
        raise IndexUnavailable(f"pip's listing is not JSON: {one_line(answer.stdout)}") from None
    return tuple(sorted(_parse(text) for text in listed))


def _reason(errors: str) -> str:
    """pip's reason on one line; it reports an unreachable index as a distribution not found."""
    for line in errors.splitlines():
        if line.startswith("WARNING: Retrying"):
            return f"the index cannot be reached: {_words(line.rpartition('broken by ')[2])}"
    last = [line.removeprefix("ERROR: ") for line in errors.splitlines() if "ERROR: " in line]
    return one_line(last[-1] if last else errors or "pip failed")


def _words(error: str) -> str:
    """What pip tells of a connection, without the Python that it shows it as."""
    return one_line(re.sub(r"\.?', ", ": ", _PYTHON.sub("", error)).strip(" '\":,"))


def _parse(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise IndexUnavailable(f"the package index lists a version that is none: {text}") from None
