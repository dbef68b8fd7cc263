"""What ``--model`` names: a tiny model made here, a local directory, or a Hugging Face id."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from vbisect.errors import HostError, UsageError
from vbisect.launch import Limited
from vbisect.paths import cache_root, expanded, with_tilde
from vbisect.releases import Device
from vbisect.releases.fitness import NO_DYNAMO
from vbisect.run.hub import hub_config

_HUB_ID = re.compile(r"([\w.-]{1,96}/)?[\w.-]{1,96}")


@dataclass(frozen=True)
class ResolvedModel:
    """``path`` (``~`` allowed) is what the server is given; ``image`` a data URL for chats."""

    name: str
    path: str
    arguments: tuple[Limited, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    image: str | None = None


def dynamo_notes(
    models: Iterable[ResolvedModel | None], variables: Iterable[Limited]
) -> tuple[str, ...]:
    """What to say of models that are served with Dynamo off, as far as ``variables`` leave it."""
    if any(variable.text.partition("=")[0] == NO_DYNAMO for variable in variables):
        return ()
    return tuple(
        f"{model.name} is served with {NO_DYNAMO}=1: nothing is compiled, and no compiler is "
        f"needed. --env {NO_DYNAMO}=0 compiles."
        for model in models
        if model and NO_DYNAMO in model.environment
    )


def default_model(device: Device) -> str:
    """A model every version can serve: made here on a CPU, small and public on a GPU."""
    return "tiny:qwen2" if device is Device.CPU else "Qwen/Qwen2.5-0.5B-Instruct"


def resolve_model(name: str, device: Device, skeleton: bool) -> ResolvedModel:
    """Find or make the model and say how it has to be served.

    Raises ``UsageError`` for no name, a path that cannot be read, a tiny model that does not exist,
    or a skeleton whose configuration cannot be had.
    """
    if not name:  # as of a shell variable that is not set: another model is not what was meant
        raise UsageError("--model is empty.")
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1"} if device is Device.CPU else {}
    arguments = ["--gpu-memory-utilization", "0.4"] if device is Device.CPU else []
    if name.startswith("tiny:"):
        if skeleton:
            raise UsageError(f"--skeleton cuts a real model down; {name} is small already.")
        return _tiny(name, device, arguments, environment)
    config = None
    limited: list[Limited] = []
    path = expanded(name, "--model")
    local = _is_folder(path) or name.startswith(("/", "./", "../", "~"))
    if local:
        config = _read_config(path)
        arguments += ["--served-model-name", path.resolve().name]
    elif not _HUB_ID.fullmatch(name):
        raise UsageError(f"--model {name} is neither a directory nor a Hugging Face id.")
    if skeleton:
        limited += _skeleton(config or hub_config(name))
    return ResolvedModel(
        name=with_tilde(path.resolve()) if local else name,
        path=with_tilde(path.resolve()) if local else name,
        arguments=(_always(arguments), *limited),
        environment=environment,
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # as of a name that is too long
        return False


def resolve_control(
    name: str, model: ResolvedModel, device: Device, skeleton: bool
) -> ResolvedModel:
    """As ``resolve_model``, for the control of ``model``; a tiny one is never cut down.

    Raises ``UsageError`` also when both are the same.
    """
    try:
        control = resolve_model(name, device, skeleton and not name.startswith("tiny:"))
    except UsageError as error:
        raise UsageError(str(error).replace("--model", "--control-model", 1)) from None
    if control.path == model.path:
        raise UsageError(
            f"--control-model {name}: that is the model itself; a control is another one, as like "
            "it as can be but for what may be the cause."
        )
    return control


def see_to_model(name: str, place: str) -> None:
    """See that a model which is files of this machine is there; a tiny one is made again.

    ``place`` is its path as settings have it. Raises ``HostError`` where it is gone.
    """
    path = expanded(place)
    if not place.startswith(("/", "~")):
        return
    if name.startswith("tiny:") and path == _tiny_directory(name):
        _write_tiny(name)
    elif not path.is_dir():
        raise HostError(f"The model {place} is gone: put it back, then resume the run.")


def takes_pictures(model: ResolvedModel) -> bool | None:
    """Whether a picture can be sent to it; ``None`` where its configuration cannot be had."""
    if model.image is not None:
        return True
    if model.name.startswith("tiny:"):
        return False
    try:
        path = Path(model.path).expanduser()
        config = _read_config(path) if path.is_dir() else hub_config(model.name, timeout=10)
    except (UsageError, HostError):
        return None
    return "vision_config" in config


def _tiny(
    name: str, device: Device, arguments: list[str], environment: dict[str, str]
) -> ResolvedModel:
    """Served eagerly, and on a CPU with Dynamo off: no compiler is needed, and none waited for.

    A skeleton stands for a real model, which is compiled: it is served as that is.
    """
    from vbisect.models import TINY_MODELS

    if name not in TINY_MODELS:
        raise UsageError(f"--model {name}: the tiny models are {' and '.join(TINY_MODELS)}.")
    path = _write_tiny(name)
    if device is Device.CPU:
        environment |= {NO_DYNAMO: "1"}
    arguments += ["--load-format", "dummy", "--dtype", "float32", "--max-model-len", "512"]
    arguments += ["--enforce-eager", "--served-model-name", name.replace(":", "-")]
    image = None
    if name == "tiny:qwen2_5_vl":
        from vbisect.models.image import tiny_image_data_url

        image = tiny_image_data_url()
    return ResolvedModel(
        name=name,
        path=with_tilde(path),
        arguments=(_always(arguments),),
        environment={**environment, "HF_HUB_OFFLINE": "1"},
        image=image,
    )


def _tiny_directory(name: str) -> Path | None:
    """Where the tiny model of this name is, made or not; ``None`` where there is no such model."""
    from vbisect.models import TINY_MODELS, tiny_model_digest

    if name not in TINY_MODELS:
        return None
    digest = tiny_model_digest(name).removeprefix("sha256:")[:12]
    return cache_root() / "models" / f"{name.replace(':', '-')}-{digest}"


def _write_tiny(name: str) -> Path:
    """The directory of a tiny model, which holds it then."""
    from vbisect.models import write_tiny_model

    directory = _tiny_directory(name)
    assert directory is not None
    try:
        return write_tiny_model(name, directory)
    except OSError as error:
        why = error.strerror or error
        raise HostError(f"Cannot write the tiny model {directory}: {why}.") from error


def _always(arguments: list[str]) -> Limited:
    return Limited(text=shlex.join(arguments))


def _skeleton(config: dict[str, object]) -> list[Limited]:
    """Nested overrides are merged from 0.11.1 on (vllm-project/vllm#25727), replaced before."""
    from vbisect.models import skeleton_arguments

    return [
        Limited(
            text=shlex.join(skeleton_arguments(config, nested_overrides=nested)),
            specifier=specifier,
        )
        for nested, specifier in ((True, ">=0.11.1"), (False, "<0.11.1"))
    ]


def _read_config(path: Path) -> dict[str, object]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--model {path}: config.json cannot be read: {error.strerror}.") from None
    except ValueError:
        raise UsageError(f"--model {path}: config.json is not JSON.") from None
    if not isinstance(config, dict):
        raise UsageError(f"--model {path}: config.json is not a model's configuration.")
    return config
