"""The comment on an issue: what it says, and that no text in it breaks out or calls anybody."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import hostile
from made import TOKEN, failed, passed, releases, settings, skipped, state
from test_sameness import CONTAINERS
from vbisect.errors import UsageError
from vbisect.launch import Limited
from vbisect.locks import file_lock
from vbisect.probes import NChoicesSettings, SuiteSettings
from vbisect.probes.n_choices import Endpoint
from vbisect.probes.suite import variations
from vbisect.reasons import SkipReason
from vbisect.releases import Device
from vbisect.report.comment import (
    GistLink,
    gist_files,
    is_ours,
    length,
    marker,
    may_be_ours,
    to_comment,
)
from vbisect.report.comment.strip import strip
from vbisect.report.comment.text import prose
from vbisect.report.html import to_html
from vbisect.run.answer import finding_of
from vbisect.run.records import (
    Answer,
    Build,
    ControlRecord,
    Finding,
    ParametersSeen,
    ParametersStatus,
    Status,
    Tally,
    VariationRecord,
)
from vbisect.run.scope import scope_of
from vbisect.run.state import RunState, load_state
from vbisect.search import Change, Outcome

RECORDED = Path(__file__).parent.parent / "results" / "20261122-183104-0.27.1-0.32.0"
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
MOST = 65_536
TAGS = {"details", "/details", "summary", "/summary", "code", "/code"}
INLINE = {"text", "softbreak", "html_inline", "strong_open", "strong_close", "em_open", "em_close"}
PINGS = re.compile(r"@\w|#\d|https?://|www\.|\bgh-\d", re.IGNORECASE)
NASTY = [
    *hostile.NASTY,
    "@everyone",
    "GH-17173",
    "https://github.com/vllm-project/vllm/issues/1",
    "www.example.com",
    "</details>",
    "</code></summary></details>",
    "```",
    "````\n@everyone",
    "~~~",
    "`" * 40,
    "-->",
    "<!-- vbisect: 0 -->",
    "<!-- vbisect-gist: 0 0 -->",
    "&lt;b&gt; &#64;everyone",
    "\n    - item",
    "1. one",
    "- one",
    "===",
    "**bold** _it_ ~~no~~",
    "\U0001f600",
    "x" * 5000,
    "@" * 3000,
    "Authorization: Bearer abcdefghijklmnop",
    "ghp_" + "a" * 36,
]
Hostile = st.lists(st.sampled_from(NASTY) | st.text(max_size=8), max_size=6).map("".join)


def hostile_run(text: str) -> RunState:
    """A run in which everything that somebody else words says ``text``."""
    made = state(
        text, model=text or "m", serve_args=(Limited(text=f"--x={text}"),), control_model=text
    )
    seen = ParametersSeen(status=ParametersStatus.RECEIVED, sentence=text)
    control = ControlRecord(model=text, outcome=Outcome.FAIL, signature=text)
    variation = VariationRecord(name=text, outcome=Outcome.FAIL, signature=text)
    for version, record in made.records.items():
        made.records[version] = record.model_copy(
            update={
                "parameters": seen,
                "control": control,
                "variations": (variation,),
                "engine": text,
                "build": Build(kind="image", ref=text, digest=text),
            }
        )
    return made


def keep_logs(run_dir: Path, logs: dict[str, bytes], environment: Any = None) -> Path:
    """A run directory with the logs of some trials."""
    for version, content in logs.items():
        directory = run_dir / "trials" / version
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "server.log").write_bytes(content)
        if environment is not None:
            (directory / "environment.json").write_text(json.dumps(environment))
    return run_dir


def check_harmless(body: str) -> None:
    """Nothing in the rendered comment calls anybody, breaks out, steers or leaks."""
    assert length(body) < MOST
    assert len(body.encode()) < 262_144
    assert TOKEN not in body
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", body)
    open_tags: list[str] = []
    for number, token in enumerate(MARKDOWN.parse(body)):
        assert token.type not in ("heading_open", "hr", "blockquote_open", "code_block")
        if token.type == "fence":
            assert token.info == "text"
        if token.type == "html_block":
            first = token.content.startswith("<!-- vbisect")
            assert not first or number == 0
            take_tags(token.content, open_tags)
            assert not PINGS.search(unescape(re.sub("<!--.*?-->", "", token.content)))
        for child in token.children or ():
            assert child.type in INLINE
            if child.type == "html_inline":
                take_tags(child.content, open_tags)
            # in code nothing is looked for, but nothing is to be found there either
            assert not PINGS.search(child.content), child.content
    assert open_tags == []


def take_tags(content: str, open_tags: list[str]) -> None:
    """Tags are vbisect's own, and each that opens is closed in its turn."""
    for tag in re.findall(r"<([^>]*)>", re.sub("<!--.*?-->", "", content)):
        assert tag in TAGS
        if tag.startswith("/"):
            assert open_tags.pop() == tag[1:]
        else:
            open_tags.append(tag)


