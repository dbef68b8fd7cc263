"""Regenerate the shipped list of vLLM's arguments and environment variables, release by release.

    python tests/tools/refresh_changes.py [SOURCES]

vLLM's own sources are read from its CUDA wheels, of which every release has one: pip says where a
wheel is, and only its table of contents and the few Python files that matter are asked for, by
range. SOURCES is a folder that keeps them, to be given again. Nothing of vLLM is imported or run.
Review the diff: `notes` in the file is kept by hand.
"""

import ast
import io
import json
import re
import ssl
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from vbisect.builds.pip_settings import pip_settings
from vbisect.processes import pip_command
from vbisect.releases.catalogue import catalogue

CHANGES = Path(__file__).parents[2] / "bisect/vbisect/releases/changes.json"
ENGINE = ("vllm/engine/arg_utils.py",)
SERVER = (
    "vllm/entrypoints/*cli_args.py",
    "vllm/entrypoints/cli/serve.py",
    "vllm/scripts.py",  # `vllm serve` up to 0.7.3
)
CONFIGS = ("vllm/config.py", "vllm/config/*.py")
VARIABLES = ("vllm/envs.py",)
KEPT = (*ENGINE, *SERVER, *CONFIGS, *VARIABLES)
SOURCES = [
    "vLLM's sources in its CUDA wheels (one for each of `read`): vllm/engine/arg_utils.py, "
    "vllm/entrypoints/**/cli_args.py, vllm/entrypoints/cli/serve.py (vllm/scripts.py in 0.7.3), "
    "vllm/config*, vllm/envs.py",
    "`spans`: the first and last release of `read` that has it, `null` for the last of all; "
    "`defaults`: those written as plain values, from the release on that is named",
    "`notes`: by hand, each with its source",
]
AT_ONCE = 4
BLOCK = 32 * 1024
"""Bytes of a request: what matters lies together in a wheel, a folder's files one after another."""


class NoRanges(Exception):
    """The server does not give parts of a file."""


class RemoteFile(io.RawIOBase):
    """A file on a server that is read in blocks, each asked for once and only when needed.

    Raises ``NoRanges`` where the server would send all of it (RFC 9110, section 14.2).
    """

    def __init__(self, client: httpx.Client, address: str) -> None:
        self._client = client
        self._address = address
        self._at = 0
        self._blocks: dict[int, bytes] = {}
        self.read_bytes = 0
        self._size = int(self._get(0, 1).headers["content-range"].rpartition("/")[2])

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, into: Any) -> int:
        number, start = divmod(self._at, BLOCK)
        if number not in self._blocks and self._at < self._size:
            first = number * BLOCK
            self._blocks[number] = self._get(first, min(first + BLOCK, self._size)).content
        part = self._blocks.get(number, b"")[start : start + len(into)]
        into[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _get(self, first: int, end: int) -> httpx.Response:
        headers = {"Range": f"bytes={first}-{end - 1}", "Accept-Encoding": "identity"}
        with self._client.stream("GET", self._address, headers=headers) as answer:
            answer.raise_for_status()
            if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                raise NoRanges(f"{answer.url.host} does not give parts of files.")
            self.read_bytes += len(answer.read())
        return answer


class Fetched(NamedTuple):
    """What was read of one wheel: how many files, and how many bytes over the network."""

    files: int
    read_bytes: int
    wheel_bytes: int


def wheel_address(version: str) -> str:
    """Where the release's wheel is, on the index that pip is configured for."""
    command = pip_command("install", "-qq", "--dry-run", "--ignore-installed", "--no-deps")
    command += ["--ignore-requires-python", "--only-binary=:all:", "--use-feature=fast-deps"]
    command += ["--report", "-", f"vllm=={version}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    (item,) = json.loads(done.stdout)["install"]
    return str(item["download_info"]["url"])


def fetch(client: httpx.Client, version: str, folder: Path) -> Fetched:
    """Read the Python files that matter of one release into ``folder``, unless they are there."""
    target = folder / version
    if target.exists():
        return Fetched(sum(path.is_file() for path in target.rglob("*")), 0, 0)
    part = folder / f"{version}.part"
    remote = RemoteFile(client, wheel_address(version))
    with zipfile.ZipFile(io.BufferedReader(remote)) as archive:
        names = [name for name in archive.namelist() if matters(name)]
        for name in names:
            archive.extract(name, part)
    part.rename(target)
    return Fetched(len(names), remote.read_bytes, remote.seek(0, io.SEEK_END))


def matters(name: str) -> bool:
    """Whether a file of a wheel is one that is read."""
    return any(fnmatchcase(name, pattern) for pattern in KEPT)


def parse(root: Path, *patterns: str) -> Iterator[ast.AST]:
    """Every node of the files of a release that fit one of ``patterns``."""
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if any(fnmatchcase(name, pattern) for pattern in patterns):
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
    names = list(added_arguments(parse(root, *ENGINE, *SERVER)))
    classes = fields_of(parse(root, *CONFIGS, *ENGINE, *SERVER))
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
        "variables": variables(parse(root, *VARIABLES)),
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
    read, settings, started = list(catalogue()), pip_settings(), time.monotonic()
    client = httpx.Client(
        verify=ssl.create_default_context(cafile=settings.get("cert")),
        proxy=settings.get("proxy"),
        follow_redirects=True,
        timeout=60,
    )
    with client, ThreadPoolExecutor(AT_ONCE) as pool:
        fetched = list(pool.map(lambda version: fetch(client, version, folder), read))
    files, read_bytes, wheel_bytes = map(sum, zip(*fetched, strict=True))
    print(
        f"{files} files of {len(read)} wheels: {read_bytes / 1e6:.1f} MB of {wheel_bytes / 1e6:.0f}"
        f" in {time.monotonic() - started:.0f} s"
    )
    notes = json.loads(CHANGES.read_text())["notes"] if CHANGES.exists() else {}
    made = history({version: read_release(folder / version) for version in read})
    CHANGES.write_text(render(read, made, notes))
    print(*(f"{len(made[kind])} {kind}" for kind in made), f"in {len(read)} releases", sep=", ")


if __name__ == "__main__":
    main()
