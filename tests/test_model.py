"""What ``--model`` may name, and how each is served."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vbisect.errors import HostError, UsageError
from vbisect.launch import effective_arguments
from vbisect.releases import Device
from vbisect.run.model import default_model, resolve_model, see_to_model, takes_pictures

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz012345"


CONFIG = {"num_hidden_layers": 40, "vision_config": {}}


class Hub(BaseHTTPRequestHandler):
    """A model hub with one gated model."""

    def do_GET(self) -> None:
        known = self.path == "/org/model/resolve/main/config.json"
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.send_response(200 if known and allowed else 401 if known else 404)
        self.end_headers()
        if known and allowed:
            self.wfile.write(json.dumps(CONFIG).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """HF_ENDPOINT on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def overrides(arguments: list[str]) -> dict[str, object]:
    """The value of --hf-overrides."""
    return dict(json.loads(arguments[arguments.index("--hf-overrides") + 1]))


def test_without_a_gpu_the_default_model_needs_no_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path))
    model = resolve_model(default_model(Device.CPU), Device.CPU, skeleton=False)
    assert (Path(model.path) / "config.json").is_file()
    assert model.environment["HF_HUB_OFFLINE"] == "1"
    assert model.image is None


def test_the_vision_language_model_brings_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path))
    model = resolve_model("tiny:qwen2_5_vl", Device.CPU, skeleton=False)
    assert model.image is not None
    assert model.image.startswith("data:image/png;base64,")


def test_a_hub_model_is_served_by_its_name() -> None:
    model = resolve_model("org/model", Device.CUDA, skeleton=False)
    assert model.path == "org/model"
    assert effective_arguments(model.arguments, "0.32.0") == []


def test_a_skeleton_of_a_local_model_has_two_layers_in_every_version(tmp_path: Path) -> None:
    config = {"model_type": "qwen2_5_vl", "num_hidden_layers": 28}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = resolve_model(str(tmp_path), Device.CPU, skeleton=True)
    old = effective_arguments(model.arguments, "0.11.0")
    new = effective_arguments(model.arguments, "0.11.1")
    assert overrides(old) == {"num_hidden_layers": 2}
    assert overrides(new) == {"text_config": {"num_hidden_layers": 2}}
    assert old[old.index("--load-format") + 1] == "dummy"


@pytest.mark.usefixtures("hub")
def test_a_skeleton_of_a_gated_hub_model_is_read_with_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    model = resolve_model("org/model", Device.CPU, skeleton=True)
    assert overrides(effective_arguments(model.arguments, "0.32.0")) == {"num_hidden_layers": 2}


@pytest.mark.parametrize("kept", ["token", "model"])
def test_a_configuration_is_had_as_servers_have_it(
    hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """With the token of ``hf auth login``, and offline out of the cache: else a model that sees
    would be asked without a picture."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    model = resolve_model("org/model", Device.CUDA, skeleton=False)
    assert not takes_pictures(model)
    if kept == "token":
        (tmp_path / "token").write_text(f"{TOKEN}\n")
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        folder = tmp_path / "hub" / "models--org--model"
        snapshot = folder / "snapshots" / "c0ffee"
        for made in (snapshot, folder / "refs"):
            made.mkdir(parents=True)
        (folder / "refs" / "main").write_text("c0ffee")
        (snapshot / "config.json").write_text(json.dumps(CONFIG))
    assert takes_pictures(model)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["org/model", "org/other"])
def test_a_skeleton_without_access_is_one_clear_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UsageError, match=f"config.json of {name}"):
        resolve_model(name, Device.CPU, skeleton=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiny:gpt", "tiny:qwen2 and tiny:qwen2_5_vl"),
        ("./not-there", "config.json cannot be read"),
        ("a b", "neither a directory nor a Hugging Face id"),
    ],
)
def test_a_model_that_cannot_be_is_one_clear_line(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve_model(name, Device.CPU, skeleton=False)


def test_a_tiny_model_has_no_skeleton() -> None:
    with pytest.raises(UsageError, match="small already"):
        resolve_model("tiny:qwen2", Device.CPU, skeleton=True)


def test_a_directory_whose_configuration_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        resolve_model(str(tmp_path), Device.CPU, skeleton=False)


def test_a_tiny_model_is_made_again_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it or a part; and nowhere else, whatever the settings of a run say."""
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path / "cache"))
    model = resolve_model("tiny:qwen2", Device.CPU, skeleton=False)
    place = Path(model.path)
    files = {path.name: path.read_bytes() for path in place.iterdir()}
    for gone in ([*files], ["config.json"]):
        for name in gone:
            (place / name).unlink()
        see_to_model(model.name, model.path)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == files
    shutil.rmtree(place.parent)
    see_to_model(model.name, model.path)
    assert place.is_dir()
    for name in ("tiny:qwen2", "tiny:none", "/models/mine"):
        with pytest.raises(HostError, match="is gone: put it back, then resume the run"):
            see_to_model(name, str(tmp_path / "elsewhere"))
    assert not (tmp_path / "elsewhere").exists()
    see_to_model("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct")
