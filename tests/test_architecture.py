"""What may import what, so that the search stays pure and the command line starts at once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vbisect

PACKAGE = Path(vbisect.__file__).parent
PURE = {
    *("__future__", "bisect", "collections.abc", "dataclasses", "enum", "functools", "itertools"),
    *("math", "typing"),
}
VIRTUAL = PURE | {"collections", "heapq", "json", "pathlib", "pydantic", "random", "statistics"}
HEAVY = ("jinja2", "httpx", "pydantic", "rich", "docker", "uv")


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file it does so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


@pytest.mark.parametrize("path", sorted((PACKAGE / "search").glob("*.py")), ids=lambda p: p.name)
def test_the_search_is_pure(path: Path) -> None:
    """The search imports itself and a few modules that do no I/O, tell no time, draw no dice."""
    foreign = {name for name in imports(path) if not name.startswith("vbisect.search")}
    assert foreign <= PURE
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input", "__import__", "eval", "exec"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "simulate").glob("*.py")), ids=lambda p: p.name)
def test_a_simulation_starts_nothing(path: Path) -> None:
    """It drives the search in virtual time: no clock, no server, no dice but those of its seed."""
    ours = ("vbisect.search", "vbisect.simulate", "vbisect.errors")
    assert {name for name in imports(path) if not name.startswith(ours)} <= VIRTUAL
    drawn = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "random"
    }
    assert drawn <= {"Random"}


def test_reports_read_records_only() -> None:
    """A report cannot start, fetch, probe or ask anything: it never imports what does."""
    asking = ("vbisect.github", "vbisect.registry", "vbisect.run.ask_commits", "httpx")
    starting = ("vbisect.builds", "vbisect.launch", "vbisect.processes", "vbisect.run.session")
    for path in (PACKAGE / "report").rglob("*.py"):
        doers = asking + starting
        if path.name == "progress.py":
            doers = doers[:-1]  # names, for the type checker, what the session tells of a run
        assert not [name for name in imports(path) if name.startswith(doers)], path.name


def test_the_source_root_is_no_package() -> None:
    """``bisect`` stays the standard library's for whatever is started beside the sources."""
    root = PACKAGE.parent
    assert root.name == "bisect"
    assert not (root / "__init__.py").exists()
    run = [sys.executable, "-c", "import bisect; print(bisect.insort.__module__)"]
    told = subprocess.run(run, cwd=root.parent, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["_bisect"]


def test_the_command_line_starts_without_heavy_imports() -> None:
    """Parsing a command line needs none of the libraries that take time to import."""
    code = f"import sys, vbisect.cli; print([n for n in {HEAVY} if n in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
