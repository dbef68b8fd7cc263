"""``vbisect post``: written once, edited from then on, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from driving import Done
from standin.github import GitHubServer, Thread
from vbisect.report.comment import is_ours, length, linked_gist, to_comment
from vbisect.run.state import load_state

RECORDED = Path(__file__).parent.parent / "results" / "20261122-183104-0.27.1-0.32.0"
REPOSITORY = "vllm-project/vllm"
ISSUE = f"{REPOSITORY}#17173"
TOKEN = "0123456789abcdef0123456789abcdef01234567"  # of a shape that no pattern knows
OTHER = "89abcdef0123456789abcdef0123456789abcdef"


class Poster:
    """The command over a copy of the recorded run, with a GitHub of its own."""

    def __init__(self, server: GitHubServer, home: Path) -> None:
        self.server, self.home = server, home
        self.run_dir = home / "run"
        shutil.copytree(RECORDED, self.run_dir)
        server.tokens |= {TOKEN: "operator", OTHER: "somebody"}
        server.threads[REPOSITORY, 17173] = Thread()

    def __call__(self, *options: str, issue: str = ISSUE, **env: str | None) -> Done:
        """Post; the token is in no output and in no file."""
        plain = {
            "PATH": str(self.home),  # no gh
            "HOME": str(self.home),
            "GITHUB_API_URL": self.server.url,
            "GITHUB_TOKEN": TOKEN,
            "PYTHONPATH": os.pathsep.join(sys.path),
            **env,
        }
        known = {name: value for name, value in plain.items() if value is not None}
        command = [sys.executable, "-m", "vbisect", "post", str(self.run_dir), "--issue", issue]
        done = subprocess.run([*command, *options], env=known, capture_output=True, check=False)
        told = Done(done.returncode, done.stdout.decode(), done.stderr.decode(), 0)
        kept = [p.read_bytes() for p in self.home.rglob("*") if p.is_file()]
        for token in (TOKEN, OTHER):
            assert token not in told.stdout + told.stderr
            assert not any(token.encode() in content for content in kept)
        return told

    @property
    def comments(self) -> list[str]:
        """The bodies in the thread."""
        return [c["body"] for c in self.server.threads[REPOSITORY, 17173].comments]

    @property
    def writes(self) -> list[str]:
        """What was to be changed, by method and path."""
        return [f"{asked.method} {asked.path}" for asked in self.server.written]

    def change_the_report(self) -> None:
        """The same question with another answer: the newest trial is not there."""
        journal = self.run_dir / "journal.jsonl"
        lines = journal.read_text().splitlines(keepends=True)
        kept = [n for n, line in enumerate(lines) if '"trial_finished"' in line][1]
        journal.write_text("".join(lines[: kept + 1]))


@pytest.fixture
def poster(tmp_path: Path) -> Iterator[Poster]:
    """A thread without a comment."""
    with GitHubServer() as server:
        yield Poster(server, tmp_path)


def test_a_comment_is_written_once_and_then_edited(poster: Poster) -> None:
    """An unchanged report writes nothing; a changed one edits the comment."""
    first = poster()
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{poster.server.url}/{REPOSITORY}/issues/17173#issuecomment-1\n"
    assert poster.comments[0].split("\n")[1].startswith("**Fixed in 0.29.0; 0.28.0 is the last")
    again = poster()
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "nothing was written" in again.stderr
    poster.change_the_report()
    edited = poster()
    assert (edited.returncode, edited.stdout) == (0, first.stdout)
    assert "edited the earlier comment" in edited.stderr
    assert len(poster.comments) == 1
    assert "**Not finished**" in poster.comments[0]
    assert poster.writes == [
        f"POST /repos/{REPOSITORY}/issues/17173/comments",
        f"PATCH /repos/{REPOSITORY}/issues/comments/1",
    ]


def test_its_own_comment_is_found_on_any_page(poster: Poster) -> None:
    """And other authors' copies of it are left alone, be they before or after it."""
    poster.server.page_size = 2
    body = to_comment(load_state(poster.run_dir)[0], poster.run_dir).body
    copy = poster.server.comment(REPOSITORY, 17173, "somebody", body)
    for number in range(3):
        poster.server.comment(REPOSITORY, 17173, "operator", f"quoting:\n\n{body[:500]} {number}")
    own = poster.server.comment(REPOSITORY, 17173, "operator", f"{body}\r\nolder")
    poster.server.comment(REPOSITORY, 17173, "somebody", body)
    assert poster().returncode == 0
    assert poster.writes == [f"PATCH /repos/{REPOSITORY}/issues/comments/{own['id']}"]
    assert copy["body"] == body
    assert poster.server.count("GET", "/comments") == 3


