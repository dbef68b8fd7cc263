"""The HTML report holds what a run found, in a shape that no text of a server can change."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import html5lib
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hostile import NASTY, Hostile
from made import TOKEN, VERSIONS, failed, passed, releases, settings, state
from vbisect.probes import NChoicesSettings
from vbisect.probes.suite import SuiteSettings, Variation
from vbisect.report.html import to_html
from vbisect.run.comparisons import KeptCommit, KeptComparison
from vbisect.run.records import (
    Build,
    ControlRecord,
    ParametersSeen,
    ParametersStatus,
    Tally,
    VariationRecord,
)
from vbisect.run.state import RunState
from vbisect.search import Outcome

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FILES = ("request.json", "responses.jsonl", "server.log", "command.log", "environment.json")


def page(text: str) -> Any:
    """The page as a browser reads it."""
    return html5lib.parse(text, namespaceHTMLElements=False)


def shape(text: str) -> list[tuple[str, list[str]]]:
    """Every element of a page in order, with the names of its attributes."""
    return [(element.tag, sorted(element.attrib)) for element in page(text).iter()]


def told(text: str) -> dict[str, list[dict[str, Any]]]:
    """The details that the page holds of each version, by its index."""
    [block] = re.findall(r'<script type="application/json" id="details">([^<]*)</script>', text)
    details: dict[str, list[dict[str, Any]]] = json.loads(block)
    return details


def titles(text: str) -> list[list[str]]:
    """The titles of all sections; what is said of a request after a colon is the request's."""
    return [[each["title"].partition(":")[0] for each in made] for made in told(text).values()]


def full(text: str) -> RunState:
    """A run in which every word a server can choose says ``text``."""
    asked = Variation(name="n=1", n=1)
    suite = SuiteSettings(request=NChoicesSettings(), variations=(asked,), bisect_on=text)
    made = state(text, suite=suite, control_model=text)
    made.records["0.27.1"] = made.records["0.27.1"].model_copy(
        update={
            "build": Build(kind="venv", ref=text, digest=text),
            "reported_version": text,
            "engine": text,
            "notes": (text,),
            "measured": {"signatures": {text + "a": 2, text + "b": 1}, "latency_median": 0.5},
            "boots": (Tally(fails=2), Tally(fails=3)),
            "parameters": ParametersSeen(
                status=ParametersStatus.DIFFERENT,
                sentence=text,
                sent={"n": text},
                received={text: 1},
            ),
            "control": ControlRecord(model=text, outcome=Outcome.FAIL, signature=text),
            "variations": (VariationRecord(name="n=1", outcome=Outcome.FAIL, signature=text),),
        }
    )
    return made


def compared(text: str) -> tuple[KeptComparison, ...]:
    """What GitHub may list of a change."""
    commit = KeptCommit(sha=text, title=f"Return all n choices {text}")
    return (
        KeptComparison(
            last_before="0.27.1",
            first_after="0.29.0",
            base=text,
            head=text,
            total=2,
            commits=(commit,),
            files=(f"vllm/entrypoints/openai/serving_chat.py{text}",),
            problem=text,
        ),
    )


def evidence(run_dir: Path, text: str, raw: bytes = b"") -> Path:
    """A run directory in which every file says ``text``: as JSON, or as it is with ``raw`` bytes.

    The first version has the JSON that is to be expected, the others have anything.
    """
    content = text.encode("utf-8", "replace") + raw
    for version in VERSIONS:
        folder = run_dir / "trials" / version
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).write_bytes(content)
    folder = run_dir / "trials" / VERSIONS[0]
    request = {"method": "POST", "path": text, "body": {"prompt": text}}
    (folder / "request.json").write_text(json.dumps(request))
    body = json.dumps({"choices": [text]}, ensure_ascii=False)
    line = {"n": 1, "status": 200, "seconds": 1, "body": body}
    (folder / "responses.jsonl").write_text(json.dumps(line) + "\n")
    return run_dir


