"""The commits between the two sides of a change: read once, told as far as they were read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from driving import Vbisect
from made import failed, passed, releases, settings, state
from standin.github import GitHubServer
from vbisect.probes import Endpoint, NChoicesSettings
from vbisect.report.formats import render
from vbisect.report.upgrade import upgrade_of
from vbisect.run.answer import finding_of
from vbisect.run.ask_commits import ask_commits
from vbisect.run.comparisons import (
    FILE_NAME,
    KeptCommit,
    KeptComparison,
    git_name,
    read_comparisons,
)
from vbisect.run.state import RunState

GENERATE = NChoicesSettings(endpoint=Endpoint.GENERATE, n=(4,))
FIX = "[Bugfix][Frontend] Return all choices from /inference/v1/generate when n > 1 (#52399)"
# of vLLM's own history, around the fix
TITLES = [
    "[CI] Skip the choices test of /inference/v1/generate when n > 1 (#1)",
    "[Model] Support Qwen3.5 (#2)",
    "[ROCm] Fix the sampler's output kind (#3)",
    "[Kernel] Tune fused MoE for H200 (#4)",
    FIX,
    "[Doc] Tell how to generate (#6)",
    "[Perf] Overlap the sampling of the next step (#7)",
]


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GitHubServer]:
    """A GitHub with seven commits between any two tags."""
    with GitHubServer() as made:
        made.commits = [
            {"sha": f"{n:040x}", "commit": {"message": f"{title}\n\nSigned-off-by: X <x@y.z>"}}
            for n, title in enumerate(TITLES)
        ]
        made.files = [
            {"filename": "vllm/entrypoints/scale_out/token_in_token_out/serving.py"},
            {"filename": "tests/scale_out/test_serving_tokens.py"},
            {"filename": "csrc/moe.cu"},
        ]
        for name in ("GITHUB_TOKEN", "GH_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))  # no gh
        monkeypatch.setenv("GITHUB_API_URL", made.url)
        monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path / "cache"))
        yield made


def fixed() -> RunState:
    """A run that found the fix of 0.29.0."""
    made = RunState(settings(candidates=releases(("0.28.0", "0.29.0")), n_choices=GENERATE))
    for record in (failed("0.28.0", "returned 3 of 4 choices"), passed("0.29.0")):
        made.records[record.version] = record.after(None)
    made.finding = finding_of(made)
    return made


def ask(made: RunState, run_dir: Path) -> list[str]:
    """Ask for the commits; what was said."""
    said: list[str] = []
    ask_commits(made, run_dir, said.append)
    return said


def test_the_likely_ones_come_first(github: GitHubServer, tmp_path: Path) -> None:
    """By what they have in common with the probe; tests and documents come last."""
    made = fixed()
    assert ask(made, tmp_path) == []
    [commits] = upgrade_of(made, None, read_comparisons(tmp_path)).commits
    assert (commits.read, commits.total, commits.problem) == (7, 7, None)
    assert commits.address.endswith("vllm-project/vllm/compare/v0.28.0...v0.29.0")
    best, *_, last = commits.likely
    assert (best.pull, best.title) == (52399, FIX.removesuffix(" (#52399)"))
    assert best.address == "https://github.com/vllm-project/vllm/pull/52399"
    assert {"choices", "n > 1"} <= set(best.words)
    assert last.pull in (1, 6)
    assert {c.pull for c in commits.likely} == {1, 3, 52399, 6, 7}
    assert commits.files == ("vllm/entrypoints/scale_out/token_in_token_out/serving.py",)
    assert commits.files_listed == 3
    text = render("md", made, tmp_path)
    assert "## Commits from 0.28.0 to 0.29.0" in text
    assert (
        "7 of 7 [commits](https://github.com/vllm-project/vllm/compare/v0.28.0...v0.29.0)" in text
    )
    assert "[PR 52399](https://github.com/vllm-project/vllm/pull/52399)" in text
    assert 'href="https://github.com/vllm-project/vllm/pull/52399">PR 52399' in render(
        "html", made, tmp_path
    )
    assert json.loads(render("json", made, tmp_path))["upgrade"]["commits"][0]["total"] == 7


def test_they_are_asked_for_once(github: GitHubServer, tmp_path: Path) -> None:
    """All pages, kept in the run directory; a run that is over asks no more."""
    github.page_size = 3
    ask(fixed(), tmp_path)
    asked = len(github.asked)
    assert asked == 3
    ask(fixed(), tmp_path)
    render("md", fixed(), tmp_path)
    assert len(github.asked) == asked


def test_another_run_with_the_same_answer_asks_no_more(
    github: GitHubServer, tmp_path: Path
) -> None:
    """Within the hour."""
    first, second = tmp_path / "first", tmp_path / "second"
    for run_dir in (first, second):
        run_dir.mkdir()
        ask(fixed(), run_dir)
    assert len(github.asked) == 1
    assert read_comparisons(second) == read_comparisons(first)
    assert read_comparisons(first)[0].complete


def test_a_part_is_told_as_a_part(github: GitHubServer, tmp_path: Path) -> None:
    """What was read before GitHub had enough is kept, and asked for again another time."""
    github.page_size = 3
    github.fault("GET", "page=2", 403, {"message": "rate limit"}, {"retry-after": "600"})
    [said] = ask(fixed(), tmp_path)
    assert said.startswith("commits could not be read: ")
    assert "3 of 7 [commits]" in render("md", fixed(), tmp_path)
    ask(fixed(), tmp_path)
    assert "7 of 7 [commits]" in render("md", fixed(), tmp_path)


def test_what_was_read_once_is_not_lost(
    github: GitHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked again where GitHub cannot be had, the part that was read stays, with the reason."""
    github.page_size = 3
    github.fault("GET", "page=2", 403, {"message": "rate limit"}, {"retry-after": "600"})
    ask(fixed(), tmp_path)
    for address in ("http://127.0.0.1:9", "ftp://example.com"):
        monkeypatch.setenv("GITHUB_API_URL", address)
        assert len(ask(fixed(), tmp_path)) == 1
        assert "3 of 7 [commits]" in render("md", fixed(), tmp_path)


