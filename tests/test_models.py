"""Truths about the tiny models, the skeleton arguments and the files that help CPU wheels."""

import base64
import importlib
import importlib.metadata
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2
import pytest
import tokenizers

from vbisect.builds.shim import install_torchvision_shim, install_vllm_metadata
from vbisect.models import (
    TINY_MODELS,
    UnknownTinyModel,
    skeleton_arguments,
    tiny_image_data_url,
    tiny_model_digest,
    write_tiny_model,
)
from vbisect.models.skeleton import skeleton_overrides
from vbisect.models.tokenizer import byte_symbols, tokenizer_json, train_merges

every_model = pytest.mark.parametrize("name", TINY_MODELS)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def read_json(path: Path) -> dict[str, object]:
    value = json.loads(path.read_text())
    assert isinstance(value, dict)
    return value


# Tiny models


@every_model
def test_a_tiny_model_is_the_same_bytes_every_time(name: str, tmp_path: Path) -> None:
    first = write_tiny_model(name, tmp_path / "first")
    # Another interpreter with another hash seed: no set or hash order may leak into the files.
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from vbisect.models import write_tiny_model; "
            "write_tiny_model(sys.argv[1], Path(sys.argv[2]))",
            name,
            str(tmp_path / "second"),
        ],
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
    )
    assert contents(first) == contents(tmp_path / "second")


def test_the_digest_tells_the_models_apart() -> None:
    assert len({tiny_model_digest(name) for name in TINY_MODELS}) == len(TINY_MODELS)
    assert all(tiny_model_digest(name).startswith("sha256:") for name in TINY_MODELS)


@every_model
def test_every_json_file_of_a_tiny_model_is_valid(name: str, tmp_path: Path) -> None:
    directory = write_tiny_model(name, tmp_path / "model")
    files = list(directory.glob("*.json"))
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= {f.name for f in files}
    for file in files:
        assert read_json(file)


@every_model
def test_a_tiny_model_says_everything_in_the_words_of_old_and_new_readers(
    name: str, tmp_path: Path
) -> None:
    directory = write_tiny_model(name, tmp_path / "model")
    config = read_json(directory / "config.json")
    assert config["dtype"] == config["torch_dtype"] == "float32"
    rope = config["rope_parameters"]
    assert isinstance(rope, dict)
    assert rope["rope_theta"] == config["rope_theta"]
    tokenizer = read_json(directory / "tokenizer_config.json")
    assert tokenizer["chat_template"] == (directory / "chat_template.jinja").read_text()
    assert tokenizer["tokenizer_class"] in {"PreTrainedTokenizerFast", "Qwen2Tokenizer"}


@every_model
def test_no_sampling_default_of_a_tiny_model_can_change_what_is_probed(
    name: str, tmp_path: Path
) -> None:
    directory = write_tiny_model(name, tmp_path / "model")
    assert read_json(directory / "generation_config.json").keys() <= {
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    }


@every_model
def test_tokens_and_config_agree(name: str, tmp_path: Path) -> None:
    directory = write_tiny_model(name, tmp_path / "model")
    config = read_json(directory / "config.json")
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    ids = {**tokenizer["model"]["vocab"]}
    ids.update({token["content"]: token["id"] for token in tokenizer["added_tokens"]})
    assert sorted(ids.values()) == list(range(300))
    assert config["vocab_size"] == 300
    assert config["eos_token_id"] == ids["<|im_end|>"]
    if "image_token_id" in config:
        assert config["image_token_id"] == ids["<|image_pad|>"]
        assert config["vision_start_token_id"] == ids["<|vision_start|>"]
        assert config["vision_end_token_id"] == ids["<|vision_end|>"]
        assert config["video_token_id"] == ids["<|video_pad|>"]


def test_an_image_in_a_message_becomes_one_image_token(tmp_path: Path) -> None:
    directory = write_tiny_model("tiny:qwen2_5_vl", tmp_path / "model")
    template = jinja2.Template((directory / "chat_template.jinja").read_text())
    for image in ({"type": "image"}, {"type": "image_url", "image_url": {"url": "data:"}}):
        message = {"role": "user", "content": [image, {"type": "text", "text": "what?"}]}
        assert template.render(messages=[message], add_generation_prompt=True) == (
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what?<|im_end|>\n"
            "<|im_start|>assistant\n"
        )


