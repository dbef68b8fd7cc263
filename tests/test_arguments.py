"""Serve arguments and variables limited to versions: read, chosen, and written back unchanged."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vbisect.errors import UsageError
from vbisect.launch.arguments import (
    Limited,
    effective_arguments,
    effective_environment,
    parse_serve_argument,
    parse_variable,
    refuse_secrets,
)

Specifiers = st.sampled_from(["", ">=0.30", "<0.10,>=0.8", "!=0.9.*", "==0.8.5.post1", "~=0.11.0"])
Texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(Texts, Specifiers)
@example("K=a;b", "")
@example("--x;", ">=0.30")
def test_what_was_read_is_written_back(text: str, specifier: str) -> None:
    """The text of an option, as replayed, means what it meant; semicolons in values included."""
    try:
        limited = Limited.parse("--env", f"{text};{specifier}")
    except UsageError:
        assert not text.strip()
        return
    assert limited.text == text.strip()
    assert Limited.parse("--env", str(limited)) == limited


@pytest.mark.parametrize(
    ("value", "text", "specifier"),
    [
        ("--enable-scale-out; >=0.30", "--enable-scale-out", ">=0.30"),
        ("--enable-scale-out;>=0.30", "--enable-scale-out", ">=0.30"),
        ("--seed 1", "--seed 1", ""),
        ("--seed 1;", "--seed 1", ""),
        ('--x \'{"a": "b;c"}\'; <0.9, >=0.8', '--x \'{"a": "b;c"}\'', "<0.9, >=0.8"),
    ],
)
def test_the_last_semicolon_starts_the_specifier(value: str, text: str, specifier: str) -> None:
    """A specifier is whatever follows the last semicolon."""
    assert parse_serve_argument(value) == Limited(text=text, specifier=specifier)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.29.0", ["--old", "a b"]),
        ("0.30.0", ["--enable-scale-out"]),
        ("0.33.1rc1.dev5+g0123abc", ["--enable-scale-out"]),
    ],
)
def test_arguments_go_to_the_versions_that_know_them(version: str, expected: list[str]) -> None:
    """Each argument is split like a shell would, and development builds count as versions."""
    options = ["--seed=1", "--enable-scale-out; >=0.30", "--old 'a b'; <0.30"]
    words = effective_arguments(map(parse_serve_argument, options), version)
    assert words == ["--seed=1", *expected]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1))
def test_quoted_words_arrive_unchanged(words: list[str]) -> None:
    """Whatever a shell would hand over in one word reaches the server as one word."""
    text = shlex.join(words)
    if text == text.strip():
        assert effective_arguments([Limited(text=text)], "0.8.5") == words


def test_variables_by_value_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name alone passes vbisect's own value on; the value itself is recorded nowhere."""
    monkeypatch.setenv("HF_TOKEN", "the-secret-value")
    monkeypatch.delenv("NOT_THERE", raising=False)
    options = ["HF_TOKEN", "VLLM_USE_V1=1; <0.8", "A=b=c", "EMPTY=", "NOT_THERE"]
    variables = [parse_variable(option) for option in options]
    assert "the-secret-value" not in "".join(map(str, variables))
    chosen = effective_environment(variables, "0.8.0")
    assert chosen == {"HF_TOKEN": "the-secret-value", "A": "b=c", "EMPTY": "", "NOT_THERE": ""}
    assert effective_environment(variables, "0.7.3")["VLLM_USE_V1"] == "1"


@pytest.mark.parametrize(
    "value",
    [
        "--port 8000",
        "--port=8000",
        "--host 0.0.0.0",
        "--uds=/tmp/s",
        "--seed 1 --api-key x",
        "--api-key=x",
        "--api_key x",
        "--x 'unclosed",
        "--x; >=zero",
        "--x; 0.30",
        "  ; >=0.30",
        "",
        ";",
    ],
)
def test_arguments_vbisect_cannot_honour_are_refused(value: str) -> None:
    """The address is vbisect's own, keys are recorded nowhere, and typing errors are told."""
    with pytest.raises(UsageError, match="--serve-arg"):
        parse_serve_argument(value)


