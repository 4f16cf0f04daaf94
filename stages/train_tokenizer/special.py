"""The special tokens, and the files with which transformers loads the tokenizer.

Conversations are written in ChatML. llama.cpp recognises `<|im_end|>` and `<|endoftext|>` by these
names as ends of generation. No token is put at the beginning of a text.
"""

from __future__ import annotations

import json
from pathlib import Path

END_OF_TEXT = "<|endoftext|>"  # ends a document; also what the first token is conditioned on
PAD = "<|pad|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def special_tokens(reserved: int) -> list[str]:
    """Return all special tokens in the order of their ids, which begin at 0.

    Args:
        reserved: Number of tokens without a use, kept for later.
    """
    unused = [f"<|reserved_{number}|>" for number in range(reserved)]
    return [END_OF_TEXT, PAD, TURN_START, TURN_END, *unused]


def tokenizer_config(model_max_length: int, reserved: int) -> str:
    """Return the tokenizer_config.json for transformers' PreTrainedTokenizerFast.

    Args:
        model_max_length: Number of tokens beyond which transformers warns.
        reserved: Number of special tokens without a use.
    """
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "additional_special_tokens": special_tokens(reserved)[2:],
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
    }
    return json.dumps(settings, indent=1) + "\n"
