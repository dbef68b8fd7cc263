"""Hostile text made safe: nothing that steers a terminal and no secret gets through."""

from __future__ import annotations

import json
import string
import time
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vbisect.text import is_secret_name, one_line, plain, redact, without_secrets

BODY = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
TOKENS = {
    "hugging face": f"hf_{BODY}",
    "github classic": f"ghp_{BODY}",
    "github app": f"ghs_{BODY}",
    "github fine-grained": f"github_pat_11ABC_{BODY}",
    "openai": f"sk-proj-{BODY}",
    "gitlab": f"glpat-{BODY}",
    "nvidia": f"nvapi-{BODY}",
    "amazon": "AKIAIOSFODNN7EXAMPLE",
}
OTHERS = (
    *("TIKTOKEN_RS_CACHE_DIR", "TIKTOKEN_ENCODINGS_BASE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"),
    *("COMPASS", "MULTIPASS", "TWO_PASS", "SORT_KEY", "--hf-overrides.image_token_index"),
    *("eos_token_id", "--stop-token-ids", "--max-new-token", "--token-count", "--eos-token"),
)
LESS_USUAL = (
    *("GH_PAT_2", "DB_PASS_1", "AUTH_HEADER", "CREDS", "DB_PW", "PASSCODE", "BACKEND_TOKEN"),
    *("BEARER", "API_BEARER", "LAUNCHPAD_TOKEN", "CRYPTO_PASS", "AWS_CREDS"),
)
BIDI = [chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F))]
BIDI += [chr(code) for code in range(0x2066, 0x206A)]
CONTROLS = "".join(map(chr, [*range(32), *range(127, 160)])) + "".join(BIDI) + "\u2028\u2029"
ESCAPES = ["\x1b[31m", "\x1b]0;title\x07", "\x1b]8;;http://evil\x1b\\", "\x1bc", "\x1b[", "\x9b2J"]
Pieces = st.one_of(
    st.text(max_size=20),
    st.sampled_from([*CONTROLS, *ESCAPES, "\ud800", "\udfff", "bearer ", *TOKENS.values()]),
)
Hostile = st.lists(Pieces, max_size=12).map("".join)


def steers(character: str) -> bool:
    """Whether a character could steer a terminal, reorder a line, or not be written at all."""
    return unicodedata.category(character) in ("Cc", "Cs") or character in BIDI


@given(Hostile)
@example("\x1b[2J\u202etxt.exe\u061c\ud800")
def test_plain_text_steers_nothing(text: str) -> None:
    """No control but tab and newline, no bidirectional control, always writable as UTF-8."""
    shown = plain(text)
    assert not [c for c in shown if steers(c) and c not in "\t\n"]
    assert len(shown) <= 2000
    shown.encode("utf-8")


@given(Hostile, st.integers(1, 400))
def test_one_line_is_one_short_line(text: str, limit: int) -> None:
    """A single printable line of at most the asked length, whatever went in."""
    shown = one_line(text, limit)
    assert len(shown.splitlines()) <= 1
    assert not [c for c in shown if steers(c)]
    assert len(shown) <= limit
    shown.encode("utf-8")


@given(st.text(string.printable.replace("\x0b", "").replace("\x0c", "").replace("\r", "")))
def test_harmless_text_stays_as_it_is(text: str) -> None:
    """Printable text is not altered, unless it looks like a secret."""
    if redact(text) == text:
        assert plain(text, len(text) + 1) == text


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
@given(before=Hostile, after=Hostile)
@example(before="", after="")
@example(before="https://huggingface.co?token=", after="&x=1")
@example(before="", after=f":Usk-proj-{BODY}")  # none of them, and not this token either
def test_tokens_never_survive(token: str, before: str, after: str) -> None:
    """A token in any surroundings is gone from all that is kept or shown."""
    before, after = (text.replace(BODY, BODY[::-1]) for text in (before, after))
    if token.startswith("sk-") and before[-1:] in set("aeiouAEIOU"):
        before += "\x1b[0m"  # the end of task- and disk- begins no token
    if token.startswith("AKIA"):  # within base64 it is none
        before, after = before + " ", " " + after
    for shown in (redact(before + token + after), plain(before + token + after)):
        assert token not in shown
        assert BODY not in shown
    assert BODY[:20] not in one_line(before + token + after)


@pytest.mark.parametrize("hidden", ["\x00", "\x1b[0m", "\x1b]0;\x07", "\u202e", "\u061c", "\ud800"])
@given(token=st.sampled_from(list(TOKENS.values())), place=st.integers(1, 30))
def test_controls_inside_a_token_do_not_save_it(hidden: str, token: str, place: int) -> None:
    """Taking controls out must not put a token together again."""
    broken = token[:place] + hidden + token[place:]
    assert token not in plain(broken)
    assert token not in one_line(broken)


