"""Every format of a report holds up against text that servers and commands choose."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hostile import NASTY, Hostile
from made import TOKEN, VERSIONS, failed, passed, settings, skipped, state
from vbisect.launch import Limited
from vbisect.locks import file_lock
from vbisect.reasons import ADVICE, SkipReason
from vbisect.report.csv import to_csv
from vbisect.report.formats import FILES, FORMATS, render, write_reports
from vbisect.report.markdown import to_markdown
from vbisect.report.rows import COLUMNS, finding, rows
from vbisect.report.rows import tested_rows as shown_rows
from vbisect.report.terminal import answer_lines
from vbisect.run.answer import in_words
from vbisect.run.records import Answer, Build, Finding, Status
from vbisect.run.state import RunState
from vbisect.search import Change

RUN_DIR = Path("/results/r")


def unescaped(line: str, characters: str) -> str:
    """Those of ``characters`` that Markdown gives a meaning to in ``line``."""
    return "".join(c for c in re.sub(r"\\.", "", line) if c in characters)


def test_the_rows_are_the_candidates() -> None:
    """Every candidate has a row in order; those never tested are told from those left out."""
    made = rows(state())
    assert tuple(row.version for row in made) == VERSIONS
    assert [row.outcome for row in made] == ["fail", "skip", "pass", "skip", "pass"]
    assert [row.order for row in made] == [1, 3, 4, None, 2]
    assert made[3].finding == "excluded with --skip"
    untested = RunState(settings())
    assert {row.outcome for row in rows(untested)} == {"untested"}
    assert shown_rows(untested) == []


def test_a_finding_says_what_was_seen() -> None:
    """A pass, a steady failure, one that shows now and then, and a skip with its reason."""
    assert finding(passed("1.0")) == "as asked"
    assert finding(failed("1.0", "returned 1 of 2 choices")) == "returned 1 of 2 choices"
    flaky = finding(failed("1.0", "returned 1 of 2 choices", fails=2, passes=5))
    assert flaky == "returned 1 of 2 choices (2 of 7 times)"
    assert finding(skipped("1.0", "exit status 1")) == "exited before ready: exit status 1"


@hypothesis_settings(max_examples=60)
@given(st.sampled_from(["", *NASTY]), Hostile)
@example("", "".join(NASTY))
@example("\x00=1", "")
@example("\t=1", "\n@x")
@example(" +1", " -1")
def test_csv_cells_are_text_and_never_formulas(first: str, text: str) -> None:
    """A spreadsheet computes nothing, and every candidate keeps its one row."""
    made = state(first + text)
    made.records["0.27.1"] = made.records["0.27.1"].model_copy(
        update={
            "build": Build(kind="venv", ref=first + text, digest=first),
            "reported_version": text,
        }
    )
    table = list(csv.reader(io.StringIO(to_csv(made))))
    assert tuple(table[0]) == COLUMNS
    assert [row[0] for row in table[1:]] == list(VERSIONS)
    assert {len(row) for row in table} == {len(COLUMNS)}
    for row in table[1:]:
        for cell in row:
            assert not cell.lstrip().startswith(tuple("=+-@＝＋－＠"))
            assert "\x1b" not in cell
            assert TOKEN not in cell


def test_csv_numbers_stay_numbers() -> None:
    """Counts are whole, what was not measured is empty."""
    table = list(csv.DictReader(io.StringIO(to_csv(state()))))
    assert [row["passes"] for row in table] == ["0", "", "20", "", "18"]
    assert table[3]["outcome"] == "skip"
    empty = list(csv.DictReader(io.StringIO(to_csv(RunState(settings())))))
    assert {row["outcome"] for row in empty} == {"untested"}
    assert {row["order"] for row in empty} == {""}


@given(Hostile)
@example("".join(NASTY))
def test_markdown_keeps_its_shape(text: str) -> None:
    """Hostile text adds no line, no column, no tag, no mention, no link, no secret."""
    plain, hostile = to_markdown(state("x")), to_markdown(state("x" + text))
    pairs = list(zip(plain.split("\n"), hostile.split("\n"), strict=True))
    for calm, line in pairs:
        assert unescaped(line, "|") == unescaped(calm, "|")
        assert unescaped(line, "<>[]!#`$&") == unescaped(calm, "<>[]!#`$&")
        assert len(line.splitlines()) <= 1
    assert not re.search(r"@\w", hostile)
    assert TOKEN not in hostile
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", hostile)
    hostile.encode("utf-8")


def test_the_markdown_report_says_it_all() -> None:
    """Verdict, both sides of the change, every tested release, the way to repeat it."""
    text = to_markdown(state("returned 3 of 4 choices"))
    assert "**FOUND**" in text
    assert "| fix | 0.27.1 | 0.29.0 | no | 0.28.0, 0.29.0 | 0.950 |" in text
    assert "| 0.27.1 | fail | 0 / 5 | returned 3 of 4 choices |" in text
    assert "5 candidates, 1 of them not tried" in text
    assert ADVICE[SkipReason.EXITED_BEFORE_READY] in text
    assert state().settings.replay_command() in text
    assert "NOT FINISHED" in to_markdown(RunState(settings()))


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_command_of_many_lines_stays_in_its_block(ending: str) -> None:
    """What is repeated is shown as code to its last line."""
    words = Limited(text=f"--x='a{ending}# heading{ending}<b>'")
    text = to_markdown(state("x", serve_args=(words,)))
    block = text.replace("\r\n", "\n").replace("\r", "\n").split("## Repeat it")[1].split("\n")
    inside = [line for line in block if "heading" in line or "<b>" in line]
    assert len(inside) == 2
    assert all(line.startswith("    ") for line in inside)


@given(Hostile)
@example("".join(NASTY))
def test_the_terminal_shows_one_line_each(text: str) -> None:
    """No line of the answer steers the terminal or becomes two."""
    calm, lines = answer_lines(state("x"), RUN_DIR), answer_lines(state("x" + text), RUN_DIR)
    assert len(lines) == len(calm)
    for line in lines:
        assert len(line.splitlines()) <= 1
        assert TOKEN not in line
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", line)


def test_the_terminal_says_how_to_go_on() -> None:
    """A run that can be resumed says so; one that is over does not."""
    made = state()
    made.finding = Finding(status=Status.INTERRUPTED, message="interrupted; it can be resumed")
    assert "go on:    vbisect run --resume /results/r" in answer_lines(made, RUN_DIR)
    assert not [line for line in answer_lines(state(), RUN_DIR) if "--resume" in line]


@given(Hostile)
def test_the_summary_is_one_line_of_json(text: str) -> None:
    """The contract of ``--json``: its keys, whatever text is in its values."""
    printed = render("json", state(text), RUN_DIR)
    assert printed.isascii()
    assert printed.count("\n") == 1
    told = json.loads(printed)
    assert told["schema"] == 1
    assert told["status"] == "found"
    assert told["answer"] == {
        "change": "fix",
        "last_before": "0.27.1",
        "first_after": "0.29.0",
        "exact": False,
        "suspects": ["0.28.0", "0.29.0"],
        "confidence": 0.95,
    }
    assert told["range"]["from"]["asked"] == told["range"]["from"]["tested"] == "0.27.1"
    assert told["range"]["to"] == {"asked": "nightly", "resolved": "0.32.0", "tested": "0.32.0"}
    assert told["candidates"] == list(VERSIONS)
    trials = {trial["version"]: trial for trial in told["trials"]}
    assert trials["0.27.1"]["observations"] == {"pass": 0, "fail": 5, "other": 0}
    assert trials["0.28.0"]["reason"] == "exited before ready"
    assert trials["0.28.0"]["advice"] == ADVICE[SkipReason.EXITED_BEFORE_READY]
    assert {
        "version",
        "outcome",
        "reason",
        "signature",
        "reported_version",
        "build",
        "seconds",
    } <= (trials["0.27.1"].keys())


def test_a_run_without_an_end_is_running_or_was_killed(tmp_path: Path) -> None:
    """Whoever has the run at work holds its lock."""
    unfinished = RunState(settings())
    (tmp_path / "lock").touch()
    for name, running, killed in (
        ("md", "**RUNNING** – vbisect is at work on this run", "**NOT FINISHED** – vbisect was"),
        ("html", "<h1>vbisect is at work on this run</h1>", "<h1>vbisect was killed"),
        ("json", '"status": "running"', '"status": "interrupted"'),
    ):
        with file_lock(tmp_path / "lock"):
            assert running in render(name, unfinished, tmp_path)
        assert killed in render(name, unfinished, tmp_path)


def test_a_killed_run_has_a_summary_too() -> None:
    """Without an ending the status says that there was none."""
    told = json.loads(render("json", RunState(settings()), RUN_DIR))
    assert (told["status"], told["answer"], told["trials"]) == ("interrupted", None, [])
    assert told["range"]["to"]["tested"] is None


@hypothesis_settings(max_examples=30)
@given(Hostile)
@example("".join(NASTY))
def test_reports_can_always_be_written(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """No text keeps a finished run from its files."""
    run_dir = tmp_path_factory.mktemp("run")
    write_reports(state(text), run_dir)
    for name in FILES:
        assert (run_dir / name).read_bytes().decode("utf-8")
    assert set(FILES) == {"table.csv", "report.md", "report.html"}
    assert set(FORMATS) >= {"md", "html", "csv", "json"}


@given(st.floats(0, 1))
@example(0.9999)
@example(0.957)
def test_no_confidence_is_rounded_up(confidence: float) -> None:
    """What is not certain is never shown as 1.000."""
    answer = Answer(
        change=Change.FIX,
        last_before="1",
        first_after="2",
        exact=True,
        suspects=("2",),
        confidence=confidence,
    )
    assert confidence - 0.001 < float(answer.shown_confidence) <= confidence + 1e-9


def test_every_reason_has_advice() -> None:
    """A skip without a way on is half an answer."""
    assert set(ADVICE) == set(SkipReason)
    for sentence in ADVICE.values():
        assert sentence.endswith(".")


@pytest.mark.parametrize(
    ("share", "unit", "words"),
    [
        (0.0798, "request", "1 request of 12"),
        (0.7764, "boot", "4 boots of 5"),
        (0.5, "request", "1 request of 2"),
        (0.999, "boot", "every boot"),
    ],
)
def test_a_share_in_words(share: float, unit: str, words: str) -> None:
    assert in_words(share, unit) == words


@given(st.floats(1e-4, 1))
def test_no_share_in_words_is_smaller_than_it_is(share: float) -> None:
    """Nothing is said to be excluded that is not."""
    words = in_words(share, "boot")
    number, of = (1, 1) if words == "every boot" else (words.split()[0], words.split()[-1])
    told = int(number) / int(of)
    assert share <= told + 1e-9
    assert told <= max(share * 1.34, share + 0.05)
