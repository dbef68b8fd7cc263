"""A real Chromium for the tests of the page; axe-core looks for what shuts people out."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browser.pages import Looked

MILLISECONDS = 180_000
"""A busy machine is no failure: so long may anything in the browser take."""


def needed(program: str) -> str:
    """The path of a program, or a skip where this host lacks it; where $VBISECT_CI is set, fail."""
    path = shutil.which(program)
    if path is None:
        if os.environ.get("VBISECT_CI"):
            pytest.fail(f"{program} is not installed, and VBISECT_CI is set")
        pytest.skip(f"{program} is not installed")
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, one for all tests of a worker."""
    chromium = needed("chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=MILLISECONDS)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
            timeout=MILLISECONDS,
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, of the version that package.json names."""
    npm = needed("npm")
    folder = tmp_path_factory.mktemp("npm")
    shutil.copy(Path(__file__).parent / "package.json", folder)
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock")
    subprocess.run([npm, "install", *quiet], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    return source.read_text(encoding="utf-8")


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Looked]]:
    """Opens a file in the browser; at the end nothing may have complained, asked or been loaded."""
    opened: list[Looked] = []

    def open_file(path: Path, **context: Any) -> Looked:
        opened.append(Looked(browser.new_context(**context), path, MILLISECONDS))
        return opened[-1]

    yield open_file
    for looked in opened:
        looked.close()
    for looked in opened:
        assert looked.complaints == []
        assert looked.requests == [looked.address]