def test_both_chat_templates_agree_on_plain_text(tmp_path: Path) -> None:
    texts = set()
    for name in TINY_MODELS:
        directory = write_tiny_model(name, tmp_path / name.replace(":", "-"))
        template = jinja2.Template((directory / "chat_template.jinja").read_text())
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
        texts.add(template.render(messages=messages, add_generation_prompt=False))
    assert texts == {"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"}


# Writing


def test_an_unknown_tiny_model_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnknownTinyModel, match=r"tiny:gpt.*tiny:qwen2"):
        write_tiny_model("tiny:gpt", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_complete_directory_is_reused(tmp_path: Path) -> None:
    directory = write_tiny_model("tiny:qwen2", tmp_path / "a" / "model")
    before = directory.stat().st_ino, (directory / "config.json").stat().st_mtime_ns
    assert write_tiny_model("tiny:qwen2", directory) == directory
    assert (directory.stat().st_ino, (directory / "config.json").stat().st_mtime_ns) == before


def test_something_else_at_the_place_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="does not hold tiny:qwen2"):
        write_tiny_model("tiny:qwen2", tmp_path / "model")
    assert contents(tmp_path / "model") == {"thesis.txt": b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_tiny_model("tiny:qwen2", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_many_writers_at_once_leave_one_complete_model(tmp_path: Path) -> None:
    def write(_: int) -> Path:
        return write_tiny_model("tiny:qwen2_5_vl", tmp_path / "model")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(16))) == {tmp_path / "model"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_another_user_may_read_the_model(tmp_path: Path) -> None:
    directory = write_tiny_model("tiny:qwen2", tmp_path / "model")
    assert directory.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o644}


# The tokenizer


def test_every_byte_has_its_own_printable_symbol() -> None:
    symbols = byte_symbols()
    assert len(set(symbols)) == 256
    assert symbols[ord("A")] == "A"
    assert symbols[ord(" ")] == "Ġ"
    assert symbols[ord("\n")] == "Ċ"


def test_the_most_frequent_pair_is_merged_first_and_ties_go_by_alphabet() -> None:
    assert train_merges(3, "aab aab xy") == [("a", "a"), ("aa", "b"), ("Ġ", "aab")]


def test_a_text_too_short_for_the_merges_is_an_error() -> None:
    with pytest.raises(ValueError, match="gives 1 merges, not 2"):
        train_merges(2, "a")
    with pytest.raises(ValueError, match="cannot hold"):
        tokenizer_json(["<|end|>"], 256)


def test_any_text_survives_the_tokenizer(tmp_path: Path) -> None:
    directory = write_tiny_model("tiny:qwen2", tmp_path / "model")
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    for text in ("the other answer", "Grüße, 世界 🙂\n\ttab", "<|im_start|>user\nhi<|im_end|>"):
        encoded = tokenizer.encode(text)
        assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text
    assert tokenizer.encode("<|im_end|>").ids == [294]
    assert len(tokenizer.encode(" the").ids) == 1


# The image


def test_the_image_is_a_valid_png_of_56_by_56_pixels() -> None:
    kind, _, data = tiny_image_data_url().partition(",")
    assert kind == "data:image/png;base64"
    png = base64.b64decode(data, validate=True)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        name, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", png[at + 8 + length : at + 12 + length])
        assert checksum == zlib.crc32(name + body)
        chunks.append((name, body))
        at += 12 + length
    assert [name for name, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[0][1]) == (56, 56, 8, 2, 0, 0, 0)
    rows = zlib.decompress(chunks[1][1])
    assert len(rows) == 56 * (1 + 3 * 56)
    assert set(rows[:: 1 + 3 * 56]) == {0}  # no row is filtered