@hypothesis_settings(max_examples=60)
@given(text=Hostile, log=st.lists(st.sampled_from(NASTY) | st.text(max_size=20), max_size=8))
@example(text="".join(NASTY), log=NASTY)
@example(text="@" * 3000, log=["`" * 70_000])
@example(text="```", log=["```\n</details>\n@everyone"])
@example(text="", log=[])
def test_hostile_text_stays_where_it_is(
    tmp_path_factory: pytest.TempPathFactory, text: str, log: list[str]
) -> None:
    """In model names, findings, parameters, notes, builds, environments and logs."""
    content = "\n".join(log).encode("utf-8", errors="surrogatepass") + b"\xff\xfe"
    facts = {
        "host": {"system": text, "gpus": [text, text]},
        "engine": {"engine": text, "os": text},
        "build": {"python": text, "packages": [f"torch=={text}", 1, None]},
    }
    facts = json.loads(json.dumps(facts))
    logs = {"0.27.1": content, "0.29.0": content, "0.32.0": content}
    run_dir = keep_logs(tmp_path_factory.mktemp("run"), logs, facts)
    made = hostile_run(text)
    body = to_comment(made, run_dir).body
    check_harmless(body)
    assert is_ours(body, made.settings)
    assert not is_ours(text + "\n" + body, made.settings) or text == ""


def test_a_line_of_ten_megabytes_fits(tmp_path: Path) -> None:
    """The logs are cut, the verdict is not, and that is said."""
    run_dir = keep_logs(tmp_path, dict.fromkeys(("0.27.1", "0.32.0"), b"x" * 10_000_000))
    comment = to_comment(state(), run_dir)
    check_harmless(comment.body)
    assert comment.cut
    assert length(comment.body) > 60_000
    assert "its end; 10,000,000 bytes in all" in comment.body
    assert "The logs are cut to what a comment can hold." in comment.body
    assert comment.body.index("Fixed in 0.29.0") < 200


def test_a_long_run_fits(tmp_path: Path) -> None:
    """With a thousand trials the ones nearest to the change are shown."""
    versions = tuple(f"0.{minor}.0" for minor in range(1000))
    words = "returned 3 of 4 choices | @everyone " * 10
    records = [failed(v, words) for v in versions[:400]] + [passed(v) for v in versions[400:]]
    fix = Answer(
        change=Change.FIX,
        last_before=versions[399],
        first_after=versions[400],
        exact=True,
        suspects=(versions[400],),
        confidence=0.99,
    )
    made = RunState(
        settings(candidates=releases(versions)),
        records={record.version: record for record in records},
        finding=Finding(status=Status.FOUND, message="fixed in 0.400.0", answer=fix),
    )
    run_dir = keep_logs(tmp_path, dict.fromkeys(versions, b"line\n" * 1000))
    body = to_comment(made, run_dir).body
    check_harmless(body)
    assert "| 0.399.0 | ✗ fail |" in body
    assert "| 0.400.0 | ✓ pass |" in body
    assert re.search(r"\d+ more were tested, further from the change\.", body)
    line = strip(made).line
    assert "0.0.0 ✗  … 387 more …" in line
    assert "0.399.0 ✗  │  0.400.0 ✓" in line
    assert len(line) < 1000


def test_short_logs_are_shown_whole(tmp_path: Path) -> None:
    """And the room they leave is the long ones'."""
    logs = {"0.27.1": b"short\n", "0.29.0": b"line\n" * 20_000, "0.32.0": b"\n \n"}
    comment = to_comment(state(), keep_logs(tmp_path, logs))
    assert comment.cut
    assert (
        "<summary>0.27.1: server.log – all of it</summary>\n\n```text\nshort\n```" in comment.body
    )
    assert length(comment.body) > 40_000
    assert "<summary>0.32.0" not in comment.body
    logs = {"0.29.0": b"short"}
    assert not to_comment(state(), keep_logs(tmp_path, logs)).cut


