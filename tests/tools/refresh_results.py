"""Render the recorded run in results/ again, and take its picture, after a change to a report.

    python tests/tools/refresh_results.py [RUN_DIR]

The picture needs playwright and Debian's chromium. Results do not depend on where this runs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vbisect.report.comment import to_comment
from vbisect.report.formats import FILES, render
from vbisect.run.state import load_state

RESULTS = Path(__file__).resolve().parents[2] / "results"
PICTURE = "screenshot.png"
RECORDED_IN = "/root"
"""The home directory of who recorded the run: its logs name it, and reports say ``~``."""
WIDTH, MOST_HEIGHT = 1200, 1800
"""Of the picture, in the page's own pixels."""
END = "document.querySelector('#versions').closest('section').getBoundingClientRect().bottom"
"""Where the table of versions ends; what is further down is left out."""


def rendered(run_dir: Path) -> dict[str, str]:
    """Every report that is kept of a run, by its file's name."""
    state, _ = load_state(run_dir)
    with _home(RECORDED_IN):
        made = {name: render(format_name, state, run_dir) for name, format_name in FILES.items()}
        return {**made, "comment.md": to_comment(state, run_dir).body}


@contextmanager
def _home(directory: str) -> Iterator[None]:
    ours = os.environ.get("HOME")
    os.environ["HOME"] = directory
    try:
        yield
    finally:
        if ours is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = ours


def take_picture(page: Path, picture: Path) -> None:
    """A picture of the page as a reader with a wide, light screen sees it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(
            viewport={"width": WIDTH, "height": MOST_HEIGHT}, color_scheme="light"
        )
        opened.goto(page.as_uri())
        opened.wait_for_selector(".js")
        height = min(MOST_HEIGHT, int(opened.evaluate(END)) + 20)
        opened.screenshot(path=picture, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        browser.close()


def main() -> None:
    """Write the reports, then the picture."""
    given = sys.argv[1:]
    run_dir = Path(given[0]).absolute() if given else max(RESULTS.glob("*/"))
    for name, text in rendered(run_dir).items():
        (run_dir / name).write_text(text, encoding="utf-8")
    take_picture(run_dir / "report.html", run_dir / PICTURE)


if __name__ == "__main__":
    main()
