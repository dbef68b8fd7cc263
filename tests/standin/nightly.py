"""vLLM's index of development builds on the loopback interface: a folder for each commit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import quote

from .behaviour import Behaviour
from .index import PackageIndex
from .wheels import build_wheel

DAY = datetime(2026, 11, 20, tzinfo=UTC)


class NightlyIndex(PackageIndex):
    """Serves the CPU builds of commits; the last one that was added is the nightly.

    As vLLM's .buildkite/scripts/generate-nightly-index.py lays it out: `/<commit>/cpu/vllm/` for
    pip, `metadata.json` beside it unless `described` is false, and the wheel in `/<commit>/`.
    """

    def __init__(self, directory: Path, *, described: bool = True) -> None:
        super().__init__(directory)
        self._described_too = described
        self._commits: dict[str, tuple[PackageIndex, str, datetime]] = {}

    @property
    def nightly(self) -> str:
        """The address for VBISECT_NIGHTLY_INDEX."""
        return f"{self.base}/nightly"

    def add(
        self,
        commit: str,
        version: str,
        behaviour: Behaviour,
        built: datetime = DAY,
        requires: tuple[str, ...] = (),
    ) -> None:
        """Serve a build of `commit` under the name that the wheel of `version` has."""
        wheel = build_wheel(self.directory / commit, "vllm", version, behaviour, requires=requires)
        self._commits[commit] = (PackageIndex(wheel.parent), version, built)

    def _asked(self, path: str) -> tuple[str, str] | None:
        """The commit and the rest of a path, where there is such a build."""
        found = re.fullmatch(r"/(nightly|[0-9a-f]{40})(?:/cpu)?(/.*)", path)
        if found is None or not self._commits:
            return None
        commit = [*self._commits][-1] if found[1] == "nightly" else found[1]
        return (commit, found[2]) if commit in self._commits else None

    def _headers(self, path: str) -> Mapping[str, str]:
        asked = self._asked(path)
        if asked is None:
            return {}
        return {"last-modified": format_datetime(self._commits[asked[0]][2], usegmt=True)}

    def _answer(self, path: str, wants_json: bool) -> tuple[int, str, bytes]:
        asked = self._asked(path)
        if asked is None:
            return 404, "text/plain", b"404 Not Found"
        commit, rest = asked
        index, version, _ = self._commits[commit]
        if rest == "/vllm/metadata.json" and self._described_too:
            [wheel] = index.directory.glob("vllm-*.whl")
            entry = {"package_name": "vllm", "version": version, "filename": wheel.name}
            entry["path"] = f"../../../{commit}/{quote(wheel.name)}"
            return 200, "application/json", json.dumps([entry]).encode()
        if rest.startswith("/files/"):
            return index._answer(rest, wants_json)
        status, kind, body = index._answer(f"/simple{rest}", wants_json)
        return status, kind, body.replace(b"/files/", f"/{commit}/files/".encode())
