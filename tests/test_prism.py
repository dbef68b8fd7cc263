"""Every request to GitHub is one that GitHub's published description allows.

The description is that of https://github.com/octokit/openapi. Prism answers by it, and refuses what
it does not allow (https://docs.stoplight.io/docs/prism).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from standin.github import GitHubServer
from test_post import ISSUE, REPOSITORY, Poster
from vbisect.github import GitHub, IssueReference, Refused

PACKAGES = Path(__file__).parent / "github" / "package.json"
DESCRIPTION = "node_modules/@octokit/openapi/generated/api.github.com.json"
REFERENCE = IssueReference(REPOSITORY, 17173)

pytestmark = pytest.mark.prism


@pytest.fixture(scope="session")
def packages() -> Path:
    """Prism and the description, installed once for this host."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("node or npm is missing: apt-get install nodejs npm")
    default = Path(tempfile.gettempdir()) / "vbisect-test-cache"
    cache = Path(os.environ.get("VBISECT_TEST_CACHE") or default)
    directory = cache / f"prism-{sha256(PACKAGES.read_bytes()).hexdigest()[:12]}"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "installed").exists():
            install(directory)
            (directory / "installed").touch()
    return directory


def install(directory: Path) -> None:
    """Without the packages' own scripts, and without the descriptions of other products."""
    shutil.copy(PACKAGES, directory)
    done = subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        missing(f"npm install failed:\n{done.stderr[-1500:]}")
    description = directory / DESCRIPTION
    for other in description.parent.glob("*.json"):
        if other != description:
            other.unlink()


def missing(what: str) -> None:
    """A part that is missing is a failure where everything has to be tested."""
    if os.environ.get("VBISECT_CI") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def prism(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prism that answers with the description's examples."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("prism") / "log"
    command = ["node_modules/.bin/prism", "mock", "--errors", "-h", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as out:
        running = subprocess.Popen([*command, DESCRIPTION], cwd=packages, stdout=out, stderr=out)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, running, log)
        yield address
    finally:
        running.terminate()
        try:
            running.wait(60)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_for(address: str, running: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers: the description has 13 megabytes."""
    until = time.monotonic() + 300
    while time.monotonic() < until and running.poll() is None:
        try:
            httpx.get(address, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"Prism did not start:\n{log.read_text(errors='replace')[-1500:]}")


@pytest.fixture
def github(prism: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """The client, talking to Prism."""
    monkeypatch.setenv("GITHUB_API_URL", prism)
    monkeypatch.setenv("GITHUB_TOKEN", "a-token")
    with GitHub(seconds=300) as made:
        yield made


def test_the_published_answers_are_understood(github: GitHub) -> None:
    """The description's own examples have what vbisect reads."""
    assert github.user().login == "octocat"
    comment = next(github.comments(REFERENCE))
    assert comment.user is not None
    assert (comment.user.login, comment.body) == ("octocat", "Me too")
    assert "issuecomment" in github.create_comment(REFERENCE, "text").html_url
    assert "issuecomment" in github.update_comment(REFERENCE, comment.id, "text").html_url
    made = github.create_gist("Logs", {"0.28.0-server.log": "line\n"})
    assert made.html_url.startswith("https://gist.github.com/")
    assert github.gist(made.id).files
    assert github.update_gist(made.id, {"0.28.0-server.log": "other\n"}).id
    github.delete_gist(made.id)
    (page,) = github.compare(REPOSITORY, "v0.28.0", "v0.29.0")
    assert page.total_commits == 1
    assert page.commits[0].commit.message
    assert page.files[0].filename


def test_prism_refuses_what_the_description_does_not_allow(github: GitHub) -> None:
    """Or nothing here would be worth anything."""
    with pytest.raises(Refused):
        github._send("POST", f"/repos/{ISSUE.replace('#', '/issues/')}/comments", "it", {"body": 1})
    with pytest.raises(Refused):
        github._send("POST", "/gists", "a gist", {"public": False})


def test_every_request_of_the_command_is_allowed(prism: str, tmp_path: Path) -> None:
    """All that ``vbisect post`` sends while it comments, edits, and moves logs to a gist."""
    with GitHubServer(page_size=2) as server:
        poster = Poster(server, tmp_path)
        for number in range(5):
            server.comment(REPOSITORY, 17173, "somebody", f"comment {number}")
        for options in (["--gist"], ["--gist"], []):
            assert poster(*options).returncode == 0
        poster.change_the_report()
        server.fault("POST", "/comments", 422, "no")
        assert poster().returncode == 0
        server.threads[REPOSITORY, 17173].comments.clear()
        server.fault("POST", "/comments", 422, "no")
        for log in poster.run_dir.glob("trials/*/server.log"):
            log.write_text("line\n" * 20_000)
        assert poster("--gist").returncode == 4
    kinds = set()
    for asked in server.asked:
        kept = ("accept", "authorization", "content-type", "user-agent", "x-github-api-version")
        answer = httpx.request(
            asked.method,
            prism + asked.path,
            headers={name: asked.headers[name] for name in kept if name in asked.headers},
            json=asked.body,
            trust_env=False,
            timeout=120,
        )
        assert answer.status_code < 300, (asked.method, asked.path, answer.text[:500])
        kinds.add((asked.method, asked.path.split("/")[1]))
    assert kinds >= {
        ("GET", "user"),
        ("GET", "repos"),
        ("POST", "repos"),
        ("PATCH", "repos"),
        ("GET", "gists"),
        ("POST", "gists"),
        ("DELETE", "gists"),
    }
