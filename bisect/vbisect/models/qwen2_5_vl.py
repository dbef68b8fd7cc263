"""The files of a tiny random-weight `Qwen2_5_VLForConditionalGeneration`: text and images in.

The config is flat, the language model's keys at the top level, like the published Qwen2.5-VL
configs: transformers before 4.52 knows no other form, and the later ones still read it.
Images must have sides of a multiple of 28 pixels (14 pixels a patch, 2 x 2 patches a token) or
are resized to one.
"""

from typing import Any

from vbisect.models.qwen2 import (
    HIDDEN,
    ROPE_THETA,
    TOKEN_IDS,
    as_json,
    language_config,
    tokenizer_files,
)

PATCH = 14
MERGE = 2
# 4 to 64 image tokens: a small picture stays small whatever is sent.
MIN_PIXELS = 4 * (PATCH * MERGE) ** 2
MAX_PIXELS = 64 * (PATCH * MERGE) ** 2

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' or 'video' in part %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _config() -> dict[str, Any]:
    sections = [4, 6, 6]  # time, height, width: together half of the head size, 32
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **language_config(),
        "rope_scaling": {"type": "mrope", "mrope_section": sections},
        "rope_parameters": {
            "rope_type": "default",
            "type": "mrope",
            "mrope_section": sections,
            "rope_theta": ROPE_THETA,
        },
        "vision_start_token_id": TOKEN_IDS["<|vision_start|>"],
        "vision_end_token_id": TOKEN_IDS["<|vision_end|>"],
        "vision_token_id": TOKEN_IDS["<|vision_pad|>"],
        "image_token_id": TOKEN_IDS["<|image_pad|>"],
        "video_token_id": TOKEN_IDS["<|video_pad|>"],
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "depth": 2,
            "hidden_act": "silu",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "in_channels": 3,
            "in_chans": 3,
            "out_hidden_size": HIDDEN,
            "patch_size": PATCH,
            "spatial_patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.02,
        },
    }


def _pixels() -> dict[str, Any]:
    """How an image or a video frame becomes patches; the mean and deviation are CLIP's."""
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "min_pixels": MIN_PIXELS,
        "max_pixels": MAX_PIXELS,
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "processor_class": "Qwen2_5_VLProcessor",
    }


def files() -> dict[str, str]:
    """The whole model directory: file name → text."""
    image = {"image_processor_type": "Qwen2VLImageProcessor", **_pixels()}
    video = {"video_processor_type": "Qwen2VLVideoProcessor", **_pixels()}
    return {
        "config.json": as_json(_config()),
        "preprocessor_config.json": as_json(image),
        "video_preprocessor_config.json": as_json(video),
        # The processor of transformers 4 takes no tokenizer but Qwen2's.
        **tokenizer_files("Qwen2Tokenizer", CHAT_TEMPLATE),
    }