OLDER_MARKER = "<!-- vbisect: 38be6141b8b69b2d11f61480a97de03d -->"
"""As an older vbisect began a comment on the recorded run, on whatever it ran."""


@pytest.mark.parametrize(("ran", "edited"), [("--device cpu", True), ("--device cuda", False)])
def test_an_older_comment_is_edited_where_it_tells_the_same(
    poster: Poster, ran: str, edited: bool
) -> None:
    """Its marker leaves out the device; then it has today's, and a later comment goes before it."""
    body = to_comment(load_state(poster.run_dir)[0], poster.run_dir).body
    older = "\n".join([OLDER_MARKER, *body.split("\n")[1:]]).replace("--device cpu", ran)
    poster.server.comment(REPOSITORY, 17173, "operator", older)
    assert poster().returncode == 0
    assert poster().returncode == 0
    begun = [comment.split("\n")[0] for comment in poster.comments]
    today = body.split("\n")[0]
    assert begun == ([today] if edited else [OLDER_MARKER, today])
    assert len(poster.writes) == 1


def test_others_cannot_have_their_comment_edited(poster: Poster) -> None:
    """A second author writes a comment of their own."""
    assert poster().returncode == 0
    assert poster(GITHUB_TOKEN=OTHER).returncode == 0
    assert poster(GITHUB_TOKEN=None, GH_TOKEN=OTHER).returncode == 0
    assert len(poster.comments) == 2
    assert poster.server.count("PATCH") == 0


def test_the_address_of_the_page_names_an_issue_too(poster: Poster) -> None:
    """As it is copied from a browser."""
    page = f"{poster.server.url}/{REPOSITORY}/issues/17173#issuecomment-1"
    assert poster(issue=page).returncode == 0
    assert len(poster.comments) == 1


def test_a_dry_run_prints_what_would_be_sent(poster: Poster) -> None:
    """Byte for byte, by whichever method, and writes nothing."""
    dry = poster("--dry-run")
    assert dry.returncode == 0
    assert f"vbisect: POST /repos/{REPOSITORY}/issues/17173/comments\n" in dry.stderr
    assert poster.writes == []
    poster()
    assert poster.comments == [dry.stdout]
    assert "nothing to change" in poster("--dry-run").stderr
    poster.change_the_report()
    dry = poster("--dry-run")
    assert f"vbisect: PATCH /repos/{REPOSITORY}/issues/comments/1\n" in dry.stderr
    poster()
    assert poster.comments == [dry.stdout]


def test_a_dry_run_needs_no_token_and_no_network(poster: Poster) -> None:
    """It says what it cannot know."""
    known = poster("--dry-run")
    without = poster("--dry-run", GITHUB_TOKEN=None, GITHUB_API_URL="http://127.0.0.1:9")
    assert (without.returncode, without.stdout) == (0, known.stdout)
    assert "without a token it is not known" in without.stderr
    offline = poster("--dry-run", GITHUB_API_URL="http://127.0.0.1:9")
    assert (offline.returncode, offline.stdout) == (0, known.stdout)
    assert "not known whether there is an earlier comment to edit: Cannot talk" in offline.stderr


