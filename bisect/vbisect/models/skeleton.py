"""Serve arguments that keep a real model's config and tokenizer but load two random layers."""

import json
from collections.abc import Mapping
from typing import Any

SKELETON_LAYERS = 2

# Configs written flat (layer count at the top) that transformers from 4.52 on splits when reading.
_SPLIT_WHEN_READ = frozenset({"qwen2_vl", "qwen2_5_vl"})
# Where multimodal configs keep the language model's own config.
_LANGUAGE_KEYS = ("text_config", "llm_config", "language_config", "thinker_config")


def skeleton_overrides(
    config: Mapping[str, Any] | None, *, nested_overrides: bool = True
) -> dict[str, Any]:
    """What `--hf-overrides` must hold to cut the language model to SKELETON_LAYERS layers.

    `config` is the model's config.json, or None when it is not at hand: then the model is taken
    for a text model. The vision tower keeps its layers.
    `nested_overrides` says whether this vLLM merges a nested override into the nested config. It
    does from 0.11.1 (vllm-project/vllm#25727); before, it put the bare override in the config's
    place and did not start. Without it only a layer count at the top level is cut, which for a
    multimodal config does nothing under some releases of transformers (4.53; it works under
    4.51 and 4.57).
    """
    config = config or {}
    cut: dict[str, Any] = {"num_hidden_layers": SKELETON_LAYERS}
    layer_types = config.get("layer_types")
    if isinstance(layer_types, list):
        cut["layer_types"] = layer_types[:SKELETON_LAYERS]  # one entry a layer, checked by some
    if not nested_overrides:
        return cut
    if config.get("model_type") in _SPLIT_WHEN_READ and "text_config" not in config:
        return {"text_config": cut}
    for key in _LANGUAGE_KEYS:
        if isinstance(config.get(key), Mapping):
            return {key: skeleton_overrides(config[key])}
    return cut


def skeleton_arguments(
    config: Mapping[str, Any] | None, *, nested_overrides: bool = True
) -> list[str]:
    """The arguments of `vllm serve` for a skeleton; see `skeleton_overrides`."""
    overrides = skeleton_overrides(config, nested_overrides=nested_overrides)
    return ["--load-format", "dummy", "--hf-overrides", json.dumps(overrides, sort_keys=True)]
