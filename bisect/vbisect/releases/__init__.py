"""Which vLLM releases exist, in which order, and where each can be had."""

from vbisect.releases.candidates import Range, RangeRequest, lasting_name, select_range
from vbisect.releases.catalogue import CatalogueEntry, catalogue
from vbisect.releases.index import IndexUnavailable
from vbisect.releases.release import Device, Release, Wheel
from vbisect.releases.source import KnownReleases, known_releases

__all__ = [
    "CatalogueEntry",
    "Device",
    "IndexUnavailable",
    "KnownReleases",
    "Range",
    "RangeRequest",
    "Release",
    "Wheel",
    "catalogue",
    "known_releases",
    "lasting_name",
    "select_range",
]
