"""The report in a real browser: it works by mouse, by key and on a phone, and shuts nobody out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browser.pages import VERSIONS, Looked, written
from hostile import NASTY
from made import TOKEN
from test_readme import recorded_run

pytestmark = pytest.mark.browser

Look = Callable[..., Looked]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESK = {"viewport": {"width": 1280, "height": 900}}
DEVICES = pytest.mark.parametrize("device", [PHONE, DESK], ids=["phone", "desk"])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
# the rule about the size of what is touched is off in axe unless it is asked for
RUN_AXE = (
    "async () => (await axe.run(document, {rules: {'target-size': {enabled: true}}})).violations"
)


def expect(found: Any) -> Any:
    """Playwright's, which waits until what it expects is true."""
    from playwright.sync_api import expect

    return expect(found)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with every outcome."""
    return written(tmp_path_factory.mktemp("run"))


def violations(looked: Looked, axe: str) -> list[str]:
    """What axe-core finds, in its words, with the elements it is about."""
    looked.page.evaluate(axe)
    return [
        f"{each['id']}: {[node['html'][:120] for node in each['nodes'][:3]]}"
        for each in looked.page.evaluate(RUN_AXE)
    ]


@SCHEMES
@DEVICES
def test_nobody_is_shut_out(
    look: Look, axe: str, report: Path, scheme: str, device: dict[str, Any]
) -> None:
    """axe-core finds nothing wrong, with everything closed and with everything open."""
    looked = look(report, color_scheme=scheme, **device)
    assert violations(looked, axe) == []
    for version in ("0.10.0", "0.20.0", "0.21.0", "0.33.0"):
        looked.version(version).click()
        expect(looked.details(version)).to_be_visible()
    looked.page.get_by_role("button", name="untested").click()
    assert violations(looked, axe) == []


@DEVICES
def test_nothing_is_wider_than_the_screen(look: Look, report: Path, device: dict[str, Any]) -> None:
    """Long words wrap, and the page never scrolls sideways."""
    looked = look(report, **device)
    looked.version("0.10.0").click()
    expect(looked.details("0.10.0")).to_be_visible()
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert looked.page.evaluate(wide) == 0


@SCHEMES
def test_the_scheme_is_the_readers(look: Look, report: Path, scheme: str) -> None:
    """Light on dark or dark on light, as the system is set."""
    looked = look(report, color_scheme=scheme, **DESK)
    colour = "getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] * 1"
    assert (looked.page.evaluate(colour) < 128) == (scheme == "dark")


def test_the_verdict_comes_first(look: Look, report: Path) -> None:
    """What was found stands above everything, with the candidates in their order below it."""
    looked = look(report, **DESK)
    expect(looked.page.get_by_role("heading", level=1)).to_have_text(
        "fixed between 0.20.0 and 0.23.0"
    )
    expect(looked.page.get_by_role("banner")).to_contain_text("0.971")
    for name in ("For somebody on 0.10.0", "Variations", "Commits from 0.20.0 to 0.23.0"):
        expect(looked.page.get_by_role("region", name=name)).to_be_visible()
    expect(looked.page.get_by_role("link", name="PR 123").first).to_be_visible()
    stops = looked.page.locator(".timeline").get_by_role("link")
    expect(stops).to_have_count(len(VERSIONS))
    expect(stops.first).to_have_accessible_name("0.10.0: fail, tested as number 1")
    expect(looked.stop("0.20.0")).to_have_accessible_name(
        "0.20.0: fail, tested as number 3, last before"
    )
    expect(looked.stop("0.22.0")).to_have_accessible_name(
        "0.22.0: skip, tested as number 6, suspect"
    )
    inside = looked.page.locator(".timeline .in")
    expect(inside).to_have_text(["0.20.0", "0.21.0", "0.22.0", "0.23.0"])


def test_a_version_opens_and_closes(look: Look, report: Path) -> None:
    """By mouse, by Enter, and by Escape, which gives the keys back to the version."""
    looked = look(report, **DESK)
    button = looked.version("0.20.0")
    expect(button).to_have_attribute("aria-expanded", "false")
    button.click()
    details = looked.details("0.20.0")
    expect(button).to_have_attribute("aria-expanded", "true")
    for words in (
        "returned 2 of 4 choices (3 of 18 times)",
        "received n=4",
        "Control model",
        "n=16",
        "Request: POST /v1/chat/completions",
        "Response to n = 4: HTTP 200 in 0.40 s, 1 choices",
        "INFO line 0 of 0.20.0",
        "INFO line 2999 of 0.20.0",
        "bytes left out",
        "torch==2.9",
        "9.4 GB",
    ):
        expect(details).to_contain_text(words)
    button.click()
    expect(details).to_have_count(0)
    button.press("Enter")
    expect(details).to_be_visible()
    details.get_by_label("server.log").press("Escape")
    expect(details).to_have_count(0)
    expect(button).to_be_focused()
    button.press("ArrowDown")
    expect(looked.version("0.21.0")).to_be_focused()


def test_the_timeline_is_walked_by_keys(look: Look, report: Path) -> None:
    """One stop of the tab key, arrows from version to version, Enter shows one."""
    looked = look(report, **DESK)
    looked.stop("0.10.0").focus()
    looked.page.keyboard.press("ArrowLeft")
    expect(looked.stop("0.10.0")).to_be_focused()
    looked.page.keyboard.press("End")
    expect(looked.stop("0.33.0")).to_be_focused()
    looked.page.keyboard.press("ArrowLeft")
    expect(looked.stop("0.32.0")).to_be_focused()
    looked.page.keyboard.press("Tab")
    expect(looked.page.locator(".timeline :focus")).to_have_count(0)
    looked.page.keyboard.press("Shift+Tab")
    expect(looked.stop("0.32.0")).to_be_focused()
    looked.page.keyboard.press("End")
    looked.page.keyboard.press("Enter")
    expect(looked.details("0.33.0")).to_be_visible()
    expect(looked.version("0.33.0")).to_be_focused()


def shown(looked: Looked) -> Any:
    """The rows of versions that are to be seen."""
    return looked.page.locator("#versions > tr:not(.details):visible")


def test_the_table_is_filtered(look: Look, report: Path) -> None:
    """By outcome, by words, by both; and what is looked for in the timeline is always shown."""
    looked = look(report, **DESK)
    status = looked.page.get_by_role("status")
    expect(shown(looked)).to_have_count(24)
    expect(status).to_have_text("24 of 24 shown")
    for outcome in ("untested", "pass"):
        button = looked.page.get_by_role("button", name=outcome)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "false")
    expect(shown(looked)).to_have_count(5)
    looked.page.get_by_label("Find").fill("0.2")
    expect(shown(looked)).to_have_count(3)
    looked.page.get_by_label("Find").fill("OF 4 Choices")
    expect(status).to_have_text("4 of 24 shown")
    looked.page.get_by_label("Find").fill("nowhere to be found")
    expect(shown(looked)).to_have_count(0)
    looked.stop("0.33.0").click()
    expect(looked.details("0.33.0")).to_be_visible()
    expect(shown(looked)).to_have_count(24)


def test_an_address_names_a_version(look: Look, report: Path) -> None:
    """What stands behind the # of a link opens."""
    looked = look(report, **DESK)
    looked.stop("0.20.0").click()
    expect(looked.details("0.20.0")).to_be_visible()
    looked.page.reload()
    expect(looked.details("0.20.0")).to_be_visible()
    looked.requests.pop()