@pytest.mark.parametrize(
    "value",
    ["HF_TOKEN=abc", "my_secret=1; >=0.8", "1A=b", "A B=c", "=x", "", "A-B=1", "A=1; 0.8"],
)
def test_variables_vbisect_cannot_honour_are_refused(value: str) -> None:
    """A secret written out would be recorded; a name must be one."""
    with pytest.raises(UsageError, match="--env"):
        parse_variable(value)


def test_a_refused_secret_is_not_repeated() -> None:
    """The message names the variable and never its value."""
    with pytest.raises(UsageError) as refused:
        parse_variable("WANDB_API_KEY=0123456789")
    assert "0123456789" not in str(refused.value)
    assert "WANDB_API_KEY" in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "DB_PASS",
            "PGPASS",
            "MYSQL_PWD",
            "SSH_PASSPHRASE",
            "AUTH",
            "REDISCLI_AUTH",
            "PRIVATE_KEY",
        ),
        *(
            "PRIVATEKEY",
            "KEY",
            "SSL_KEY",
            "S3_ACCESS_KEY_ID",
            "S3_SECRET_ACCESS_KEY",
            "HF_PAT",
            "PAT",
        ),
        *(
            "HF_TOKEN",
            "TOKEN",
            "TOKEN2",
            "GITHUB_TOKEN_OLD",
            "API_TOKENS",
            "vllm_api_key",
            "MY_JWT",
        ),
    ],
)
def test_the_values_of_secrets_are_taken_by_no_option(name: str) -> None:
    """However it is written, and wherever it goes: what would be recorded is refused, unsaid."""
    dashed = name.lower().replace("_", "-")
    options = [
        lambda: parse_variable(f"{name}=hunter-2"),
        lambda: parse_variable(f"{name}=hunter-2; >=0.8"),
        lambda: parse_serve_argument(f"--seed 1 --{dashed} hunter-2"),
        lambda: parse_serve_argument(f"--{dashed}=hunter-2; >=0.30"),
        lambda: parse_serve_argument(f"--{name} 'hunter-2 '"),
        lambda: parse_serve_argument(f"--ssl.{dashed} hunter-2"),
        lambda: refuse_secrets("The command", ["check", f"--{dashed}", "hunter-2"]),
        lambda: refuse_secrets("The command", ["env", f"{name}=hunter-2", "check"]),
    ]
    for taken in options:
        with pytest.raises(UsageError) as refused:
            taken()
        assert "hunter" not in str(refused.value)
        assert name in str(refused.value) or dashed in str(refused.value)
    assert parse_variable(name).text == name


@pytest.mark.parametrize(
    "value",
    [
        *("--hf-token", "--hf-token --seed 1", "--tokenizer org/model", "--tokenizer-mode auto"),
        *("--max-num-batched-tokens 8192", "--long-prefill-token-threshold=4", "--spec-tokens 3"),
        *("--ignore-patterns '*.bin'", "--ssl-keyfile /etc/tls.pem", "--skip-tokenizer-init"),
        '--compilation-config \'{"pass_config": {"eliminate_noops": true}}\'',
        '--hf-overrides \'{"pad_token": "x", "image_token_index": 3}\'',
        "--override-generation-config '{\"max_new_tokens\": 3}'",
        "--served-model-name my-multitask-classification-model",
        "--download-dir /mnt/disk-nvme-models-shared-2024",
        "-O.pass_config.eliminate_noops=true",
        *("--max-prompt-adapter-token 7", "--max_prompt_adapter_token=7; <0.10"),
    ],
)
def test_what_only_sounds_like_a_secret_is_taken(value: str) -> None:
    """Arguments that vLLM has; ``--hf-token`` alone means the one in the environment."""
    assert str(parse_serve_argument(value)) == value


@pytest.mark.parametrize("name", ["--hf-token", "--api-key", "--ssl-keyfile-password"])
def test_secrets_among_the_servers_own_arguments_are_refused(name: str) -> None:
    """That vLLM has an argument of this name makes its value no less of a secret."""
    for value in (f"{name} 7", f"{name}=7", f"{name.replace('-', '_').replace('__', '--')} 7"):
        with pytest.raises(UsageError, match=r"no key|not recorded"):
            parse_serve_argument(value)


