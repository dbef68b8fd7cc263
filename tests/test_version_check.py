"""What ran is what was asked for: the server's own word against the release."""

from __future__ import annotations

import pytest

from vbisect.launch.readiness import check_version
from vbisect.reasons import SkipReason, Untestable


@pytest.mark.parametrize(
    ("reported", "wanted", "wheel"),
    [
        ("0.28.0", "0.28.0", "0.28.0"),
        ("0.28.0+cpu", "0.28.0", "0.28.0"),
        ("0.12.0.post2", "0.12.0", "0.12.0.post2"),
        ("0.12.0", "0.12.0", "0.12.0.post2"),
        ("0.33.1.dev5+g0123abc", "0.33.1.dev5+g0123abc", "0.33.1.dev5+g0123abc"),
        ("0.33.1.dev5+g0123abc", "0.33.1.dev5+g0123abc.cpu", "0.33.1.dev5+g0123abc.cpu"),
    ],
)
def test_the_same_version_is_accepted(reported: str, wanted: str, wheel: str) -> None:
    check_version(reported, wanted, wheel)


@pytest.mark.parametrize(
    ("reported", "wanted"),
    [
        ("0.28.1", "0.28.0"),
        ("0.28.0.post1", "0.28.0"),
        ("0.28.0rc1", "0.28.0"),
        ("dev", "0.28.0"),
        ("", "0.28.0"),
        ("0.33.1.dev5+g4567def", "0.33.1.dev5+g0123abc"),
        ("0.33.1.dev5", "0.33.1.dev5+g0123abc"),
    ],
)
def test_any_other_version_is_a_skip_that_says_so(reported: str, wanted: str) -> None:
    with pytest.raises(Untestable) as skipped:
        check_version(reported, wanted, wanted)
    assert skipped.value.reason is SkipReason.WRONG_VERSION
    assert wanted in skipped.value.detail
