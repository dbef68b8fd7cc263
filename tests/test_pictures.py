"""Which picture a request holds: the one asked for, a tiny one for models that see, else none."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driving import Vbisect, world
from made import releases
from standin.behaviour import Behaviour
from standin.index import PackageIndex
from vbisect.errors import UsageError
from vbisect.models.image import tiny_image_data_url, tiny_image_png
from vbisect.releases import KnownReleases
from vbisect.run import prepare as preparing
from vbisect.run.options import DockerOptions, RunOptions
from vbisect.run.pictures import LARGEST, picture_data_url, pictures_among
from vbisect.run.settings import RunSettings

KINDS = {
    "png": tiny_image_png(28),
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "gif": b"GIF89a\x01\x00\x01\x00",
    "webp": b"RIFF\x04\x00\x00\x00WEBPVP8 ",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_content_says_what_kind_it_is(tmp_path: Path, kind: str) -> None:
    """Whatever the file is called."""
    path = tmp_path / "picture.bmp"
    path.write_bytes(KINDS[kind])
    head, _, body = picture_data_url(str(path)).partition(",")
    assert head == f"data:image/{kind};base64"
    assert base64.b64decode(body) == KINDS[kind]


def test_pictures_are_told_from_images_of_containers(tmp_path: Path) -> None:
    """By the = of VERSION=IMAGE, unless a file is called so."""
    odd = tmp_path / "a=b.png"
    odd.write_bytes(KINDS["png"])
    assert pictures_among(("0.8.5=my/vllm:x", "sea.png")) == ("sea.png", ("0.8.5=my/vllm:x",))
    assert pictures_among((str(odd), "0.8.5=x")) == (str(odd), ("0.8.5=x",))
    assert pictures_among(()) == (None, ())
    with pytest.raises(UsageError, match=r"--image b\.png: a request holds one picture, a\.png"):
        pictures_among(("a.png", "b.png"))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings are prepared from fixed releases, and models are files."""
    known = KnownReleases(releases(), "package index")
    monkeypatch.setattr(preparing, "known_releases", lambda **_: known)
    monkeypatch.setenv("VBISECT_CACHE_DIR", str(tmp_path / "cache"))


def prepared(*images: str | Path, **changed: Any) -> RunSettings:
    """The settings of a run with ``--image`` for each of ``images``."""
    options = RunOptions("0.27.1", "0.32.0", runtime="venv", device="cpu")
    docker = DockerOptions(image=tuple(map(str, images)) or None)
    return preparing.prepare(replace(options, docker=docker, **changed), Path("nonesuch"))


def image_of(settings: RunSettings) -> str | None:
    """The picture in its requests."""
    assert settings.n_choices is not None
    return settings.n_choices.image


def model(directory: Path, config: dict[str, object]) -> str:
    """A local model with this configuration."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


def test_models_that_see_get_a_picture(tmp_path: Path) -> None:
    """In chats alone, and a tiny one where none was asked for."""
    seeing = model(tmp_path / "seeing", {"vision_config": {"depth": 2}})
    blind = model(tmp_path / "blind", {"hidden_size": 64})
    assert image_of(prepared()) is None
    assert image_of(prepared(model="tiny:qwen2_5_vl")) == tiny_image_data_url()
    assert image_of(prepared(model=seeing)) == tiny_image_data_url()
    assert image_of(prepared(model=seeing, endpoint="completions")) is None
    assert image_of(prepared(model=blind)) is None
    own = tmp_path / "own.png"
    own.write_bytes(KINDS["jpeg"])
    for name in (seeing, blind, "tiny:qwen2_5_vl"):  # of another model it is the user who knows
        assert image_of(prepared(own, model=name)) == picture_data_url(str(own))


def test_a_run_with_a_picture_can_be_repeated(tmp_path: Path) -> None:
    """The settings hold the picture itself, the line that repeats the run its file."""
    own = tmp_path / "a picture.png"
    own.write_bytes(KINDS["png"])
    made = prepared(own, model="tiny:qwen2_5_vl")
    made.write(tmp_path)
    assert RunSettings.read(tmp_path) == made
    words = shlex.split(made.replay_command())
    assert words[words.index("--image") + 1] == str(own)
    own.unlink()
    assert image_of(RunSettings.read(tmp_path)) == image_of(made)


def test_nobodys_home_is_a_name_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the picture is looked for, there it is recorded to be."""
    monkeypatch.chdir(tmp_path)
    picture = tmp_path / "~nosuchuser" / "sea.png"
    picture.parent.mkdir()
    picture.write_bytes(KINDS["png"])
    made = prepared("~nosuchuser/sea.png", model="tiny:qwen2_5_vl")
    assert made.picture == str(picture)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Files of all sorts."""
    (tmp_path / "sea.png").write_bytes(KINDS["png"])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    with (tmp_path / "large.png").open("wb") as large:
        large.write(KINDS["png"])
        large.truncate(LARGEST + 1)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        (
            "nowhere.png",
            {},
            "there is no such picture; the image of a container is written VERSION",
        ),
        ("text.png", {}, "it is no PNG, JPEG, WebP or GIF"),
        ("empty.png", {}, "it is no PNG"),
        ("large.png", {}, "at most 4 MB"),
        (".", {}, "cannot be read"),
        ("sea.png", {"endpoint": "generate"}, "only --endpoint chat takes a picture"),
        ("sea.png", {"command": ("/bin/true",)}, "a command sends its own requests"),
        ("sea.png", {"model": None}, "tiny:qwen2 takes no pictures"),
    ],
)
def test_pictures_that_cannot_be_sent(
    pictures: Path, name: str, changed: dict[str, Any], words: str
) -> None:
    """Each is refused in one sentence that names the option, before anything starts."""
    with pytest.raises(UsageError, match=r"^--image .*" + words):
        prepared(pictures / name, **{"model": "tiny:qwen2_5_vl", **changed})


def test_an_image_of_a_container_stays_one() -> None:
    with pytest.raises(UsageError, match="--image is for --runtime docker"):
        prepared("0.8.5=my/vllm:patched")


def test_the_picture_is_sent(
    command: Callable[..., Vbisect], tmp_path_factory: pytest.TempPathFactory, pictures: Path
) -> None:
    made = {"70.0": Behaviour(), "70.1": Behaviour()}
    asked = ("--model", "tiny:qwen2_5_vl", "--image", pictures / "sea.png", "--confidence", "0.6")
    with PackageIndex(world(tmp_path_factory.mktemp("pictures"), made)) as index:
        done = command(index).run("--from", "70.0", "--to", "70.1", *asked)
    assert done.returncode == 1, done.stderr
    for version in made:
        request = (done.run_dir / "trials" / version / "request.json").read_text()
        assert picture_data_url(str(pictures / "sea.png")) in request
    assert f"--image {pictures / 'sea.png'}" in done.json["replay"]
