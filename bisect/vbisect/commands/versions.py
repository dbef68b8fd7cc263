"""``vbisect versions``: which releases there are, and where each can be had."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from packaging.version import Version

from vbisect.errors import UsageError
from vbisect.releases import Device, KnownReleases, Release, catalogue, known_releases
from vbisect.releases.candidates import parse_version
from vbisect.releases.image_tags import TaggedImage, tagged_images

Images = Mapping[str, TaggedImage] | None


def list_known(
    start: str | None, end: str | None, *, pre: bool, image_repo: str | None, json_output: bool
) -> None:
    """Print the releases between ``start`` and ``end`` (all where ``None``).

    With ``image_repo`` that registry is asked for their images too.
    """
    known = known_releases(pre=pre)
    low = parse_version(start) if start else None
    high = parse_version(end) if end else None
    if low and high and low > high:
        raise UsageError(f"--from {start} is newer than --to {end}.")
    chosen = [
        release
        for release in known.releases
        if (low is None or Version(release.version) >= low)
        and (high is None or Version(release.version) <= high)
    ]
    for warning in known.warnings:
        print(f"vbisect: {warning}", file=sys.stderr)
    images = tagged_images(image_repo, [r.version for r in chosen]) if image_repo else None
    if json_output:
        print(json.dumps(_as_json(chosen, known, images)))
    else:
        _print_table(chosen, images)


def _facts(release: Release, images: Images) -> dict[str, object]:
    entry = catalogue().get(release.version)
    return {
        "version": release.version,
        "released": entry.uploaded[:10] if entry else None,
        "wheels": {
            device: f"{wheel.distribution}=={wheel.version}"
            for device, wheel in sorted(release.wheels.items())
        },
        "requires_python": entry.requires_python if entry else None,
        "torch": entry.torch if entry else None,
        "image_cuda": entry.cuda if entry else None,
        **({} if images is None else {"image": _image(images.get(release.version))}),
    }


def _image(image: TaggedImage | None) -> dict[str, object] | None:
    return image.model_dump(mode="json") if image else None


def _as_json(chosen: list[Release], known: KnownReleases, images: Images) -> dict[str, object]:
    return {
        "schema": 1,
        "source": known.source,
        "warnings": list(known.warnings),
        "versions": [_facts(release, images) for release in chosen],
    }


def _print_table(chosen: list[Release], images: Images) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("version", "released", "CUDA wheel", "CPU wheel", "python", "torch", box=None)
    if images is not None:
        table.add_column("image")
        table.add_column("GB", justify="right")
    for release in chosen:
        entry = catalogue().get(release.version)
        wheels = [release.wheels.get(device) for device in (Device.CUDA, Device.CPU)]
        table.add_row(
            release.version,
            entry.uploaded[:10] if entry else "",
            *(f"{w.distribution} {w.version}" if w else "–" for w in wheels),
            entry.requires_python if entry else "",
            entry.torch if entry else "",
            *(_cells(images.get(release.version)) if images is not None else ()),
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _cells(image: TaggedImage | None) -> tuple[str, str]:
    if image is None:
        return "–", ""
    return (image.digest or "")[:19], f"{image.size / 1e9:.1f}"
