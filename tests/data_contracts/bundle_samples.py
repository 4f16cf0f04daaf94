"""Small bundles of files that keep their contracts, as plain bytes by path, made without torch."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

import numpy as np
from safetensors.numpy import save
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_contracts.bundles import LLAMA3_SPLIT
from data_contracts.checkpoint_config import CheckpointConfig
from data_contracts.checkpoint_shapes import checkpoint_shapes

Files = dict[str, bytes]

SPECIAL = ["<|end|>", "<|pad|>"]
VOCABULARY = 256 + len(SPECIAL)
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "tie_word_embeddings": True,
}
MIXTURE = CONFIG | {"model_type": "qwen3_moe", "num_experts": 3, "moe_intermediate_size": 4}


@cache
def tokenizer_json() -> bytes:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [],
        trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    return made.to_str().encode()


def tokenizer() -> Files:
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[0],
        "pad_token": SPECIAL[1],
    }
    return {
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "chat_template.jinja": b"{{ messages }}",
        "report.json": b"{}",
    }


def weights(config: dict[str, Any] = CONFIG) -> dict[str, np.ndarray]:
    shapes = checkpoint_shapes(CheckpointConfig.parse(config))
    return {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}


def checkpoint(config: dict[str, Any] = CONFIG) -> Files:
    files = {name: data for name, data in tokenizer().items() if name != "report.json"}
    return files | {
        "config.json": json.dumps(config).encode(),
        "generation_config.json": b"{}",
        "model.safetensors": save(weights(config)),
    }


def digest_line() -> bytes:
    return f"{hashlib.sha256(tokenizer_json()).hexdigest()} {VOCABULARY}\n".encode()


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with any header at all; `length` is what it claims."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def edited(data: bytes, change: Any) -> bytes:
    """A safetensors file whose header `change` has altered; the tensors stay."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    return safetensors(header, data[8 + length :])
