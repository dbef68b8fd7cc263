"""The files of a tiny random-weight text model, `Qwen2ForCausalLM`, that every vLLM can serve.

There are no weights: serve it with `--load-format dummy`. What one reader needs and another
ignores is written twice (`dtype`/`torch_dtype`, `rope_parameters`/`rope_theta`, the chat template
in two places), because transformers 4.51 (vLLM 0.8.5) and 5 must both read it.
"""

import json
from typing import Any

from vbisect.models.tokenizer import special_token_ids, tokenizer_json

VOCAB_SIZE = 300
LAYERS = 2
HIDDEN = 64  # two heads of 32: the smallest head size vLLM's CPU attention has
CONTEXT = 2048
ROPE_THETA = 10000.0

END_OF_TEXT = "<|endoftext|>"
END_OF_TURN = "<|im_end|>"
# The vision tokens are in the text model's vocabulary too, so that both share one tokenizer.
SPECIAL_TOKENS = (
    END_OF_TEXT,
    "<|im_start|>",
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TOKEN_IDS = special_token_ids(SPECIAL_TOKENS, VOCAB_SIZE)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def as_json(value: dict[str, Any]) -> str:
    """`value` as the text of a JSON file: the same text for the same value, always."""
    return json.dumps(value, indent=1, ensure_ascii=True) + "\n"


def language_config() -> dict[str, Any]:
    """The config.json keys of the language model, shared with the vision-language sibling."""
    return {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-06,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": False,
        "use_cache": True,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": LAYERS,
        "attention_dropout": 0.0,
        "bos_token_id": TOKEN_IDS[END_OF_TEXT],
        "eos_token_id": TOKEN_IDS[END_OF_TURN],
        "pad_token_id": TOKEN_IDS[END_OF_TEXT],
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def tokenizer_files(tokenizer_class: str, chat_template: str) -> dict[str, str]:
    """Tokenizer, chat template and generation defaults: file name → text.

    `tokenizer_class` is a class name that transformers 4 and 5 both know.
    """
    return {
        "tokenizer.json": as_json(tokenizer_json(SPECIAL_TOKENS, VOCAB_SIZE)),
        "tokenizer_config.json": as_json(
            {
                "tokenizer_class": tokenizer_class,
                "model_max_length": CONTEXT,
                "bos_token": None,
                "eos_token": END_OF_TURN,
                "pad_token": END_OF_TEXT,
                "unk_token": None,
                "add_prefix_space": False,
                "clean_up_tokenization_spaces": False,
                "chat_template": chat_template,
            }
        ),
        "chat_template.jinja": chat_template,
        # No sampling defaults: vLLM applies them from 0.8.0 and they would change what is probed.
        "generation_config.json": as_json(
            {
                "bos_token_id": TOKEN_IDS[END_OF_TEXT],
                "eos_token_id": [TOKEN_IDS[END_OF_TURN], TOKEN_IDS[END_OF_TEXT]],
                "pad_token_id": TOKEN_IDS[END_OF_TEXT],
            }
        ),
    }


def files() -> dict[str, str]:
    """The whole model directory: file name → text."""
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **language_config(),
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
    }
    return {
        "config.json": as_json(config),
        **tokenizer_files("PreTrainedTokenizerFast", CHAT_TEMPLATE),
    }