@hypothesis_settings(max_examples=25)
@given(Hostile, st.binary(max_size=40))
@example("".join(NASTY), b"\xff\xfe\x00" + "".join(NASTY[:-8]).encode("utf-8", "replace"))
@example(TOKEN, TOKEN.encode())
def test_the_page_keeps_its_shape(
    tmp_path_factory: pytest.TempPathFactory, text: str, raw: bytes
) -> None:
    """Whatever servers and logs say, the page has the elements of its template and no others."""
    calm_dir = evidence(tmp_path_factory.mktemp("calm"), "x")
    hostile_dir = evidence(tmp_path_factory.mktemp("hostile"), "x" + text, raw)
    calm = to_html(full("x"), calm_dir, comparisons=compared("x"))
    hostile = to_html(full("x" + text), hostile_dir, comparisons=compared("x" + text))
    assert shape(hostile) == shape(calm)
    assert titles(hostile) == titles(calm)
    assert hostile.count("<script") == 2
    assert TOKEN not in hostile
    assert not CONTROLS.search(hostile.replace("\n", ""))
    hostile.encode("utf-8")


def test_nothing_is_loaded_and_only_our_script_runs(tmp_path: Path) -> None:
    """The policy forbids all but the own style and script, which it names by hash."""
    parsed = page(to_html(state(), tmp_path))
    [policy] = [
        meta.get("content")
        for meta in parsed.iter("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for element in parsed.iter():
        assert "src" not in element.attrib
        assert not [name for name in element.attrib if name.startswith("on") or name == "style"]
        if "href" in element.attrib:
            notes = "https://github.com/vllm-project/vllm/"
            assert element.attrib["href"].startswith(("#", "data:,", notes))


def test_the_page_says_it_all(tmp_path: Path) -> None:
    """Verdict, boundary, every candidate, and what was seen of each, without any script."""
    text = to_html(state("returned 3 of 4 choices"), tmp_path)
    parsed = page(text)
    assert "fixed in 0.29.0" in "".join(parsed.find(".//h1").itertext())
    [body] = [each for each in parsed.iter("tbody") if each.get("id") == "versions"]
    rows = ["|".join("".join(cell.itertext()) for cell in row) for row in body]
    assert rows[0] == "0.27.1 last before|fail|returned 3 of 4 choices|0 / 5|||1"
    assert rows[1].startswith("0.28.0 suspect|skip|exited before ready: ")
    assert rows[2] == "0.29.0 first after|pass|as asked|20 / 0|||4"
    stops = [link.get("aria-label") for link in parsed.iter("a") if link.get("aria-label")]
    assert stops[0] == "0.27.1: fail, tested as number 1, last before"
    assert stops[3] == "0.30.0: skip"
    assert state().settings.replay_command() in "".join(parsed.itertext())


def test_a_run_that_is_not_over_has_a_page(tmp_path: Path) -> None:
    """Nothing tested, nothing found: the candidates are there, and how to go on."""
    text = to_html(RunState(settings()), tmp_path)
    assert "vbisect run --resume" in text
    assert told(text) == {}
    assert [row.get("data-outcome") for row in page(text).iter("tr")][1:] == ["untested"] * 5


def texts(sections: list[dict[str, Any]]) -> dict[str, str]:
    """The excerpts among the sections, by title."""
    return {each["title"]: each["text"] for each in sections if "text" in each}


def test_a_version_shows_its_evidence(tmp_path: Path) -> None:
    """The request, one response of each kind, the log and the environment."""
    folder = tmp_path / "trials" / "0.27.1"
    folder.mkdir(parents=True)
    request = {"method": "POST", "path": "/v1/completions", "body": {"n": 4, "prompt": "<b>"}}
    (folder / "request.json").write_text(json.dumps(request, indent=1))
    bodies = [json.dumps({"choices": [{}] * count}) for count in (2, 2, 3)]
    lines = [json.dumps({"n": 4, "status": 200, "seconds": 0.5, "body": body}) for body in bodies]
    (folder / "responses.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "server.log").write_bytes(b"INFO \x1b[31mstarted\x1b[0m \xff\nthe end\n")
    (folder / "environment.json").write_text('{"command": ["vllm"]}')
    shown = texts(told(to_html(state(), tmp_path))["0"])
    assert shown["Request: POST /v1/completions"] == '{"n": 4, "prompt": "<b>"}'
    assert shown["Response to n = 4: HTTP 200 in 0.50 s, 2 choices"] == bodies[0]
    assert shown["Response to n = 4: HTTP 200 in 0.50 s, 3 choices"] == bodies[2]
    assert shown["server.log"] == "INFO started \ufffd\nthe end\n"
    assert shown["Environment"] == '{"command": ["vllm"]}'


def test_a_long_log_is_cut_in_the_middle(tmp_path: Path) -> None:
    """Both ends are shown, how much is not, and the lines about the diagnosis wherever they are."""
    folder = tmp_path / "trials" / "0.28.0"
    folder.mkdir(parents=True)
    noise = b"".join(b"line %d of noise\n" % number for number in range(200_000))
    cause = b"ValueError: no such layer\n"
    (folder / "server.log").write_bytes(b"first\n" + noise[:40_000] + cause + noise + b"last\n")
    made = state()
    made.records["0.28.0"] = made.records["0.28.0"].model_copy(
        update={"detail": "exit status 1: ValueError: no such layer"}
    )
    shown = texts(told(to_html(made, tmp_path))["1"])
    log = shown["server.log"]
    assert log.startswith("first\n")
    assert log.endswith("last\n")
    assert len(log) < 40_000
    [left_out] = re.findall(r"\[… ([\d,]+) bytes left out …\]", log)
    size = (folder / "server.log").stat().st_size
    note = f"\n[… {left_out} bytes left out …]\n"
    assert int(left_out.replace(",", "")) == size - len(log.replace(note, ""))
    assert "ValueError: no such layer" in shown["server.log, around the diagnosis"]


@pytest.mark.parametrize("before", [0, 1, 7, 30])
def test_no_token_is_cut_in_two(tmp_path: Path, before: int) -> None:
    """A token that lies across the edge of an excerpt is still known as one."""
    folder = tmp_path / "trials" / "0.27.1"
    folder.mkdir(parents=True)
    (folder / "server.log").write_text("x" * before + f" {TOKEN}" * 30_000)
    text = to_html(state(), tmp_path)
    for at in range(0, len(TOKEN) - 6):
        assert TOKEN[at : at + 6] not in text


@pytest.mark.parametrize("character", ["x", "<", "\U0001f600", "\u2028"])
def test_a_line_of_ten_megabytes_makes_no_large_page(tmp_path: Path, character: str) -> None:
    """However long lines are and whatever they hold, the page stays small."""
    folder = tmp_path / "trials" / "0.27.1"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(character * (10_000_000 // len(character.encode())))
    assert len(to_html(state(), tmp_path).encode()) < 200_000


def test_no_link_leads_out_of_the_run(tmp_path: Path) -> None:
    """Evidence that is a link to elsewhere, or no file at all, is not shown."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("private words")
    folder = tmp_path / "trials" / "0.27.1"
    (folder / "request.json").mkdir(parents=True)
    (folder / "server.log").symlink_to(elsewhere)
    assert "private words" not in to_html(state(), tmp_path)


def test_a_thousand_trials_make_a_page_of_less_than_three_megabytes(tmp_path: Path) -> None:
    """Details share what there is, whatever each trial left."""
    versions = [f"0.{number // 100}.{number % 100}" for number in range(1000)]
    made = RunState(settings(candidates=releases(versions)))
    for number, version in enumerate(versions):
        text = f"<{number}>" * 100
        made.records[version] = failed(version, text) if number < 500 else passed(version)
        folder = tmp_path / "trials" / version
        folder.mkdir(parents=True)
        for name in FILES:
            (folder / name).write_text("<&>" * 10_000)
    text = to_html(made, tmp_path)
    assert len(text.encode()) < 3_000_000
    assert len(told(text)) == 1000