def test_no_log_leads_elsewhere(tmp_path: Path) -> None:
    """A link in a run directory is not followed to another file."""
    secret = tmp_path / "secret"
    secret.write_text("not for everybody")
    (tmp_path / "trials" / "0.27.1").mkdir(parents=True)
    (tmp_path / "trials" / "0.27.1" / "server.log").symlink_to(secret)
    assert "not for everybody" not in to_comment(state(), tmp_path).body


def test_a_token_across_the_cut_is_not_shown(tmp_path: Path) -> None:
    """Half a token is no longer known as one, so what may be half of one is left out."""
    log = b"".join(b"%06d %s\n" % (n, TOKEN.encode()) for n in range(10_000))
    run_dir = keep_logs(tmp_path, {"0.27.1": log})
    assert TOKEN[8:20] not in to_comment(state(), run_dir).body
    assert all(TOKEN[8:20] not in text for text in gist_files(state(), run_dir).values())


def test_the_strip_draws_suspects_as_a_stretch() -> None:
    """Never as one place; the change is a stroke only when it is exact."""
    made = state()
    drawn = strip(made)
    assert drawn.line == "<code>0.27.1 ✗  ├  0.28.0 ○  0.29.0 ✓  ┤  0.30.0 ·  0.32.0 ✓</code>"
    assert "├ ┤ the change is in one of these" in drawn.legend
    assert "│" not in drawn.line + drawn.legend
    assert made.finding is not None
    assert made.finding.answer is not None
    exact = made.finding.answer.model_copy(update={"exact": True, "suspects": ("0.29.0",)})
    made.finding = made.finding.model_copy(update={"answer": exact, "changes": ()})
    assert "0.28.0 ○  │  0.29.0 ✓" in strip(made).line
    made.finding = None
    assert strip(made).line == "<code>0.27.1 ✗  0.28.0 ○  0.29.0 ✓  0.30.0 ·  0.32.0 ✓</code>"


def test_a_change_is_drawn_no_narrower_than_the_answer(tmp_path: Path) -> None:
    """Where releases flake, the likeliest place of a change is not said to be its place."""
    versions = ("1.0", "1.1", "1.2", "1.3", "1.4", "1.5")
    records = [
        failed("1.0", "m", fails=5, passes=20),
        failed("1.2", "m", fails=3, passes=22),
        passed("1.3", 60),
        passed("1.5", 90),
    ]
    made = RunState(
        settings(candidates=releases(versions)),
        records={record.version: record.after(None) for record in records},
    )
    made.finding = finding = finding_of(made)
    assert finding.status is Status.INCONCLUSIVE
    assert finding.answer is not None
    assert finding.answer.suspects == ("1.3", "1.4", "1.5")
    assert strip(made).line == "<code>1.0 ✗  1.1 ·  1.2 ✗  ├  1.3 ✓  1.4 ·  1.5 ✓  ┤</code>"
    page = to_html(made, tmp_path)
    tags = re.findall(r">([0-9.]+)</button> <span class=.tag.>([a-z ]+)<", page)
    assert tags == [("1.2", "last before"), ("1.3", "suspect"), ("1.5", "first after")]


def test_a_change_that_is_only_probable_is_drawn_as_such() -> None:
    """As the verdict says it."""
    made = state()
    assert made.finding is not None
    assert made.finding.answer is not None
    changed = {"exact": True, "suspects": ("0.29.0",), "confidence": 0.9}
    unsure = made.finding.answer.model_copy(update=changed)
    made.finding = made.finding.model_copy(update={"answer": unsure, "changes": (unsure,)})
    assert strip(made).legend.endswith("│ probably the change")


