"""What the cache directory tells of its host: one name, whatever ended vbisect."""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vbisect.errors import HostError
from vbisect.paths import host_identity


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory that is not there yet."""
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_host_keeps_its_name() -> None:
    """Whoever asks first, or at the same time."""
    with ThreadPoolExecutor(8) as pool:
        (name,) = set(pool.map(lambda _: host_identity(), range(50)))
    assert len(name) == 32
    assert host_identity() == name


def test_a_full_disk_leaves_no_empty_name(cache: Path) -> None:
    """Two such hosts would count as the same; once there is room, there is a name."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))
        with pytest.raises(HostError, match="cannot be written: File too large"):
            host_identity()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not (cache / "host").exists()
    assert len(host_identity()) == 32


def test_an_empty_name_is_none(cache: Path) -> None:
    """As a killed vbisect left it."""
    cache.mkdir()
    (cache / "host").touch()
    assert len(host_identity()) == 32