def test_long_logs_go_to_one_secret_gist(poster: Poster) -> None:
    """It is edited when the run is posted again, and only when it changed."""
    assert poster("--gist").returncode == 0
    (gist,) = poster.server.gists.values()
    assert gist["public"] is False
    assert set(gist["files"]) == {
        f"{version}-server.log" for version in ("0.27.1", "0.28.0", "0.29.0", "0.32.0")
    }
    assert f"The logs at length: {gist['html_url']}" in poster.comments[0]
    linked = linked_gist(poster.comments[0])
    assert linked is not None
    assert linked[0] == gist["id"]
    again = poster("--gist")
    assert "nothing was written" in again.stderr
    dry = poster("--gist", "--dry-run")
    assert "nothing to change" in dry.stderr
    assert dry.stdout == poster.comments[0]
    assert len(poster.writes) == 2
    poster.change_the_report()
    with (poster.run_dir / "trials" / "0.27.1" / "server.log").open("a") as log:
        log.write("one line more\n" * 5000)
    assert poster("--gist").returncode == 0
    assert list(poster.server.gists) == [gist["id"]]
    assert set(gist["files"]) == {"0.27.1-server.log", "0.32.0-server.log"}
    assert gist["files"]["0.27.1-server.log"]["content"].endswith("one line more\n")
    assert [write.split()[0] for write in poster.writes] == ["POST", "POST", "PATCH", "PATCH"]
    assert len(poster.comments) == 1


