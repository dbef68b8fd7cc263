"""Arguments and variables that releases of the range do not have are said before anything boots."""

from __future__ import annotations

import pytest

from driving import Vbisect, events
from made import releases
from vbisect.launch import Limited
from vbisect.releases.changes import changes
from vbisect.run.docker_settings import DockerSettings
from vbisect.run.known_settings import for_no_candidate, not_known

READ = changes().read
ALL = ("0.1.0", *READ, "99.0.dev5+g1234567")


def said(text: str, *versions: str, option: str = "--serve-arg") -> list[str]:
    """What there is to say of one argument, or variable."""
    limited = (Limited.parse(option, text),)
    args, env = (limited, ()) if option == "--serve-arg" else ((), limited)
    return list(not_known(args, env, versions or ALL))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "--enable-scale-out",
            "releases): they will not start with it. Write --serve-arg '--enable-scale-out; "
            ">=0.30.0'.",
        ),
        (
            "--max_prompt_adapter_token 7 --seed 1",
            "not start with it. Write --serve-arg '--max_prompt_adapter_token 7; <0.10.0'.",
        ),
        ("--no-enable-log-requests", "Write --serve-arg '--no-enable-log-requests; >=0.10.1'."),
        ("--task generate; >=0.9", "Write --serve-arg '--task generate; <0.13.0,>=0.9'."),
        ("--banana 3", "Leave it out: no candidate is known to have it."),
    ],
)
def test_what_to_write_instead(text: str, words: str) -> None:
    """One line: which releases, and how to limit the argument to the others."""
    (line,) = said(text)
    assert words in line
    assert line.startswith("--")


@pytest.mark.parametrize(
    "text",
    [
        *("--enable-scale-out; >=0.30", "--seed -1", "-tp 2", "--max-model 3", "-O.level=3"),
        *("--tool-call-parser hermes", "--model.x 1", "--trust-remote-code"),
    ],
)
def test_nothing_is_said_of_what_all_have(text: str) -> None:
    """Short names, parts, the beginning of a name, and what was limited already."""
    assert said(text) == []


def test_of_releases_that_were_not_read_little_is_known() -> None:
    """An older one may have anything, a newer one what is new; a rebuild is like its neighbours."""
    assert said("--enable-scale-out", "0.1.0", "0.1.1") == []
    assert said("--banana", "99.0.dev5+g1234567", "99.0") == []
    assert len(said("--task generate", "99.0")) == 1
    assert said("--max-prompt-adapter-token 7", "0.9.2.post1") == []
    assert len(said("--max-prompt-adapter-token 7", "0.10.0.post1")) == 1


def test_variables_of_vllm_that_mean_nothing_are_told() -> None:
    """Those of others are nobody's business here."""
    (line,) = said("VLLM_USE_V1=1", option="--env")
    assert "VLLM_USE_V1 is unknown to 0.11.1" in line
    assert "it changes nothing there. Write --env 'VLLM_USE_V1=1; <0.11.1'." in line
    assert said("MY_OWN=1", option="--env") == []


def test_plan_and_run_say_so_and_refuse_nothing(vbisect: Vbisect) -> None:
    """The run goes on, whatever comes of it."""
    words = ("--from", "0.31.0", "--to", "0.32.0", "--serve-arg", "--task generate")
    line = "--task is unknown to 0.31.0, 0.32.0: they will not start with it."
    plan = vbisect("plan", *words, "--device", "cpu", "--runtime", "venv")
    assert plan.returncode == 0, plan.stderr
    assert f"NOTE {line}" in plan.stdout
    done = vbisect.run(*words, "--confidence", "0.6")
    assert done.returncode in (1, 3)
    assert line in done.stderr
    kinds = [event["event"] for event in events(done.run_dir)]
    assert kinds.index("note") < kinds.index("trial_started")


def test_what_is_for_no_candidate_is_told() -> None:
    """It would be taken for tested: as a variant of images that none of them has."""
    docker = DockerSettings(
        image_repo="vllm/vllm-openai",
        gpus="all",
        image_variant=(Limited(text="cu129", specifier=">=0.40"), Limited(text="x86_64")),
        images={"0.9.0": "my/vllm:patched", "0.29.0": "my/vllm:mine"},
    )
    args = (Limited(text="--seed 1", specifier="<0.27"), Limited(text="--seed 2"))
    told = for_no_candidate(args, (Limited(text="A=1", specifier="==0.28.1"),), docker, releases())
    assert [
        line.removesuffix(" is for none of the candidates: it changes nothing.") for line in told
    ] == [
        "--serve-arg '--seed 1; <0.27'",
        "--env 'A=1; ==0.28.1'",
        "--image-variant 'cu129; >=0.40'",
        "--image 0.9.0=my/vllm:patched",
    ]
    assert for_no_candidate(args[1:], (), None, releases()) == ()
