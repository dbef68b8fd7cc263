"""What is read from an issue: the truth of its text, never more, whatever the text holds."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driving import Vbisect
from made import TOKEN
from standin.github import GitHubServer
from standin.github import Thread as OnGitHub
from standin.index import PackageIndex
from vbisect.commands.from_issue import with_issue
from vbisect.errors import UsageError
from vbisect.issues import Passage, Proposal, Thread, propose, read_saved
from vbisect.launch.arguments import parse_serve_argument, parse_variable
from vbisect.run.asked import what_is_asked
from vbisect.run.options import RunOptions

PAGE = "https://github.com/owner/repo/issues/1"
SAVED = Path(__file__).parent / "data" / "issues" / "17173.json"


def thread(body: str, title: str = "") -> Thread:
    """An issue with this text."""
    return Thread("owner/repo#1", title, (Passage("title", title), Passage("body", body)))


def options(proposals: tuple[Proposal, ...], *, refused: bool = False) -> list[tuple[str, Any]]:
    """What is proposed, or only shown."""
    return [(p.option, p.value) for p in proposals if (p.refused is not None) is refused]


def read(body: str, option: str) -> list[str | None]:
    """What a text proposes for one option."""
    return [value for name, value in options(propose(thread(body))) if name == option]


def test_the_issue_that_the_project_is_about() -> None:
    proposals = propose(read_saved(SAVED))
    assert options(proposals) == [
        ("--from", "0.7.3"),
        ("--model", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("--endpoint", "chat"),
        ("--n", "8"),
        ("--n", "16"),
        ("--temperature", "0.7"),
        ("--top-p", "0.9"),
        ("--max-tokens", "256"),
        ("--serve-arg", "--max-model-len 32768"),
        ("--serve-arg", "--dtype bfloat16"),
        ("--env", "VLLM_USE_V1=0; <0.11"),
    ]
    assert options(proposals, refused=True) == [
        ("--from", "0.8.5"),
        ("--model", "Qwen/Qwen2.5-7B-Instruct"),
        ("--serve-arg", "--served-model-name qwen-vl"),
        ("--serve-arg", "--host 0.0.0.0"),
        ("--serve-arg", "--port 8001"),
        ("--serve-arg", "--trust-remote-code"),
        ("--serve-arg", "--tensor-parallel-size 8"),
        ("--serve-arg", "--limit-mm-per-prompt image=4"),
        ("--env", "VLLM_LOGGING_CONFIG_PATH"),
    ]
    places = {(p.option, p.value): p.where for p in proposals}
    assert places["--from", "0.7.3"] == "body, line 33"
    assert places["--from", "0.8.5"] == "comment 1, line 1"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("vLLM Version: 0.7.3", ["0.7.3"]),
        ("vLLM Version                 : 0.10.1.1", ["0.10.1.1"]),
        ("vLLM Version: 0.8.5.post1", ["0.8.5.post1"]),
        ("vllm==0.7.3+cu121", ["0.7.3"]),
        ("docker run vllm/vllm-openai:v0.9.0", ["0.9.0"]),
        ("I am on vLLM v0.8.2.", ["0.8.2"]),
        ("with vllm version 0.8.2, transformers 4.51.0", ["0.8.2"]),
        ("INFO api_server.py:840] vLLM API server version 0.6.6", ["0.6.6"]),
        # not a version of vLLM
        ("transformers==4.49.0 torch==2.5.1", []),
        ("vllm, Python 3.12.9, CUDA 12.4", []),
        ("vllm python 3.12", []),
        ("vllm 3.12.9", []),
        ("vllm-flash-attn==2.6.1", []),
        ("vllm>=0.7.2 is needed", []),
        ("vLLM Version: N/A (dev)", []),
        # between two releases
        ("vLLM Version: 0.8.5.dev121+g1a2b3c", []),
        ("vLLM Version : 0.11.1rc2.dev191+g80e945298 (git sha: 80e945298)", []),
        ("vLLM Version: 0.9.2rc2.dev39+gabc1234.d20250707", []),
        ("vLLM Version: 0.8.5.post1.dev3+g1a2b3c", []),
    ],
)
def test_the_version_is_that_of_vllm(text: str, found: list[str]) -> None:
    assert read(text, "--from") == found


def test_its_own_report_counts_more_than_what_is_said_of_it() -> None:
    text = "vllm 0.8.5 has this too.\n```\nvLLM Version: 0.7.3\n```\npip install vllm==0.8.0"
    assert read(text, "--from") == ["0.7.3"]


@pytest.mark.parametrize(
    ("text", "option", "found"),
    [
        ("temperature=1e-5", "--temperature", ["1e-05"]),
        ("temperature=0.7.", "--temperature", ["0.7"]),
        ('"temperature": .5}', "--temperature", ["0.5"]),
        ("temperature=1.2.3", "--temperature", []),
        ("temperature=1e5x", "--temperature", []),
        ("temperature=args.t", "--temperature", []),
        ("temperature=1e999", "--temperature", []),
        ("temperature=1e300", "--temperature", []),
        ("max_tokens=999999999999", "--max-tokens", []),
        ("top_p=0", "--top-p", []),
        ("top_p=5", "--top-p", []),
        ('{\\"n\\": 4}', "--n", ["4"]),
        ("n: 8", "--n", ["8"]),
        ("n=0, n=-1, n=999999999999", "--n", []),
        ("n=1.5", "--n", []),
        ("min_n=4, x.n=4, --n=4", "--n", []),
        ("n=1", "--n", ["1"]),
        ("n=1 and n=2", "--n", ["2"]),
        ("stream=True", "--stream", [None]),
        ('"stream": false', "--stream", []),
        ("max_tokens=512", "--max-tokens", ["512"]),
        ("Received request x: SamplingParams(n=2, max_tokens=32749)", "--max-tokens", []),
        ("curl http://h:8000/v1/completions -d '{}'", "--endpoint", ["completions"]),
        ("POST /inference/v1/generate", "--endpoint", ["generate"]),
        ('model="meta-llama/Llama-3.1-8B"', "--model", ["meta-llama/Llama-3.1-8B"]),
        ("and/or vllm-project/vllm", "--model", []),
        ("model='/root/secret/weights'", "--model", []),
        ("vllm serve --foo -tp 8 --max-model-len 9", "--serve-arg", ["--max-model-len 9"]),
        ("`vllm serve a/b --dtype half` fails", "--serve-arg", ["--dtype half"]),
        ("vllm serve a/b --dtype=half | tee log", "--serve-arg", ["--dtype half"]),
        ("vllm serve a/b --dtype half; rm -rf / --seed 1", "--serve-arg", ["--dtype half"]),
        ("vllm serve a/b --dtype 'half; >0'", "--serve-arg", []),
        ("I run vllm serve a/b --dtype auto.", "--serve-arg", []),
        ("vllm serve a/b --max-num-seqs 4.5", "--serve-arg", []),
        ("vllm serve a/b --gpu-memory-utilization 95", "--serve-arg", []),
        (
            "vllm serve a/b --gpu-memory-utilization=.95 --max-model-len 25.6k --swap-space 0.5",
            "--serve-arg",
            [
                "--gpu-memory-utilization .95",
                "--max-model-len 25.6k",
                "--swap-space 0.5; <0.18",
            ],
        ),
        # the words in a sentence are no command where there is one
        (
            "vllm serve returns one choice with --seed 3\n```\nvllm serve a/b --dtype half\n```",
            "--serve-arg",
            ["--dtype half"],
        ),
        ("I use vllm serve to start it.\n`vllm serve a/b --seed 3`", "--serve-arg", ["--seed 3"]),
        (
            "```sh\n$ export VLLM_USE_V1=1 X=2\nexport VLLM_USE_V1=0\nvllm serve a/b\n```",
            "--env",
            ["VLLM_USE_V1=0; <0.11"],
        ),
        ("```\nexport VLLM_USE_V1=1\n```\n```\nvllm serve a/b\n```", "--env", []),
        (
            "vllm serve a/b --num_scheduler_steps 8",
            "--serve-arg",
            ["--num-scheduler-steps 8; <0.10.1"],
        ),
        (
            "docker run -e VLLM_USE_V1=1 --gpus all vllm/vllm-openai:v0.8.1 --model a/b --seed 3",
            "--serve-arg",
            ["--seed 3"],
        ),
        ("docker run -e VLLM_USE_V1=1 vllm/vllm-openai --model a/b", "--env", ["VLLM_USE_V1=1"]),
        ("python -m vllm.entrypoints.openai.api_server --model a/b", "--model", ["a/b"]),
    ],
)
def test_what_was_asked_and_how_it_was_served(
    text: str, option: str, found: list[str | None]
) -> None:
    assert read(text, option) == found


def test_a_greedy_request_for_several_is_not_repeated() -> None:
    """vLLM refuses it, so every release would be a skip; n is 8 where nobody names another."""
    proposals = propose(thread("n=8, temperature=0"))
    assert [p.refused is None for p in proposals] == [True, False]
    assert read("temperature=0", "--temperature") == []
    assert read("n=1, temperature=0", "--temperature") == ["0"]
    assert read("n=8, temperature=1e-6", "--temperature") == ["1e-06"], "0.01 to vLLM: not greedy"


@pytest.mark.parametrize(
    ("own", "temperature"),
    [({}, 0.0), ({"n": (8,)}, 0.7), ({"n": (1,)}, 0.0), ({"suite": True}, 0.7)],
)
def test_nor_is_it_for_what_the_user_asks(
    tmp_path: Path, own: dict[str, Any], temperature: float
) -> None:
    saved = tmp_path / "issue.json"
    body = "vllm version: 0.8.5, n=1, temperature=0"
    saved.write_text(json.dumps({"number": 1, "title": "t", "body": body, "html_url": PAGE}))
    given = RunOptions(start="", end="", **own)
    merged = with_issue(given, str(saved), {f"--{name}" for name in own}, agreed=True)
    assert merged.temperature == temperature
    what_is_asked(merged)


@pytest.mark.parametrize("given", [False, True])
def test_the_users_own_engine_wins(tmp_path: Path, given: bool) -> None:
    """The variable says the same as the option, and both would not agree."""
    saved = tmp_path / "issue.json"
    body = "vllm version: 0.8.5\n```\nVLLM_USE_V1=0 vllm serve org/model\n```"
    saved.write_text(json.dumps({"number": 1, "title": "t", "body": body, "html_url": PAGE}))
    own = RunOptions(start="", end="", engine="v1" if given else "auto")
    merged = with_issue(own, str(saved), {"--engine"} if given else set(), agreed=True)
    assert merged.env == (() if given else ("VLLM_USE_V1=0; <0.11",))


@pytest.mark.parametrize(
    "words",
    [
        "--trust-remote-code",
        "--api-key sk-aaaaaaaaaaaaaaaaaaaaaaaa",
        "--host 0.0.0.0 --port 1",
        "--download-dir /etc --chat-template /etc/passwd",
        "--hf-overrides '{\"auto_map\": 1}'",
        "--tokenizer evil/code --revision main",
        "--middleware evil.Module --tool-parser-plugin /tmp/x.py",
        "--load-format dummy:x --model-impl x",
    ],
)
def test_what_reaches_out_is_shown_and_never_taken(words: str) -> None:
    body = f"LD_PRELOAD=/tmp/x.so VLLM_PLUGINS=evil VLLM_API_KEY=k vllm serve a/b {words}"
    proposals = propose(thread(body))
    assert options(proposals) == [("--model", "a/b")]
    shown = options(proposals, refused=True)
    assert {("--env", "LD_PRELOAD"), ("--env", "VLLM_PLUGINS"), ("--env", "VLLM_API_KEY")} < {
        *shown
    }
    assert words.split()[0] in " ".join(str(value) for _, value in shown)


HOSTILE = st.lists(
    st.sampled_from(
        [
            "vllm",
            " serve ",
            "vllm serve ",
            "-tp ",
            "--x",
            "=",
            "n",
            "n=8",
            "temperature",
            ": ",
            "1e-5",
            "'",
            '"',
            "\\",
            "\\\n",
            "\n",
            "```\n",
            "`",
            "|",
            "a/b-7B",
            "vllm/vllm-openai:v0.7.3 ",
            " run ",
            "0.7.3",
            "==",
            "\x1b[31m",
            "\u202e",
            "\x00",
            "; >=0.1",
            "vLLM Version: ",
            "model=",
        ]
    )
    | st.text(max_size=8),
    max_size=40,
).map("".join)


@given(HOSTILE, HOSTILE)
def test_any_text_gives_options_that_are_accepted(body: str, title: str) -> None:
    """Nothing is raised, and what is taken passes vbisect's own checks."""
    for proposal in propose(thread(body, title)):
        if proposal.refused is not None:
            continue
        value = proposal.value or ""
        if proposal.option == "--serve-arg":
            parse_serve_argument(value)
        elif proposal.option == "--env":
            parse_variable(value)
        elif proposal.option in ("--temperature", "--top-p"):
            assert float(value) >= 0
        elif proposal.option in ("--n", "--max-tokens"):
            assert int(value) > 0
        else:
            assert proposal.option in ("--from", "--model", "--endpoint", "--stream")
            assert value.isprintable()


