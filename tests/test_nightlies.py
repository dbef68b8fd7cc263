"""Nightly builds: by which names they are had, and where they stand among the releases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.version import Version

from driving import Vbisect
from standin.behaviour import Behaviour
from standin.nightly import NightlyIndex
from standin.scripted import Reply, ScriptedServer
from standin.wheels import dependency
from vbisect.errors import UsageError
from vbisect.registry import Registry
from vbisect.releases import (
    Device,
    KnownReleases,
    RangeRequest,
    Release,
    catalogue,
    select_range,
)
from vbisect.releases.nightly_image import NightlyImages
from vbisect.releases.nightly_version import nightly_version
from vbisect.releases.nightly_wheel import NightlyWheels

KNOWN = KnownReleases(tuple(Release(version=v, wheels={}) for v in catalogue()), "catalogue")
OLD, NEW = "a" * 40, "b" * 40
UPLOADED = {v: datetime.fromisoformat(entry.uploaded) for v, entry in catalogue().items()}
QUICK = ("--endpoint", "chat", "--n", "4", "--confidence", "0.6")
BAD, GOOD = Behaviour(fail_rate={"chat": 1.0}), Behaviour()
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@example(datetime(2025, 5, 1), None)  # between 0.8.5 and 0.8.5.post1
@example(datetime(2025, 5, 29), None)  # between 0.9.0 and 0.9.0.1
@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)),
    st.sampled_from(["0.27.1rc1.dev949", "1.0.0.dev0", "0.33.1.dev3", "0.8.5.dev77", None]),
)
def test_a_nightly_is_newer_than_what_was_out_and_older_than_what_was_not(
    moment: datetime, own: str | None
) -> None:
    """Whatever its own version says: vLLM tags its releases on branches."""
    built = moment.replace(tzinfo=UTC)
    numbered = Version(f"{own}+g{OLD[:9]}") if own else None
    named = Version(nightly_version(built, OLD, KNOWN, own=numbered))
    out = [Version(version) for version, uploaded in UPLOADED.items() if uploaded <= built]
    newest = max(out, default=Version("0"))
    assert all(version < named for version in out)
    # a patch release of an older branch may come later than the next minor one
    assert all(named < Version(v) for v in UPLOADED if Version(v) > newest)
    assert named.local == f"g{OLD[:9]}"
    assert named.is_devrelease


def test_a_build_keeps_its_own_version_where_that_says_where_it_stands() -> None:
    day = datetime(2026, 11, 20, tzinfo=UTC)
    own = Version(f"0.33.1.dev42+g{OLD[:7]}.cpu")
    assert nightly_version(day, OLD, KNOWN, own=own) == str(own)
    assert nightly_version(day, NEW, KNOWN, own=own) == "0.33.1.dev202611200000+gbbbbbbbbb"
    late = nightly_version(day, OLD, KNOWN, own=Version(f"0.27.1rc1.dev949+g{OLD[:9]}"))
    assert late == "0.33.1.dev202611200000+gaaaaaaaaa"


@pytest.mark.parametrize("built", [None, datetime(1970, 1, 1, tzinfo=UTC)])
def test_a_build_that_does_not_tell_its_day_is_one_of_today(built: datetime | None) -> None:
    """Images that are made to be the same each time say 1970."""
    assert Version(nightly_version(built, None, KNOWN)) > Version("0.33.0")


def test_ends_in_the_wrong_order_are_told_as_they_were_asked() -> None:
    with pytest.raises(UsageError) as wrong:
        select_range(RangeRequest("0.28.0", "0.27.1"), KNOWN, NightlyWheels(Device.CPU))
    assert str(wrong.value) == "--from 0.28.0 is newer than --to 0.27.1."


# --- images


class FakeRegistry(ScriptedServer):
    """A registry with images by tag, each built on a day."""

    def hold(self, repository: str, tags: dict[str, datetime | None]) -> None:
        """Have these tags and no others; the digests by tag are in ``digests``."""
        self.digests: dict[str, str] = {}
        self.on(f"/v2/{repository}/tags/list", Reply(body={"name": repository, "tags": list(tags)}))
        for tag, created in tags.items():
            config: dict[str, Any] = {"os": "linux", "architecture": "amd64", "config": {}}
            config["rootfs"] = {"type": "layers", "diff_ids": []}
            if created:
                config["created"] = created.isoformat()
            config["history"] = [{"comment": tag.replace("-" + NEW, "")}]
            blob = json.dumps(config).encode()
            manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}
            manifest["config"] = {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": _digest(blob),
                "size": len(blob),
            }
            content = json.dumps(manifest).encode()
            self.digests[tag] = _digest(content)
            headers = {"Content-Type": MANIFEST, "Docker-Content-Digest": _digest(content)}
            for target in (tag, _digest(content)):
                self.on(f"/v2/{repository}/manifests/{target}", Reply(200, content, headers))
            self.on(f"/v2/{repository}/blobs/{_digest(blob)}", Reply(200, blob))


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        yield server


def test_a_variant_is_the_beginning_of_a_nightlys_tag(registry: FakeRegistry) -> None:
    """`cu129-nightly` and `cu129-nightly-<commit>`; those of other variants are other builds."""
    day = datetime(2026, 11, 20, tzinfo=UTC)
    registry.hold(
        "a/b",
        {
            "nightly": day,
            f"nightly-{NEW}": day,
            "cu129-nightly": day + timedelta(hours=1),
            f"cu129-nightly-{NEW}": day + timedelta(hours=1),
            f"cu129-nightly-{OLD}": day - timedelta(days=1),
        },
    )
    with Registry() as asked:
        nightlies = NightlyImages(asked, f"{registry.host}/a/b", "linux/amd64", "cu129")
        chosen = select_range(RangeRequest("0.33.0", "nightly"), KNOWN, nightlies)
        oldest, between, newest = chosen.candidates
        assert oldest.version == "0.33.0"
        assert (between.commit, newest.commit) == (OLD, NEW)
        assert (newest.image or "").endswith(registry.digests["cu129-nightly"])
        assert (between.image or "").endswith(registry.digests[f"cu129-nightly-{OLD}"])
        only = NightlyImages(asked, f"{registry.host}/a/b", "linux/amd64", "cu130")
        chosen = select_range(RangeRequest("0.32.0", "nightly"), KNOWN, only)
        assert "NO NIGHTLY" in chosen.notes[0]
        assert "cu130-nightly" in chosen.notes[0]


# --- wheels


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NightlyIndex]:
    """vLLM's index of builds, empty; this process asks it too."""
    with NightlyIndex(tmp_path / "nightly") as served:
        monkeypatch.setenv("VBISECT_NIGHTLY_INDEX", served.nightly)
        yield served


