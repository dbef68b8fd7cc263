"""What is shipped of vLLM's arguments is what its releases have; little of them is read for it."""

from __future__ import annotations

import base64
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from standin.index import PackageIndex
from tools.refresh_changes import NoRanges, fetch, history, read_release
from vbisect.releases import catalogue
from vbisect.releases.changes import changes

ARGUMENTS = """
class EngineArgs:
    swap_space: float = 4.0

    def add_cli_args(parser):
        parser.add_argument("--swap-space", type=float, default=EngineArgs.swap_space)
        parser.add_argument("--tensor-parallel-size", "-tp", type=int)
"""
VARIABLES = 'environment_variables = {"VLLM_USE_V1": lambda: 1}'


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    """An index that pip is configured for, with two wheels that are compiled code for the most."""
    for version, arguments in (("9.1", ARGUMENTS), ("9.2", ARGUMENTS.replace("swap", "wrap"))):
        info = f"vllm-{version}.dist-info"
        files = {
            "vllm/_C.abi3.so": base64.b64encode(random.Random(1).randbytes(3_000_000)).decode(),
            "vllm/engine/arg_utils.py": arguments,
            "vllm/envs.py": VARIABLES,
            "vllm/other.py": "raise SystemExit(1)",
            "vllm/zz.so": base64.b64encode(random.Random(2).randbytes(3_000_000)).decode(),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }
        path = tmp_path / f"vllm-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(name, text)
    with PackageIndex(tmp_path) as served:
        for name, value in served.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield served


def test_only_the_files_that_matter_are_read_of_a_wheel(
    index: PackageIndex, tmp_path: Path
) -> None:
    """A wheel of CUDA has hundreds of megabytes: it is not downloaded for a few files."""
    folder = tmp_path / "sources"
    with httpx.Client() as client:
        fetched = [fetch(client, version, folder) for version in ("9.1", "9.2")]
        assert [each.files for each in fetched] == [2, 2]
        assert index.sent < sum(each.wheel_bytes for each in fetched) / 10
        assert sum(each.read_bytes for each in fetched) <= index.sent
        read = {version: read_release(folder / version) for version in ("9.1", "9.2")}
        sent = index.sent
        assert fetch(client, "9.1", folder).files == 2
    assert index.sent == sent, "what is there already is not asked for again"
    made = history(read)
    assert made["arguments"] == {
        "--swap-space": {"spans": [["9.1", "9.1"]]},
        "--tensor-parallel-size": {"spans": [["9.1", None]]},
        "--wrap-space": {"spans": [["9.2", None]]},
    }
    assert made["variables"] == {"VLLM_USE_V1": {"spans": [["9.1", None]]}}
    assert made["aliases"] == {"-tp": "--tensor-parallel-size"}


def test_a_server_that_sends_everything_is_not_read_from(
    index: PackageIndex, tmp_path: Path
) -> None:
    index.ranges = False
    with httpx.Client() as client, pytest.raises(NoRanges, match="does not give parts"):
        fetch(client, "9.1", tmp_path / "sources")


def test_every_catalogued_release_was_read() -> None:
    """Those without a CPU wheel too: 0.7.3 … 0.8.4, 0.8.5.post1 and 0.33.0."""
    assert changes().read == tuple(catalogue())


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("--device", "0.7.3", "0.9.2"),
        ("--enable-reasoning", "0.7.3", "0.9.2"),
        ("--num-scheduler-steps", "0.7.3", "0.10.0"),
        ("--guided-decoding-backend", "0.7.3", "0.11.2"),
        ("--task", "0.7.3", "0.12.0"),
        ("--swap-space", "0.7.3", "0.17.1"),
        ("--speculative-model", "0.7.3", "0.8.2"),
        ("--disable-log-requests", "0.7.3", "0.16.0"),
        ("--enable-log-requests", "0.10.1", None),
        ("--enable-scale-out", "0.30.0", None),
        ("--limit-mm-per-prompt", "0.7.3", None),
        ("VLLM_USE_V1", "0.7.3", "0.11.0"),
        ("VLLM_MAIN_CUDA_VERSION", "0.11.0", None),
    ],
)
def test_what_came_and_went_is_known(name: str, first: str, last: str | None) -> None:
    """By vLLM's own sources (the table of them in its release notes says the same)."""
    known = changes()
    setting = known.arguments.get(name) or known.variables[name]
    assert setting.spans == ((first, last),)


def test_the_forms_of_limits_of_pictures_are_told_by_release() -> None:
    """image=2 up to 0.9.2, JSON from 0.8.5 on; both between."""
    notes = {note.since: note.text for note in changes().notes["--limit-mm-per-prompt"]}
    assert list(notes) == ["0.8.5", "0.10.0"]
    assert "JSON too" in notes["0.8.5"]
    assert "JSON only" in notes["0.10.0"]