def test_many_candidates_fit(look: Look, axe: str, tmp_path: Path) -> None:
    """Of more candidates than have room for their names, the timeline shows the shapes."""
    looked = look(written(tmp_path, older=130), **DESK)
    stops = looked.page.locator(".timeline").get_by_role("link")
    expect(stops).to_have_count(130 + len(VERSIONS))
    expect(stops.first).to_have_accessible_name("0.9.0: untested")
    expect(stops.first).to_have_text("")
    looked.page.get_by_role("link", name="0.20.0: fail").click()
    expect(looked.details("0.20.0")).to_be_in_viewport()
    looked.page.get_by_label("Find").fill("0.9.12")
    expect(looked.page.get_by_role("status")).to_have_text("11 of 154 shown")
    assert violations(looked, axe) == []


def test_without_scripts_the_table_is_there(look: Look, report: Path) -> None:
    """Verdict, timeline and table need no JavaScript; what does is not offered."""
    looked = look(report, java_script_enabled=False, **DESK)
    expect(looked.page.locator("#versions").get_by_role("row")).to_have_count(len(VERSIONS))
    expect(looked.page.get_by_label("Find")).to_be_hidden()
    expect(looked.page.get_by_text("need JavaScript")).to_be_visible()
    looked.stop("0.33.0").click()
    expect(looked.page.locator("#v23:target")).to_be_visible()


def test_it_can_be_printed(look: Look, report: Path) -> None:
    """On paper there are no filters, and what is open is there to its end."""
    looked = look(report, color_scheme="dark", **DESK)
    looked.version("0.20.0").click()
    log = looked.details("0.20.0").get_by_label("server.log")
    expect(log).to_be_visible()
    looked.page.emulate_media(media="print")
    expect(looked.page.get_by_label("Find")).to_be_hidden()
    cut = "element => element.scrollHeight - element.clientHeight"
    assert log.evaluate(cut) == 0
    assert looked.page.pdf().startswith(b"%PDF")


@DEVICES
def test_hostile_text_stays_text(
    look: Look, axe: str, tmp_path: Path, device: dict[str, Any]
) -> None:
    """Nothing runs, asks or is loaded, whatever servers say; and no token is shown."""
    looked = look(written(tmp_path, "".join(NASTY)), **device)
    for version in ("0.10.0", "0.20.0", "0.21.0", "0.33.0"):
        looked.version(version).click()
        expect(looked.details(version)).to_be_visible()
    expect(looked.details("0.20.0")).to_contain_text("<img src=x onerror=alert(1)>")
    assert TOKEN not in looked.page.content()
    assert looked.page.locator("img, iframe, object, svg, base, form[action]").count() == 0
    assert looked.page.locator("script").count() == 2
    assert violations(looked, axe) == []


def test_no_other_script_would_run(look: Look, report: Path) -> None:
    """The policy is in force: a script that got in all the same would not run."""
    looked = look(report, **DESK)
    looked.page.evaluate(
        "() => { const made = document.createElement('script');"
        " made.textContent = 'window.ran = true'; document.body.append(made); }"
    )
    assert looked.page.evaluate("window.ran") is None
    assert len(looked.complaints) == 1
    assert "Content Security Policy" in looked.complaints.pop()


@SCHEMES
@DEVICES
def test_the_recorded_page_shuts_nobody_out(
    look: Look, axe: str, scheme: str, device: dict[str, Any]
) -> None:
    """The page kept in results/ opens, and axe-core finds nothing wrong with it."""
    looked = look(recorded_run() / "report.html", color_scheme=scheme, **device)
    expect(looked.page.get_by_role("heading", level=1)).to_contain_text("fixed in 0.29.0")
    looked.version("0.28.0").click()
    expect(looked.details("0.28.0")).to_contain_text("returned 2 of 4 choices")
    assert violations(looked, axe) == []