@given(st.data())
def test_every_stretch_is_closed_and_short(data: st.DataObject) -> None:
    """However many candidates, changes and suspects there are."""
    count = data.draw(st.integers(2, 300))
    versions = tuple(f"0.{minor}.0" for minor in range(count))
    changes = []
    places = sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=60)))
    for low, high in zip(places[::2], places[1::2], strict=False):
        suspects = versions[low + 1 : high + 1]
        exact = len(suspects) == 1
        changes.append(
            Answer(
                change=Change.FIX,
                last_before=versions[low],
                first_after=versions[high],
                exact=exact,
                suspects=suspects,
                confidence=0.9,
            )
        )
    finding = Finding(status=Status.INCONCLUSIVE, message="m", changes=tuple(changes))
    made = RunState(settings(candidates=releases(versions)), finding=finding)
    line = strip(made).line
    assert line.count("├") == line.count("┤")
    assert len(line) < 1500
    hidden = sum(int(n) for n in re.findall(r"… (\d+) more …", line))
    assert hidden + line.count("·") == count
    if len(changes) == 1 and not changes[0].exact:
        assert f"├  {changes[0].suspects[0]} ·" in line
        assert f"{changes[0].first_after} ·  ┤" in line


def test_parameters_control_and_variations_have_their_place(tmp_path: Path) -> None:
    """In the table where a run has them, nowhere where it has none."""
    made = state(control_model="tiny:qwen2")
    assert "parameters in" not in to_comment(state(), tmp_path).body
    record = made.records["0.27.1"]
    made.records["0.27.1"] = record.model_copy(
        update={
            "parameters": ParametersSeen(status=ParametersStatus.RECEIVED, sentence="received n=8"),
            "control": ControlRecord(
                model="tiny:qwen2", outcome=Outcome.PASS, observations=Tally(passes=18)
            ),
            "variations": (
                VariationRecord(name="n=16", outcome=Outcome.PASS),
                VariationRecord(name="stream", outcome=Outcome.FAIL, signature="no end"),
                VariationRecord(
                    name="n=0", outcome=Outcome.SKIP, reason=SkipReason.VARIATION_NOT_ASKED
                ),
                VariationRecord(name="seed", outcome=Outcome.SKIP),
            ),
        }
    )
    body = to_comment(made, tmp_path).body
    head = "| version | outcome | pass / fail | what was seen | parameters in the server's log | "
    assert head + "the same with <code>tiny:qwen2</code> | boot |" in body
    assert "<code>received n=8</code> | ✓ pass 18 / 0 as asked |" in body
    scope = scope_of(made)
    assert scope is not None
    assert f"**{scope.scope.capitalize()}** – {prose(scope.message)}." in body, (
        "names keep their case"
    )
    heads = [f"<code>{name}</code>" for name in ("n=16", "stream", "n=0", "seed")]
    assert f"| version | {' | '.join(heads)} |" in body
    assert "| 0.27.1 | ✓ | ✗ <code>no end</code> | n/a |  |" in body


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    """And one without a trial has nothing to tell."""
    made = state()
    made.finding = Finding(status=Status.INTERRUPTED, message="interrupted; it can be resumed")
    body = to_comment(made, tmp_path).body
    assert "**Not finished** – Interrupted; it can be resumed. What was seen so far:" in body
    made.finding = None
    assert "**Not finished** – The run was killed." in to_comment(made, tmp_path).body
    (tmp_path / "lock").touch()
    with file_lock(tmp_path / "lock"):
        assert "**Not finished** – The run is going on still." in to_comment(made, tmp_path).body
    made.finding = Finding(status=Status.INCONCLUSIVE, message="suspects remain")
    assert "**Inconclusive** – Suspects remain." in to_comment(made, tmp_path).body
    made.records.clear()
    with pytest.raises(UsageError, match="no finished trial"):
        to_comment(made, tmp_path)


def test_the_marker_is_that_of_the_question() -> None:
    """The same probe and model, whatever the range and whenever it ran."""
    plain = marker(settings())
    assert re.fullmatch(r"<!-- vbisect: [0-9a-f]{32} -->", plain)
    assert marker(settings(run_id="other", start="0.1", confidence=0.99)) == plain
    assert marker(settings(model="tiny:qwen2_5_vl")) != plain
    probe = settings().n_choices
    assert probe is not None
    assert marker(settings(n_choices=probe.model_copy(update={"n": (16,)}))) != plain
    patient = probe.model_copy(update={"request_timeout": 900.0})
    assert marker(settings(n_choices=patient)) == plain
    engine = Limited(text="VLLM_USE_V1=0", specifier="<0.11")
    assert (
        len({plain, marker(settings(env=(engine,))), marker(settings(serve_args=(engine,)))}) == 3
    )


CU129 = (Limited(text="cu129"),)


