"""A byte-level BPE tokenizer file, trained here so that no download is needed."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Pair = tuple[str, str]

# Any text would do: bytes outside it are tokens of their own, so nothing is ever unknown.
_TRAINING_TEXT = (
    "the server answers the request and the reader asks for another answer in other words "
    "one line of text on each turn then the next"
)


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte 0..255 in GPT-2's byte-level BPE."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    symbols, moved = [], 0
    for byte in range(256):
        if byte in printable:
            symbols.append(chr(byte))
        else:
            symbols.append(chr(256 + moved))
            moved += 1
    return symbols


def _join(word: list[str], pair: Pair) -> list[str]:
    """`word` with each occurrence of `pair`, from the left, made one symbol."""
    joined: list[str] = []
    at = 0
    while at < len(word):
        if tuple(word[at : at + 2]) == pair:
            joined.append(pair[0] + pair[1])
            at += 2
        else:
            joined.append(word[at])
            at += 1
    return joined


def train_merges(count: int, text: str = _TRAINING_TEXT) -> list[Pair]:
    """The first `count` BPE merges of `text`: most frequent pair first, ties in alphabetical order.

    Raises ValueError when the text has too few pairs.
    """
    symbols = byte_symbols()
    words = [[symbols[byte] for byte in f" {word}".encode()] for word in text.split()]
    merges: list[Pair] = []
    for _ in range(count):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            raise ValueError(f"the training text gives {len(merges)} merges, not {count}")
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [_join(word, best) for word in words]
    return merges


def tokenizer_json(special_tokens: Sequence[str], vocab_size: int) -> dict[str, Any]:
    """The contents of a `tokenizer.json` with exactly `vocab_size` tokens.

    Ids 0..255 are the bytes, then come the merges, then `special_tokens` in the order given.
    The format is that of Hugging Face's `tokenizers`; merges are written as "left right" strings,
    which every release of it reads (lists of pairs came in 0.20).
    Raises ValueError when `vocab_size` has no room for bytes and special tokens.
    """
    merge_count = vocab_size - 256 - len(special_tokens)
    if merge_count < 0:
        raise ValueError(
            f"{vocab_size} tokens cannot hold 256 bytes and {len(special_tokens)} more"
        )
    merges = train_merges(merge_count)
    tokens = [*byte_symbols(), *(left + right for left, right in merges)]
    first_special = len(tokens)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": first_special + offset,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for offset, token in enumerate(special_tokens)
        ],
        "normalizer": None,
        "pre_tokenizer": _byte_level(),
        "post_processor": None,
        "decoder": _byte_level(),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }


def special_token_ids(special_tokens: Sequence[str], vocab_size: int) -> dict[str, int]:
    """The id of each special token in the tokenizer that `tokenizer_json` writes: the last ids."""
    first = vocab_size - len(special_tokens)
    return {token: first + offset for offset, token in enumerate(special_tokens)}


def _byte_level() -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": True,
    }
