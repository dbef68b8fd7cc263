"""Which Pythons a release can be installed with."""

from __future__ import annotations

from packaging.version import Version

_LIMITED_SINCE = Version("0.8.4")
"""From here on vLLM's own metadata say so: ``<3.13,>=3.9``. Older releases say ``>=3.9``, yet the
ray that they pin (2.40 in 0.7.3, below 2.44 in 0.8.3) has no wheel for Python 3.13."""


def pythons_of(version: str, requires_python: str) -> str:
    """The Pythons that a release takes (PEP 440), of those that its metadata say it takes."""
    if Version(version) < _LIMITED_SINCE:
        return f"{requires_python},<3.13"
    return requires_python
