"""What servers, models and GitHub word stays words: in the terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from hostile import NASTY, Hostile
from made import TOKEN, failed, passed, settings, state
from vbisect.launch import Limited
from vbisect.probes import Endpoint, NChoicesSettings
from vbisect.probes.suite import SuiteSettings, variations
from vbisect.report.comment import to_comment
from vbisect.report.csv import to_csv
from vbisect.report.html import to_html
from vbisect.report.markdown import to_markdown
from vbisect.report.rows import COLUMNS
from vbisect.report.summary import summary
from vbisect.report.terminal import answer_lines
from vbisect.run.comparisons import KeptCommit, KeptComparison
from vbisect.run.records import (
    Build,
    ControlRecord,
    ParametersSeen,
    ParametersStatus,
    VariationRecord,
)
from vbisect.run.state import RunState
from vbisect.search import Outcome

RUN_DIR = Path("/results/r")
OURS = re.compile(
    r"https://github\.com/vllm-project/vllm/(releases/tag|pull|compare|commit)/[\w.]*"
)
MORE = [
    "@everyone",
    "</details>",
    "```",
    "~~~\n",
    "\n\n# heading\n\n",
    "\n---\n",
    "1. one",
    "- - -",
    "===",
    "> quote",
    "[a]: http://evil",
    "<http://evil>",
    "http://evil.example/x www.evil.example",
    "GH-17 vllm#5",
    "&lt;script&gt; &#64;everyone",
    "Authorization: Bearer abcdefghijklmnop",
    "ghp_" + "a1B2" * 9,
    b"\xff\xfe bad \xc3(".decode("utf-8", errors="surrogateescape"),
    "\u200f\u061c\u2067",
]
Text = st.lists(st.sampled_from(MORE) | Hostile, max_size=5).map("".join)
SECRETS = (TOKEN, "abcdefghijklmnop", "ghp_" + "a1B2" * 9)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def settings_of(text: str) -> dict[str, str]:
    """The settings that a run directory can have any text in, and that a report shows."""
    return dict.fromkeys(("vbisect", "run_id", "start", "end", "releases_from", "picture"), text)


def hostile_state(text: str) -> RunState:
    """A run in which every text that is not vbisect's own is ``text``."""
    seen = ParametersSeen(
        status=ParametersStatus.DIFFERENT, sentence=text, sent={text: text}, received={text: 1}
    )
    made = state(
        text,
        **settings_of(text),
        model=text or "m",
        control_model=text or "c",
        serve_args=(Limited(text=f"--x {text}"),),
        suite=SuiteSettings(
            request=NChoicesSettings(), variations=variations(Endpoint.CHAT), bisect_on=text
        ),
    )
    control = ControlRecord(model=text, outcome=Outcome.FAIL, signature=text, parameters=seen)
    name = made.settings.suite.variations[0].name if made.settings.suite else ""
    variation = VariationRecord(name=name, outcome=Outcome.FAIL, signature=text)
    made.records["0.27.1"] = failed("0.27.1", text).model_copy(
        update={
            "build": Build(kind="venv", ref=text, digest=text),
            "reported_version": text,
            "engine": text,
            "parameters": seen,
            "control": control,
            "variations": (variation,),
            "notes": (text,),
        }
    )
    made.records["0.32.0"] = passed("0.32.0").model_copy(update={"control": control})
    return made


def hostile_commits(text: str) -> tuple[KeptComparison, ...]:
    """Titles, names and files that GitHub lists; a likely commit each."""
    title = f"n > 1 {text}"
    commits = (KeptCommit(sha=text, title=title), KeptCommit(sha="ab" * 20, title=title))
    return (
        KeptComparison(
            last_before="0.27.1",
            first_after="0.29.0",
            base="v0.27.1",
            head="v0.29.0",
            total=3,
            commits=commits,
            files=(f"vllm/entrypoints/chat_completion/{text}",),
            problem=text or "p",
        ),
    )


@cache
def parser() -> MarkdownIt:
    """CommonMark with HTML, tables, and links made of bare addresses, as GitHub has them."""
    made = MarkdownIt("gfm-like", {"html": True, "linkify": True})
    assert made.linkify is not None
    made.linkify.set({"fuzzy_link": False, "fuzzy_email": False})  # GitHub wants http:// or www.
    return made