@pytest.mark.parametrize(
    "name",
    [
        *("TOKENIZERS_PARALLELISM", "VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE", "VLLM_USE_FASTOKENS"),
        *("VLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD", "VLLM_MAX_BAD_WORDS_TOTAL_TOKENS"),
        *("VLLM_ENABLE_PREGRAD_PASSES", "VLLM_PATTERN_MATCH_DEBUG", "PATH", "PWD", "OLDPWD"),
        *("PYTHONPATH", "VLLM_CUDA_COMPATIBILITY_PATH", "SSH_AUTH_SOCK", "AUTHOR", "KEYBOARD"),
    ],
)
def test_variables_that_only_sound_like_secrets_are_taken(name: str) -> None:
    """Variables that vLLM and shells have."""
    assert parse_variable(f"{name}=1").text == f"{name}=1"


@pytest.mark.parametrize(
    "words",
    [
        ("--config", '{"api_key": "hunter2"}'),
        ('--config={"a": [{"aws_secret_access_key": "hunter2"}]}',),
        ("sh", "-c", "./check --password hunter2"),
        ("bash", "-c", "DB_PASS=hunter2 ./check"),
        ("bash", "-c", "sh -c './check --password hunter2'"),
        ("/usr/bin/curl", "-u", "me:hunter2", "http://h/"),
        ("curl", "--user=me:hunter2", "http://h/"),
        ("curl", "-ume:hunter2", "http://h/"),
        ("sh", "-c", "curl -ume:hunter2 http://h/"),
        ("sshpass", "-p", "hunter2", "ssh", "h"),
        ("sshpass", "-phunter2", "ssh", "h"),
        ("psql", "host=h password=hunter2"),
        ("psql", "-c", "select 1", "--dbname=host=h user=me  password = hunter2"),
        ("env", "BEARER=hunter2", "check"),
        ("curl", "-H", "Authorization: Basic aHVudGVyMg==hunter2", "http://h/"),
        ("curl", "-H", "X-Api-Key: hunter2"),
        ("curl", "--header=x-auth-token: hunter2"),
        ("curl", "-HX-Api-Key:hunter2"),
        ("bash", "-c", "curl -H 'Cookie: hunter2' $U"),
        ("sh", "-ec", "set -x; ./check --password hunter2"),
        ("check", "http://h/?n=1&api_key=hunter2"),
        ("check", "--url=http://h/?token=hunter2#x"),
        ("check", "https://hunter2-hunter2-hunter2@h/simple"),
    ],
)
def test_secrets_within_a_value_are_refused(words: tuple[str, ...]) -> None:
    """In JSON, in the words for a shell, and as curl has them; unsaid."""
    with pytest.raises(UsageError) as refused:
        refuse_secrets("The command", words)
    assert "hunter2" not in str(refused.value)


def test_json_with_a_secret_is_no_serve_argument() -> None:
    """As loaders of models are told theirs."""
    value = '{"a": {"aws_secret_access_key": "hunter2"}}'
    with pytest.raises(UsageError, match="aws_secret_access_key: secrets are not recorded"):
        parse_serve_argument(f"--model-loader-extra-config '{value}'")


@pytest.mark.parametrize(
    "words",
    [
        ("sort", "--key", "2,2n"),
        ("sh", "-c", "ls | sort --key 2"),
        ("python", "-c", "print('it''s') # it's"),
        ("curl", "-u", "me", "http://h/"),
        ("curl", "-ume", "http://h/"),
        ("sh", "-c", 'curl -u "me:$PW" http://h/; sshpass -p "$PW" ssh h; sshpass -f /pw ssh h'),
        ("sh", "-c", 'psql "host=h password=$PW"'),
        ("ssh", "-p", "22", "h"),
        ("curl", "-H", "Content-Type: application/json", "http://me@h:1/?page=2&max_tokens=3"),
        ("sh", "-c", 'curl -H "Authorization: Bearer $HF_TOKEN" "http://h/?key=${KEY}"'),
        ("npm", "run", "auth:token"),
        ("check", '{"api_key": ""}', "{", "[" * 3000),
    ],
)
def test_words_of_a_command_that_hold_no_secret_are_taken(words: tuple[str, ...]) -> None:
    """Nothing is refused for being no shell's, or no JSON."""
    refuse_secrets("The command", words)
