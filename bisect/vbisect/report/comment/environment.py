"""Where and with what the releases were tested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vbisect.files import Below
from vbisect.report.comment.tables import tested
from vbisect.report.comment.text import code, length
from vbisect.report.excerpts import opened
from vbisect.run.records import TrialRecord
from vbisect.run.state import RunState

_LARGEST = 4 << 20  # bytes; vbisect writes some five thousand


def facts(state: RunState, run_dir: Path) -> list[str]:
    """One line of Markdown for each fact about the whole run."""
    recorded = [_read(run_dir, record.version) for record in tested(state)]
    hosts = dict.fromkeys(line for data in recorded for line in _host(data))
    taken = dict.fromkeys(line for data in recorded for line in _taken(data))
    return [f"vbisect {code(state.settings.vbisect, 60)}", *list(hosts)[:12], *list(taken)[:1]]


def builds(state: RunState, run_dir: Path, limit: int) -> list[list[str]]:
    """The cells of one row for each build: version, what it is, its digest, Python, torch, engine.

    As many as fit into ``limit`` characters.
    """
    kept: list[list[str]] = []
    for record in tested(state):
        if record.build is None:
            continue
        cells = _build(record, _read(run_dir, record.version))
        limit -= sum(length(cell) + 3 for cell in cells) + 2
        if limit < 0:
            break
        kept.append(cells)
    return kept


def _build(record: TrialRecord, data: dict[str, Any]) -> list[str]:
    assert record.build is not None
    build = _dict(data, "build")
    packages = build.get("packages")
    named = (str(p).split("==", 1) for p in (packages if isinstance(packages, list) else ()))
    torch = next((words[1] for words in named if words[0] == "torch" and len(words) == 2), "")
    return [
        code(record.version, 100),
        code(record.build.ref),
        code(record.build.digest, 120),
        code(build.get("python") or "", 60),
        code(torch, 60),
        code(record.engine or "", 60),
    ]


def _host(data: dict[str, Any]) -> Iterator[str]:
    host, engine = _dict(data, "host"), _dict(data, "engine")
    if host.get("system"):
        yield f"host {code(host['system'], 200)}"
    gpus = host.get("gpus")
    for gpu in gpus[:16] if isinstance(gpus, list) else ():
        yield f"GPU {code(gpu, 200)}"
    if engine.get("engine"):
        product = "Podman" if engine.get("product") == "Podman" else "Docker"
        system = code(engine.get("os") or "its host", 120)
        yield f"{product} {code(engine['engine'], 60)} on {system}"


def _taken(data: dict[str, Any]) -> Iterator[str]:
    taken = data.get("from_environment")
    named = [code(text, 100) for text in taken[:16]] if isinstance(taken, list) else []
    if named:
        yield f"taken from the environment: {', '.join(named)}"


def _read(run_dir: Path, version: str) -> dict[str, Any]:
    """What was recorded; nothing where it is missing or damaged."""
    handle = opened(Below(run_dir) / "trials" / version / "environment.json")
    if handle is None:
        return {}
    with handle:
        content = handle.read(_LARGEST)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _dict(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