PIECES = [
    "vllm" + " " * 40,
    "vllm serve ",
    "n" + " " * 20,
    "temperature=" + "1" * 40 + "x ",
    "vllm version:" + " " * 70,
    "a-7B/",
    "a/b-7B ",
    "-" * 30,
    '"model": "' + "x" * 300,
    "vllm-openai:" + "a" * 200,
    "'",
    "vllm==0.7.",
    "~" * 50,
    "\\\n",
    "a" * 97 + "/",
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("end", ["", "\n"], ids=["one line", "many lines"])
def test_a_megabyte_of_anything_is_read(tmp_path: Path, piece: str, end: str) -> None:
    """At once; where the time grew with the square of a line, this would not come to an end."""
    path = tmp_path / "issue.json"
    path.write_text(json.dumps({"body": (piece + end) * (2**20 // len(piece + end))}))
    assert all(len(p.value or "") < 200 for p in propose(read_saved(path)))


def test_a_million_spaces() -> None:
    assert propose(thread("vllm" + " " * 2**20 + "serve")) == ()


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"title": 1}', '{"comments": ["x"]}', "[" * 9999]
)
def test_what_is_no_saved_issue(tmp_path: Path, content: str) -> None:
    path = tmp_path / "issue.json"
    path.write_text(content)
    with pytest.raises(UsageError, match="is no saved issue"):
        read_saved(path)


def test_comments_may_be_their_number(tmp_path: Path) -> None:
    """As the API has it, which keeps the comments elsewhere."""
    path = tmp_path / "issue.json"
    path.write_text(json.dumps({"title": "t", "body": None, "comments": 3}))
    assert read_saved(path).passages == (Passage("title", "t"),)


class Command:
    """``vbisect`` as a shell starts it, on a CPU and without an engine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB", "GH_"))}
        self.env |= {"DOCKER_HOST": "unix:///nowhere", "PATH": "/usr/bin:/bin"}

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vbisect", *words]
        return subprocess.run(
            command,
            cwd=self.directory,
            env=self.env,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stderr=options.pop("stderr", subprocess.PIPE),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )


@pytest.fixture
def vbisect_over_family(
    command: Callable[..., Vbisect], family_index: PackageIndex, family_cache: Path
) -> Vbisect:
    """The command over stand-in releases."""
    return command(family_index, family_cache)


@pytest.fixture
def vbisect(tmp_path: Path) -> Command:
    """The command."""
    return Command(tmp_path)


def test_without_a_yes_it_shows_and_runs_nothing(vbisect: Command) -> None:
    done = vbisect("run", "--from-issue", str(SAVED), "--n", "2")
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[-1] == (
        "vbisect: Nothing was run: pass --yes to run that, or say yes on a terminal."
    )
    shown = [" ".join(line.split()) for line in lines]
    assert "--from 0.7.3 body, line 33: vLLM Version: 0.7.3" in shown
    assert any(line.startswith("--to nightly") for line in shown)
    assert any(line.startswith("--n 8 given on the command line") for line in shown)
    assert any(
        line.startswith("--serve-arg --trust-remote-code it would run code that comes with the")
        for line in shown
    )
    assert list(vbisect.directory.iterdir()) == []


def test_with_a_yes_it_runs_what_is_proposed(vbisect_over_family: Vbisect) -> None:
    """Until the answer, as if the options had been given."""
    saved = vbisect_over_family.results / "issue.json"
    body = "vLLM Version: 0.27.1\n`vllm serve org/a-7B --seed 1` and /inference/v1/generate n=4"
    saved.write_text(json.dumps({"title": "choices missing", "body": body}))
    own = ("--to", "0.32.0", "--serve-arg", "--enable-scale-out; >=0.30")
    vbisect_over_family.env["HF_HUB_OFFLINE"] = "1"
    done = vbisect_over_family.run("--from-issue", saved, "--yes", *own)
    assert done.returncode == 0, done.stderr
    assert done.json["answer"]["first_after"] == "0.29.0"
    assert done.json["model"] == "org/a-7B"
    for words in ("--from 0.27.1", "--endpoint generate", "--n 4", "'--seed 1'"):
        assert words in done.json["replay"]


@pytest.mark.parametrize(
    ("own", "reason", "left_out"),
    [
        (("--suite",), "--suite asks several by itself", ("--n 8", "--n 16")),
        (("--", "true"), "the command asks by itself", ("--endpoint chat", "--n 8", "--top-p 0.9")),
    ],
)
def test_what_asks_by_itself_is_not_told_how(
    vbisect: Command, own: tuple[str, ...], reason: str, left_out: tuple[str, ...]
) -> None:
    done = vbisect("run", "--from-issue", str(SAVED), *own)
    shown = [" ".join(line.split()) for line in done.stderr.splitlines()]
    assert all(any(line.startswith(f"{words} {reason}") for line in shown) for words in left_out)
    assert "Nothing was run" in shown[-1]


def test_a_no_on_the_terminal_runs_nothing(vbisect: Command) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    done = vbisect("run", "--from-issue", str(SAVED), stdin=theirs, stderr=theirs)
    os.close(theirs)
    assert done.returncode == 2
    shown = os.read(ours, 100_000).decode()
    assert "run that? [y/N]" in shown
    os.close(ours)
    assert list(vbisect.directory.iterdir()) == []


def test_hostile_text_is_shown_plain(vbisect: Command) -> None:
    body = f"vLLM Version: 0.7.3 \x1b[31mred\u202e {TOKEN}\n`vllm serve a/b --evil=\x1b]0;x\x07`"
    path = vbisect.directory / "hostile.json"
    path.write_text(json.dumps({"title": f"@everyone\x1b[2J {TOKEN}", "body": body}))
    done = vbisect("run", "--from-issue", str(path))
    assert done.returncode == 2
    assert "--from 0.7.3" in done.stderr
    for bad in ("\x1b", "\u202e", "\x07", TOKEN):
        assert bad not in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--from-issue", "https://gitlab.com/a/b/issues/1"), "is not on github.com"),
        (("--from-issue", "https://github.com.evil.org/a/b/issues/1.json"), "is not on github.com"),
        (("--from-issue", "nonsense"), "names no issue"),
        (("--from-issue", "missing.json"), "missing.json cannot be read"),
        (("--from-issue", "a/b#1", "--resume", "x"), "leave out --from-issue"),
    ],
)
def test_what_cannot_be_an_issue(vbisect: Command, words: tuple[str, ...], told: str) -> None:
    done = vbisect("run", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def github() -> Iterator[GitHubServer]:
    """A GitHub with the issue."""
    saved = json.loads(SAVED.read_text())
    with GitHubServer() as made:
        made.threads["vllm-project/vllm", 17173] = OnGitHub(saved["title"], saved["body"])
        made.threads["a/b", 1] = OnGitHub("no version here", None)
        for comment in saved["comments"]:
            made.comment("vllm-project/vllm", 17173, "someone", comment["body"])
        yield made


def test_an_issue_on_github(vbisect: Command, github: GitHubServer) -> None:
    vbisect.env["GITHUB_API_URL"] = github.url
    done = vbisect("run", "--from-issue", "vllm-project/vllm#17173")
    assert done.returncode == 2, done.stderr
    assert "vbisect: vllm-project/vllm#17173: [Bug]: n > 1 returns" in done.stderr
    assert "--from 0.7.3" in done.stderr
    assert "also named (comment 1, line 1)" in done.stderr
    none = vbisect("run", "--from-issue", "a/b#1")
    assert none.returncode == 2
    assert "a/b#1 names no vLLM version: give --from." in none.stderr