def test_the_wheels_of_two_commits_are_ends(vbisect: Vbisect, index: NightlyIndex) -> None:
    """Of the time when all had one name, too: each is installed, and told by its commit."""
    day = datetime(2025, 6, 20, tzinfo=UTC)
    for number, (commit, behaviour) in enumerate(((OLD, BAD), (NEW, GOOD))):
        told = f"0.9.2.dev{number}+g{commit[:9]}"
        index.add(
            commit,
            "1.0.0.dev0",
            Behaviour(**{**vars(behaviour), "reported_version": told}),
            day + timedelta(days=number),
        )
    ends = ("--from", f"nightly-{OLD}", "--to", f"nightly-{NEW}")
    done = vbisect.run(*ends, *QUICK, VBISECT_NIGHTLY_INDEX=index.nightly)
    assert done.returncode == 0, done.stderr
    versions = ["0.9.2.dev202506200000+gaaaaaaaaa", "0.9.2.dev202506210000+gbbbbbbbbb"]
    assert done.json["candidates"] == versions
    assert done.json["answer"]["first_after"] == versions[1]
    digests = {trial["build"]["digest"] for trial in done.trials.values()}
    assert len(digests) == 2
    assert f"--from nightly-{OLD} --to nightly-{NEW}" in done.json["replay"]
    unknown = vbisect.run(
        *("--from", "0.31.0", "--to", f"nightly-{'c' * 40}", *QUICK),
        VBISECT_NIGHTLY_INDEX=index.nightly,
    )
    assert unknown.returncode == 2
    assert f"nightly-{'c' * 40}: there is no wheel for --device cpu" in unknown.stderr


def test_a_nightly_with_an_old_number_is_the_newest(vbisect: Vbisect, index: NightlyIndex) -> None:
    """It is pinned to the folder of its commit, and its dependencies are no pre-releases."""
    own = f"0.27.1rc1.dev949+g{NEW[:9]}.cpu"
    index.add(NEW, own, GOOD, requires=("standin_dep",))
    for version in ("1.0", "2.0rc1"):
        dependency(index.directory / NEW, "standin_dep", version)
    done = vbisect.run(
        *("--from", "0.32.0", "--to", "nightly", *QUICK), VBISECT_NIGHTLY_INDEX=index.nightly
    )
    version = f"0.33.1.dev202611200000+g{NEW[:9]}"
    assert done.json["candidates"] == ["0.32.0", "0.33.0", version]
    assert f"nightly is {version}, {own} on its index." in done.stderr
    assert done.trials[version]["outcome"] == "pass", done.trials[version]
    assert done.trials[version]["reported_version"] == own
    facts = json.loads((done.run_dir / "trials" / version / "environment.json").read_text())
    assert "standin_dep==1.0" in facts["build"]["packages"]
    assert f"--to nightly-{NEW} " in done.json["replay"]
