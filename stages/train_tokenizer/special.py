"""The special tokens: what each is for, and the folder of files that transformers loads.

A conversation is written in ChatML. llama.cpp knows `<|im_end|>` and `<|endoftext|>` by these names as ends of generation.
No token is put at the beginning of a text.
"""

from __future__ import annotations

import json
from pathlib import Path

END_OF_TEXT = "<|endoftext|>"  # the end of a document; also what a first token is conditioned on
PAD = "<|pad|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def special_tokens(reserved: int) -> list[str]:
    """All special tokens in the order of their ids, which begin at 0."""
    return [END_OF_TEXT, PAD, TURN_START, TURN_END, *(f"<|reserved_{n}|>" for n in range(reserved))]


def tokenizer_config(model_max_length: int, reserved: int) -> str:
    """The text of tokenizer_config.json for transformers' PreTrainedTokenizerFast."""
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