def test_a_dry_run_shows_what_it_can_where_the_gist_is_not_told(poster: Poster) -> None:
    """It prints the comment all the same."""
    poster("--gist")
    poster.server.fault("GET", "/gists", 403, "no")
    dry = poster("--gist", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "it is not known whether the gist still exists" in dry.stderr
    assert "**Fixed in 0.29.0" in dry.stdout


def test_a_gist_that_was_deleted_is_made_anew(poster: Poster) -> None:
    """The comment then links to the new one."""
    poster("--gist")
    poster.server.gists.clear()
    assert poster("--gist").returncode == 0
    (gist,) = poster.server.gists.values()
    assert gist["html_url"] in poster.comments[0]


def test_short_logs_need_no_gist(poster: Poster) -> None:
    """All of them are in the comment."""
    for log in poster.run_dir.glob("trials/*/server.log"):
        log.write_text("short\n")
    done = poster("--gist")
    assert done.returncode == 0
    assert "no gist is needed" in done.stderr
    assert poster.server.gists == {}


def test_a_gist_no_longer_linked_is_told_of(poster: Poster) -> None:
    """It is the user's to delete."""
    poster("--gist")
    (gist,) = poster.server.gists
    assert f"it links to gist {gist} no more" in poster().stderr


@pytest.mark.parametrize("fault", [422, 502])
def test_nothing_is_left_behind_when_the_comment_fails(poster: Poster, fault: int) -> None:
    """The gist made for it is deleted again; if even that fails, its address is said."""
    poster.server.fault("POST", "/comments", fault, "no")
    done = poster("--gist")
    assert done.returncode == 4
    assert poster.server.gists == {}
    assert "the gist made for it was deleted again" in done.stderr
    poster.server.fault("POST", "/comments", 422, "no")
    poster.server.fault("DELETE", "/gists", 403, "no")
    done = poster("--gist")
    assert done.returncode == 4
    (gist,) = poster.server.gists.values()
    assert f"left behind, delete it: {gist['html_url']}" in done.stderr
    assert poster.comments == []


def test_a_comment_whose_answer_was_lost_counts(poster: Poster) -> None:
    """It is looked for before it is given up, so that its gist is not deleted under it."""
    poster.server.lose_answers("POST", "/comments")
    done = poster("--gist")
    assert done.returncode == 0, done.stderr
    assert len(poster.comments) == len(poster.server.gists) == 1


def test_a_gist_whose_answer_was_lost_may_be_there(poster: Poster) -> None:
    """Nobody can look for it, so it is not said that nothing is written twice."""
    poster.server.lose_answers("POST", "/gists")
    done = poster("--gist")
    assert done.returncode == 4
    assert len(poster.server.gists) == 1
    assert poster.comments == []
    assert "makes another gist; if there is one of this among yours, delete that." in done.stderr
    assert "nothing twice" not in done.stderr


def test_a_token_that_may_make_no_gist_is_explained(poster: Poster) -> None:
    """GitHub then says that there is nothing of that name."""
    poster.server.fault("POST", "/gists", 404, "Not Found")
    done = poster("--gist")
    assert done.returncode == 4
    assert "The token of GITHUB_TOKEN may make no gist: it needs the scope gist." in done.stderr
    assert poster.comments == []


def test_a_rate_limit_is_waited_for_and_said(poster: Poster) -> None:
    """However it is worded."""
    poster.server.fault("POST", "/comments", 403, "secondary rate limit", {"retry-after": "1"})
    done = poster()
    assert done.returncode == 0
    assert "vbisect: GitHub's rate limit is reached; waiting 1 s\n" in done.stderr
    poster.server.fault("GET", "/user", 429, "", {"retry-after": "86400"}, times=9)
    done = poster()
    assert (done.returncode, done.stdout) == (4, "")
    assert "asks to be left alone for 24 h, until 2" in done.stderr


def test_a_locked_issue_is_explained(poster: Poster) -> None:
    """Nothing of the run stays on GitHub."""
    poster.server.threads[REPOSITORY, 17173].locked = True
    done = poster("--gist")
    assert done.returncode == 4
    assert f"{ISSUE} is locked: only collaborators may still comment." in done.stderr
    assert poster.server.gists == {}


def test_a_moved_issue_is_commented_where_it_is(poster: Poster) -> None:
    """Under the new name of its repository, which is said."""
    poster.server.renamed["vllm/vllm"] = REPOSITORY
    done = poster(issue="vllm/vllm#17173")
    assert done.returncode == 0
    assert f"vllm/vllm#17173 is {ISSUE} now" in done.stderr
    assert poster.writes == [f"POST /repos/{REPOSITORY}/issues/17173/comments"]


@pytest.mark.parametrize(
    ("options", "issue", "env", "code", "told"),
    [
        ([], ISSUE, {"GITHUB_TOKEN": None}, 2, "No token for GitHub: set GITHUB_TOKEN"),
        ([], ISSUE, {"GITHUB_TOKEN": "x" * 40}, 4, "does not accept the token of GITHUB_TOKEN"),
        ([], f"{REPOSITORY}#1", {}, 2, f"GitHub does not find {REPOSITORY}#1"),
        ([], "17173", {}, 2, "17173 names no issue"),
        ([], "https://elsewhere.example/a/b/issues/1", {}, 2, "is not on 127.0.0.1"),
        ([], ISSUE, {"GITHUB_API_URL": "http://github.example"}, 2, "only https is safe"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    poster: Poster, options: list[str], issue: str, env: dict[str, str], code: int, told: str
) -> None:
    """With the documented exit code, and nothing on stdout."""
    done = poster(*options, issue=issue, **env)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert poster.writes == []


def test_the_token_of_actions_is_explained(poster: Poster) -> None:
    """It is nobody's, so that it cannot be told which comments are its own."""
    poster.server.fault("GET", "/user", 403, "Resource not accessible by integration")
    done = poster()
    assert done.returncode == 4
    assert "integration. It has to be the token of a user.\n" in done.stderr
    assert poster.writes == []


def test_a_run_without_a_trial_is_not_posted(poster: Poster) -> None:
    """There is nothing to tell yet."""
    journal = poster.run_dir / "journal.jsonl"
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    done = poster()
    assert done.returncode == 2
    assert "no finished trial" in done.stderr


def test_a_comment_of_ten_megabyte_lines_is_taken(poster: Poster) -> None:
    """GitHub's limit holds, and the comment is found again."""
    for log in poster.run_dir.glob("trials/*/server.log"):
        log.write_bytes(b"\xf0\x9f\x98\x80" * 2_500_000)
    assert poster("--gist").returncode == 0
    (body,) = poster.comments
    assert length(body) < 65_536
    assert is_ours(body, load_state(poster.run_dir)[0].settings)