# Skeletons


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        pytest.param(None, {"num_hidden_layers": 2}, id="config not at hand"),
        pytest.param({"model_type": "qwen2"}, {"num_hidden_layers": 2}, id="text model"),
        pytest.param(
            {"model_type": "gemma3_text", "layer_types": ["a", "b", "c"]},
            {"num_hidden_layers": 2, "layer_types": ["a", "b"]},
            id="layer types cut too",
        ),
        pytest.param(
            {"model_type": "qwen2_5_vl", "vision_config": {}, "num_hidden_layers": 28},
            {"text_config": {"num_hidden_layers": 2}},
            id="flat config that transformers splits",
        ),
        pytest.param(
            {"model_type": "llava", "text_config": {"layer_types": ["a"] * 9}},
            {"text_config": {"num_hidden_layers": 2, "layer_types": ["a", "a"]}},
            id="nested language model",
        ),
        pytest.param(
            {"thinker_config": {"text_config": {}}},
            {"thinker_config": {"text_config": {"num_hidden_layers": 2}}},
            id="nested twice",
        ),
    ],
)
def test_the_layers_are_cut_where_the_config_has_them(
    config: dict[str, object] | None, overrides: dict[str, object]
) -> None:
    assert skeleton_overrides(config) == overrides


def test_without_nested_overrides_only_the_top_level_is_touched() -> None:
    assert skeleton_overrides({"text_config": {}}, nested_overrides=False) == {
        "num_hidden_layers": 2
    }


def test_skeleton_arguments_are_what_serve_takes() -> None:
    assert skeleton_arguments(None) == [
        "--load-format",
        "dummy",
        "--hf-overrides",
        '{"num_hidden_layers": 2}',
    ]


# Help for CPU wheels


def vllm_version(site_packages: Path) -> str:
    (found,) = [
        distribution
        for distribution in importlib.metadata.distributions(path=[str(site_packages)])
        if distribution.name == "vllm"
    ]
    return found.version


def test_the_metadata_make_vllm_a_cpu_version(tmp_path: Path) -> None:
    install_vllm_metadata(tmp_path, "0.32.0")
    assert vllm_version(tmp_path) == "0.32.0+cpu"
    (directory,) = tmp_path.iterdir()
    recorded = {line.split(",")[0] for line in (directory / "RECORD").read_text().splitlines()}
    assert recorded == {f"{directory.name}/{path.name}" for path in directory.iterdir()}
    install_vllm_metadata(tmp_path, "0.32.0")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_distribution_named_vllm_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "vllm-0.9.0.dist-info").mkdir()
    (tmp_path / "vllm-0.9.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: vllm\nVersion: 0.9.0\n"
    )
    install_vllm_metadata(tmp_path, "0.32.0")
    assert vllm_version(tmp_path) == "0.9.0"


STAND_IN_TORCH = """
from types import SimpleNamespace
class Library:
    def __init__(self, namespace, kind): assert namespace == "torchvision"
    def define(self, schema): setattr(ops.torchvision, schema.partition("(")[0], schema)
ops = SimpleNamespace(torchvision=SimpleNamespace())
library = SimpleNamespace(Library=Library)
"""


@pytest.fixture
def python(tmp_path: Path) -> Callable[[str], str]:
    """Runs a line of Python in an environment with the shim, a stand-in torch and torchvision."""
    (tmp_path / "torch.py").write_text(STAND_IN_TORCH)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "from . import extension\nimport torch\nnms = torch.ops.torchvision.nms\n"
        "qnms = torch.ops.torchvision.qnms\n"
    )
    (tmp_path / "torchvision" / "extension.py").write_text("loaded = True\n")
    install_torchvision_shim(tmp_path)

    def run(line: str) -> str:
        setup = f"import site; site.addsitedir({str(tmp_path)!r})\n"
        command = [sys.executable, "-S", "-c", setup + line]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return run


def test_the_operators_are_declared_when_torchvision_is_imported(
    python: Callable[[str], str],
) -> None:
    assert python("import torchvision; print(torchvision.nms)").startswith("nms(Tensor dets")
    assert python("import torchvision; print(torchvision.qnms)").startswith("qnms(Tensor dets")


def test_operators_of_a_real_build_are_kept(python: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "torchvision" / "extension.py").write_text(
        "import torch\ntorch.ops.torchvision.nms = torch.ops.torchvision.qnms = 'real'\n"
    )
    assert python("import torchvision; print(torchvision.nms, torchvision.qnms)") == "real real"


def test_a_process_without_torchvision_does_not_load_torch(
    python: Callable[[str], str],
) -> None:
    assert (
        python(
            "import sys, json, importlib.util; importlib.util.find_spec('torchvision'); "
            "print('torch' in sys.modules)"
        )
        == "False"
    )