def all_tokens(markdown: str) -> Iterator[Token]:
    """Every token, those within lines too."""
    for token in parser().parse(markdown):
        yield token
        yield from token.children or ()


def shape(markdown: str) -> list[str]:
    """The kinds of its blocks, in order; those within lines are about their words."""
    return [token.type for token in parser().parse(markdown)]


@hypothesis_settings(max_examples=30, deadline=None)
@given(Text)
@example("".join(NASTY))
@example("".join(MORE))
@example("\n".join(MORE))
def test_markdown_is_parsed_as_what_vbisect_wrote(text: str) -> None:
    """To a real parser no text is markup: no tag, link, picture, fence, heading, row or mention."""
    calm = to_markdown(hostile_state("x"), None, hostile_commits("x"))
    markdown = to_markdown(hostile_state("x" + text), None, hostile_commits("x" + text))
    assert shape(markdown) == shape(calm)
    for token in all_tokens(markdown):
        assert token.type not in ("html_block", "html_inline", "fence", "image", "s_open"), token
        if token.type == "link_open":
            assert OURS.match(str(token.attrs["href"])), token.attrs
        if token.type == "text":
            assert not re.search(r"@\w|#\d|GH-\d|www\.|https?://", token.content, re.I)
    assert not CONTROL.search(markdown)
    for secret in SECRETS:
        assert secret not in markdown
    markdown.encode("utf-8")


@hypothesis_settings(max_examples=20, deadline=None)
@given(Text)
@example("".join(NASTY + MORE))
def test_the_terminal_is_not_steered(text: str) -> None:
    """No escape, no control, no line of its own, no secret."""
    made = hostile_state("x" + text)
    made.settings = settings(model="x" + text, control_model="y" + text)
    calm = hostile_state("x")
    calm.settings = settings(model="x", control_model="y")
    lines = answer_lines(made, RUN_DIR)
    assert len(lines) == len(answer_lines(calm, RUN_DIR))
    for line in lines:
        assert not CONTROL.search(line)
        assert not any(secret in line for secret in SECRETS)
        repeated = line.startswith("repeat:")  # a shell's word may hold the end of a line
        assert repeated or len(line.splitlines()) <= 1


@hypothesis_settings(max_examples=20, deadline=None)
@given(st.sampled_from(["", "=", "+", "-", "@", "\t=", "\x00="]), Text)
@example("=", "".join(NASTY + MORE))
def test_csv_has_its_cells_and_no_formulas(first: str, text: str) -> None:
    """As many rows and columns as ever, and nothing a spreadsheet computes."""
    table = list(csv.reader(io.StringIO(to_csv(hostile_state(first + text)))))
    assert tuple(table[0][: len(COLUMNS)]) == COLUMNS
    assert {len(row) for row in table} == {len(table[0])}
    assert len(table) == 6
    for cell in (cell for row in table[1:] for cell in row):
        assert not cell.lstrip().startswith(tuple("=+-@＝＋－＠"))
        assert not CONTROL.search(cell)
        assert not any(secret in cell for secret in SECRETS)


@hypothesis_settings(max_examples=20, deadline=None)
@given(Text)
@example("".join(NASTY + MORE))
def test_json_is_one_line_without_secrets(text: str) -> None:
    """Texts are kept as they were, but for what is secret."""
    printed = json.dumps(summary(hostile_state("x" + text), RUN_DIR))
    assert printed.isascii()
    assert not any(secret in printed for secret in SECRETS)
    assert json.loads(printed)["status"] == "found"


@pytest.mark.parametrize("line", ["x" * 10_000_000, "@everyone ``` </details> | " * 400_000])
def test_a_line_of_ten_megabytes_is_cut(line: str) -> None:
    """In every format for people; it stays one line, and is said to go on."""
    made = state(line, **settings_of(line), model=line)
    told = (to_markdown(made), to_csv(made), "\n".join(answer_lines(made, RUN_DIR)))
    for text in (*told, to_html(made, RUN_DIR), to_comment(made, RUN_DIR).body):
        assert len(text) < 90_000
        assert "…" in text
