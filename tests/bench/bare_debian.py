"""The README's commands on Debian systems with nothing but Python.

Run it as root, with mmdebstrap, by the interpreter that has vbisect installed. For each suite a
root is made of the essential packages, apt, ``python3`` and ``python3-venv``, and the tree of
HEAD is put into it. There the README's first command is run: as it is, which has to end with one
line before anything is downloaded; then with what that line names installed. ``--tests`` also runs
the second command. Packages come from where pip and apt of this host have them; ``--uv-cache``
names a cache of uv's to share, without which each suite downloads some 3 GB.

Prints a line for each step, and last one JSON line:
``{SUITE: {"missing": LINE, "answer": …, "seconds": …}}``, of the first command.

    python tests/bench/bare_debian.py [--suite SUITE]… [--uv-cache FOLDER] [--tests]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.first_command import export
from standin.base import _network_settings, _sources, _suite
from vbisect.builds.pip_settings import pip_settings

PACKAGES = ("python3", "python3-venv")
ROOT = Path(__file__).parents[2]
FIRST, SECOND = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1:4:2]
NAMED = re.compile(r"\(apt-get install ([a-z0-9+ -]+)\)")

ENTER = """
set -e
root=$1 command=$2; shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for pair; do
  mkdir -p "$root/${pair#*:}"
  mount --bind "${pair%%:*}" "$root/${pair#*:}"
done
exec chroot "$root" sh -c "$command"
"""
"""A command in a root, with the folders of this host FROM:TO; its mounts go with it."""


def make_root(suite: str, root: Path) -> None:
    """A root of ``suite``, from the mirrors that this host has its own packages from."""
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for file in _sources():
            sources.append(Path(folder, file.name))
            sources[-1].write_text(file.read_text().replace(_suite(), suite))
        settings = [f"--aptopt={line}" for line in _network_settings()]
        options = ["--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", *settings]
        subprocess.run(["mmdebstrap", *options, suite, str(root), *map(str, sources)], check=True)


def hand_in(root: Path) -> tuple[dict[str, str], list[str]]:
    """pip's settings of this host as variables, and the folders they name, for a ``root``.

    Files that they name are copied, and so is how names are resolved.
    """
    folders: list[str] = []
    files = ["/etc/resolv.conf"]
    for word in (word for value in pip_settings().values() for word in value.split()):
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.is_file():
            files.append(str(path))
        elif path.is_absolute() and path.is_dir():
            folders.append(str(path.parent))  # an index on disk links to files beside it
    for file in files:
        Path(f"{root}{file}").parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, f"{root}{file}")
    named = {f"PIP_{name.upper().replace('-', '_')}": v for name, v in pip_settings().items()}
    return named, [f"{folder}:{folder}" for folder in dict.fromkeys(folders)]


def inside(root: Path, command: str, uv_cache: Path | None) -> tuple[int, float, str, str]:
    """Run ``command`` in ``root``: exit code, seconds, stdout, and the last line of stderr."""
    variables, folders = hand_in(root)
    if uv_cache is not None:
        folders.append(f"{uv_cache}:/root/.cache/uv")
    plain = {"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]
    began = time.monotonic()
    done = subprocess.run(
        [*enter, str(root), f"cd /root/vbisect && {command}", *folders],
        env=plain | variables | {"COLUMNS": os.environ.get("COLUMNS", "100")},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return done.returncode, time.monotonic() - began, done.stdout, (lines or [""])[-1]


def steps(root: Path, uv_cache: Path | None, *, tests: bool) -> Iterator[tuple[str, str]]:
    """What each step came to, by what it says of the first command."""
    first = f"{FIRST.strip()} --json"
    code, seconds, _, line = inside(root, first, uv_cache)
    print(f"  as it is: exit code {code} after {seconds:.0f} s: {line}", flush=True)
    if named := NAMED.search(line):
        yield "missing", line
        install = f"apt-get -qq update && apt-get -qq install {shlex.join(named[1].split())}"
        code, seconds, _, line = inside(root, install, None)
        print(f"  {named[1]} installed: exit code {code} after {seconds:.0f} s", flush=True)
        code, seconds, answer, line = inside(root, first, uv_cache)
        print(f"  then: exit code {code} after {seconds:.0f} s: {line}", flush=True)
        found = (json.loads(answer)["answer"] if answer else None) or {}
        yield "answer", f"{found.get('change')} in {found.get('first_after')}"
        yield "seconds", f"{seconds:.0f}"
    if tests:
        code, seconds, told, line = inside(root, SECOND.strip(), uv_cache)
        summary = (told.splitlines() or [line])[-1]
        print(f"  the tests: exit code {code} after {seconds:.0f} s: {summary}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="the README's commands on a bare Debian")
    parser.add_argument("--suite", action="append", help="bookworm and trixie by default")
    parser.add_argument("--uv-cache", type=Path)
    parser.add_argument("--tests", action="store_true")
    options = parser.parse_args()
    told = {}
    for suite in options.suite or ("bookworm", "trixie"):
        with tempfile.TemporaryDirectory(prefix="vbisect-bare-") as folder:
            root = Path(folder, "root")
            make_root(suite, root)
            export("HEAD", root / "root" / "vbisect")
            print(f"{suite}, {', '.join(PACKAGES)}:", flush=True)
            told[suite] = dict(steps(root, options.uv_cache, tests=options.tests))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