def test_nothing_fails_without_github(
    github: GitHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network, no such tag, a nonsensical address: one line, and the rest of the report."""
    for address in ("http://127.0.0.1:9", "ftp://example.com", "http://example.com"):
        monkeypatch.setenv("GITHUB_API_URL", address)
        [said] = ask(fixed(), tmp_path)
        assert said.startswith("commits could not be read: ")
        assert "\n" not in said
        assert "they could not be read: " in render("md", fixed(), tmp_path)
    monkeypatch.setenv("GITHUB_API_URL", github.url)
    github.fault("GET", "/compare/", 404, {"message": "Not Found"})
    assert "GitHub does not find vllm-project/vllm v0.28.0...v0.29.0" in ask(fixed(), tmp_path)[0]


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('[{"sha": ')
    assert read_comparisons(tmp_path) == ()
    assert "Commits" not in render("md", fixed(), tmp_path)


def test_a_run_without_an_answer_asks_nothing(github: GitHubServer, tmp_path: Path) -> None:
    ask(RunState(settings()), tmp_path)
    assert github.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_nightly_is_known_by_its_commit() -> None:
    """As its release says, or its version does."""
    image = releases(("0.33.0",))[0].model_copy(update={"commit": "ab" * 20})
    wheel = releases(("0.33.1.dev42+g1a2b3c4.cpu",))[0]
    made = settings(candidates=(*releases(("0.32.0",)), image, wheel))
    assert git_name(made, "0.32.0") == "v0.32.0"
    assert git_name(made, "0.33.0") == "ab" * 20
    assert git_name(made, "0.33.1.dev42+g1a2b3c4.cpu") == "1a2b3c4"


def test_the_title_of_a_commit_links_nothing_else(tmp_path: Path) -> None:
    """It is GitHub's, which is to say anybody's."""
    title = "n > 1 @everyone <script>x</script> ](http://evil) ``` | https://evil www.evil.com #5"
    kept = KeptComparison(
        last_before="0.27.1",
        first_after="0.29.0",
        base="v0.27.1",
        head="v0.29.0",
        total=1,
        commits=(KeptCommit(sha="](http://evil)", title=title),),
    )
    [commits] = upgrade_of(state(), None, [kept]).commits
    assert commits.likely[0].address == "https://github.com/vllm-project/vllm/commit/"


def test_the_end_of_a_run_asks(github: GitHubServer, vbisect: Vbisect) -> None:
    """The whole command, with the commits in its report and its answer."""
    vbisect.env["GITHUB_API_URL"] = github.url
    ends = ("--from", "0.27.1", "--to", "0.29.0")
    done = vbisect.run(*ends, "--endpoint", "generate", "--n", "8")
    assert done.returncode == 0, done.stderr
    assert done.json["upgrade"]["commits"][0]["likely"][0]["pull"] == 52399
    assert "PR 52399" in (done.run_dir / "report.md").read_text()
    assert (done.run_dir / FILE_NAME).exists()