@pytest.mark.parametrize(
    "changed",
    [
        {"runtime": "docker", "docker": CONTAINERS},
        {"device": Device.CUDA},
        {"tensor_parallel": 8},
        {"slots_per_gpu": 2},
        {"gpu_models": ("NVIDIA H20",)},
        {"latest_deps": True},
        {"failure": "returned 1 of"},
        {"runtime": "docker", "docker": CONTAINERS.model_copy(update={"image_variant": CU129})},
        {"runtime": "docker", "docker": CONTAINERS.model_copy(update={"memory": 10**10})},
    ],
    ids=str,
)
def test_servers_that_are_started_otherwise_have_a_comment_of_their_own(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    """The comment of one runtime or device never edits away that of another."""
    assert len({marker(settings(**one)) for one in ({}, changed)}) == 2
    body = to_comment(state(**changed), tmp_path).body
    assert is_ours(body, settings(**changed))
    assert not is_ours(body, settings())
    elsewhere = {"host": "elsewhere", "model_path": "~/m", "jobs": 4, "boot_timeout": 9.0}
    assert marker(settings(**changed)) == marker(settings(**{**elsewhere, **changed}))


def test_an_older_comment_is_known_by_its_replay_line() -> None:
    """Its marker says nothing of runtime, device or GPUs; the line to repeat it does."""
    old = "<!-- vbisect: cbd0243ceea398e1c22af4e33462f76e -->"  # as it was made of these settings
    for ran in ({}, {"tensor_parallel": 8}, {"device": Device.CUDA}):
        body = f"{old}\r\n\r\nRepeat it:\n```text\n{settings(**ran).replay_command()}\n```\n"
        assert not is_ours(body, settings(**ran))
        for asks in ({}, {"tensor_parallel": 8}, {"device": Device.CUDA}):
            assert may_be_ours(body, settings(**asks)) == (ran == asks)
        assert not may_be_ours(body, settings(model="m"))
        assert not may_be_ours(body.replace("vbisect run", "it"), settings(**ran))


def test_the_marker_of_a_suite_is_that_of_its_request() -> None:
    """Not of the variations that a version of vbisect knows."""
    asked = variations(Endpoint.CHAT)
    suite = SuiteSettings(request=NChoicesSettings(), variations=asked)
    plain = marker(settings(suite=suite, n_choices=None))
    assert plain != marker(settings())
    fewer = suite.model_copy(update={"variations": asked[:3]})
    assert marker(settings(suite=fewer, n_choices=None)) == plain
    one = suite.model_copy(update={"bisect_on": "stream"})
    assert marker(settings(suite=one, n_choices=None)) != plain


def test_a_gist_is_linked_and_remembered(tmp_path: Path) -> None:
    """In the second line, where no text of a server can be."""
    link = GistLink("ab12", "https://gist.github.com/ab12", "0" * 32)
    body = to_comment(state(), tmp_path, link).body
    assert body.split("\n")[1] == f"<!-- vbisect-gist: ab12 {'0' * 32} -->"
    assert "The logs at length: https://gist.github.com/ab12" in body


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"host": 1, "build": []}', b"[" * 10**5])
def test_a_damaged_environment_is_no_obstacle(tmp_path: Path, content: bytes) -> None:
    """What cannot be read is left out."""
    run_dir = keep_logs(tmp_path, {"0.27.1": b"x"})
    (run_dir / "trials" / "0.27.1" / "environment.json").write_bytes(content)
    assert "Environment" in to_comment(state(), run_dir).body


def test_skips_are_explained(tmp_path: Path) -> None:
    """With their reason, and what to do about it."""
    made = state()
    made.records["0.28.0"] = skipped("0.28.0", "exit status 1")
    body = to_comment(made, tmp_path).body
    assert "| 0.28.0 | ○ skip |  | <code>exited before ready: exit status 1</code> |" in body
    assert "- *exited before ready*: " in body


def test_the_comment_of_the_recorded_run_is_kept_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``HOME=/root vbisect post RUN_DIR --issue … --dry-run`` writes it again."""
    monkeypatch.setenv("HOME", "/root")  # the home of the run, shown as ~
    recorded, _ = load_state(RECORDED)
    body = to_comment(recorded, RECORDED).body
    check_harmless(body)
    assert body == (RECORDED / "comment.md").read_text(encoding="utf-8")