def test_identifiers_are_no_tokens() -> None:
    """Names from vLLM's own source stay readable."""
    for name in ("get_hf_processor_mm_kwargs", "hf_tokenizer_registry.py", "hf_overrides"):
        assert redact(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("my-multitask-classification-model", "/mnt/disk-nvme-models-shared-2024/x"),
        *("mask-generation-for-everybody", "/models/hf_Qwen25VL72BInstructAWQ"),
    ],
)
def test_names_with_the_letters_of_a_token_are_none(name: str) -> None:
    """Words that end in "sk", and folders of models."""
    assert redact(name) == name
    assert redact(f"at {name}, sk-{BODY}") == f"at {name}, <secret>"


@pytest.mark.parametrize("before", ["", "\\n", "\x1b[31m", "key=", "a\x00", "_", "0"])
def test_a_token_after_a_colour_or_a_line_end_is_one(before: str) -> None:
    """Whatever a log or JSON puts before it."""
    assert BODY not in redact(f"{before}sk-{BODY}")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_authorization_headers_are_redacted(scheme: str) -> None:
    """The value after the scheme is gone; the words around it stay."""
    shown = redact(f"-H 'Authorization: {scheme} abc.DEF-123_456~x+/=' -X POST")
    assert "abc.DEF" not in shown
    assert shown.startswith("-H 'Authorization: ")
    assert shown.endswith("' -X POST")


def test_the_value_of_a_bearer_is_redacted() -> None:
    """As a variable has it."""
    assert redact(f"+ BEARER={BODY} ./check") == "+ <secret> ./check"
    assert redact("bearer=no bearers=8000 AKIA AKIRA NVAPI-1") == (
        "bearer=no bearers=8000 AKIA AKIRA NVAPI-1"
    )


def test_passwords_in_addresses_are_redacted() -> None:
    """The user and password of an address go, the host stays."""
    assert (
        redact("at https://me:s3cret@pypi.local/simple") == "at https://<secret>@pypi.local/simple"
    )
    assert redact("postgres://:pass-word@h/d") == "postgres://<secret>@h/d"
    assert redact("https://me:p@ss@h/d") == "https://<secret>@h/d"
    assert redact("https://0123456789abcdef@h/d git@h") == "https://<secret>@h/d git@h"
    assert redact("ssh://git@h/d") == "ssh://git@h/d"
    assert redact("at https://pypi.local:8080/a@b") == "at https://pypi.local:8080/a@b"


def test_values_of_secret_variables_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment calls a secret is one, in whatever shape it comes."""
    monkeypatch.setenv("REGISTRY_PASSWORD", "correct horse")
    monkeypatch.setenv("REGISTRY_USER", "battery staple")
    shown = plain("login with correct horse as battery staple")
    assert shown == "login with <REGISTRY_PASSWORD> as battery staple"
    assert "horse" not in plain("login with correct\x00 horse")


@pytest.mark.parametrize(
    "secret",
    [
        "correct horse",
        'pa"ss\\wo/rd \u00e9',
        "first line of it\n  second line of it\n",
        "a  b\tc  d",
    ],
)
def test_secrets_are_known_in_the_shapes_that_they_come_in(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one line, in JSON, in an address; and where another secret is its beginning."""
    monkeypatch.setenv("A_TOKEN", secret)
    monkeypatch.setenv("B_TOKEN", f"{secret}-battery")
    monkeypatch.setenv("C_TOKEN", f"{secret}-battery-staple")
    told = f"{secret}-battery-staple"
    assert without_secrets(told) == "<C_TOKEN>"
    assert one_line(f"a  {told}\nb") == "a <C_TOKEN> b"
    for written in (json.dumps([told]), json.dumps([told], ensure_ascii=False)):
        assert without_secrets(written) == '["<C_TOKEN>"]'
    assert without_secrets(quote(told, safe="")) == "<C_TOKEN>"


def test_the_lines_of_a_secret_are_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a log has them that begins each line with the time."""
    monkeypatch.setenv("SSH_PRIVATE_KEY", "-----BEGIN-----\nMIIEvQIBADANBgkqhkiG9w0\nshort\n")
    assert without_secrets("12:00 MIIEvQIBADANBgkqhkiG9w0") == "12:00 <SSH_PRIVATE_KEY>"
    assert without_secrets("short") == "short"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True),
        ("HUGGING_FACE_HUB_TOKEN", True),
        ("NGROK_AUTHTOKEN", True),
        ("GITHUB_TOKENS", True),
        ("VLLM_API_KEY", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE", False),
        ("VLLM_USE_V1", False),
        ("KEYBOARD", False),
        *((name, False) for name in OTHERS),
        *((name, True) for name in LESS_USUAL),
    ],
)
def test_names_of_secrets_are_told_from_others(name: str, secret: bool) -> None:
    """Variables about tokens of text are settings, not secrets."""
    assert is_secret_name(name) is secret


@pytest.mark.parametrize(
    "unit", ["a", "://a:b", "hf_", "sk-", "bearer ", "\x1b]", "\x1b[0", "\x00"]
)
def test_hostile_text_takes_linear_time(unit: str) -> None:
    """Much of the beginnings of something costs little."""
    began = time.process_time()
    one_line(unit * (300_000 // len(unit)))
    assert time.process_time() - began < 5
