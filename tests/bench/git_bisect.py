"""The peer: ``git bisect run`` over the tags of versions, with the script a user would write."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

CHECK = """\
#!/bin/bash
# Exit 0: still broken; 1: fixed; 125: cannot be told.
image=$IMAGES:v$(cat VERSION)
docker pull --quiet "$image" >/dev/null || exit 125
server=$(docker run --detach --publish 127.0.0.1::8000 "$image" \\
    --model "$MODEL" --load-format dummy --host 0.0.0.0 --port 8000) || exit 125
trap 'docker rm --force "$server" >/dev/null' EXIT
url=http://$(docker port "$server" 8000/tcp)
until curl --silent --fail "$url/health"; do
    sleep 0.5
    [ $((waited += 1)) -lt 600 ] || exit 125
done
body='{"model": "'$MODEL'", "token_ids": [10, 11, 12], "sampling_params": {"n": 4}}'
choices=$(curl --silent --fail --header 'Content-Type: application/json' --data "$body" \\
    "$url/inference/v1/generate" | jq '.choices | length')
case $choices in 4) exit 1 ;; [123]) exit 0 ;; *) exit 125 ;; esac
"""


class GitBisect:
    """A repository with a tagged commit for each version, and the script beside it."""

    def __init__(self, directory: Path, versions: Sequence[str]) -> None:
        self._repository = directory / "repository"
        self._script = directory / "check.sh"
        self._ends = f"v{versions[0]}", f"v{versions[-1]}"
        self._script.write_text(CHECK)
        self._script.chmod(0o755)
        self._repository.mkdir()
        self._git("init", "--quiet", "--initial-branch=main")
        self._git("config", "user.name", "user")
        self._git("config", "user.email", "user@localhost")
        for version in versions:
            (self._repository / "VERSION").write_text(f"{version}\n")
            self._git("add", "VERSION")
            self._git("commit", "--quiet", "--message", version)
            self._git("tag", f"v{version}")

    def search(self, env: Mapping[str, str]) -> tuple[float, str]:
        """Seconds until it has the first fixed version, and its tag; ``env`` is for the script."""
        before, after = self._ends
        began = time.monotonic()
        self._git("bisect", "start", "--term-old=broken", "--term-new=fixed", after, before)
        self._git("bisect", "run", str(self._script), env=env)
        seconds = time.monotonic() - began
        found = self._git("describe", "--tags", "refs/bisect/fixed").strip()
        self._git("bisect", "reset")
        return seconds, found

    def check_ends(self, env: Mapping[str, str]) -> float:
        """Seconds that the script takes for both ends, which ``git bisect`` takes for granted."""
        return self._check(self._ends, env)

    def check_again(self, fixed: str, env: Mapping[str, str]) -> float:
        """Seconds that it takes for the tag ``fixed`` and the one before, which were tested."""
        before = self._git("describe", "--tags", f"{fixed}~1").strip()
        return self._check((before, fixed), env)

    def _check(self, tags: Sequence[str], env: Mapping[str, str]) -> float:
        """Seconds that the script takes for a broken tag and a fixed one."""
        began = time.monotonic()
        for tag, expected in zip(tags, (0, 1), strict=True):
            self._git("checkout", "--quiet", tag)
            done = subprocess.run(
                [self._script], cwd=self._repository, env={**os.environ, **env}, check=False
            )
            assert done.returncode == expected, done
        return time.monotonic() - began

    def _git(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self._repository,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done
        return done.stdout
