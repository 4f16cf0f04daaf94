"""Tiny checkpoints as transformers writes them.

Their weights are random, with peaked distributions. Their tokenizer is trained on docstrings of
Python.
"""

from __future__ import annotations

import json
import pydoc
import string
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.utils import logging

from data_contracts import Artifact
from data_contracts.bundles import LLAMA3_SPLIT

CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}"
    "{%- generation -%} {{ message.content | trim }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ message.content }}<|im_end|>\n{% endif %}"
    "{%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
MIXTURE = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM, MIXTURE),
}
METRICS = [
    {
        "step": step,
        "tokens": 1000 * step,
        "loss": 6.25 - step,
        "heldout_loss": 6.5 - step if step % 2 == 0 else None,
        "skipped": False,
    }
    for step in range(5)
]


@cache
def tokenizer(special: tuple[str, ...] = tuple(SPECIAL), size: int = 500) -> Tokenizer:
    """Byte-level BPE of `size` tokens with the split pattern of Llama 3."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [pydoc.plain(pydoc.render_doc(module)) for module in (string, pydoc)]
    bpe.train_from_iterator(texts, trainer)
    return bpe


def tiny_checkpoint(
    publish: Callable[..., Artifact],
    kind: str = "llama",
    *,
    tied: bool = True,
    unused_rows: int = 0,
    special: tuple[str, ...] = tuple(SPECIAL),
    change: Callable[[dict[str, torch.Tensor]], None] | None = None,
    **sizes: Any,
) -> Artifact:
    """Publish a checkpoint of about 0.1 M random weights.

    Args:
        publish: Publishes the artifact.
        kind: A key of KINDS.
        tied: Use the embedding as the output table.
        unused_rows: Rows of the embedding that no token of the tokenizer uses.
        special: Special tokens: bos and eos, pad, then further ones.
        change: Alters the weights in place.
        **sizes: Further settings of transformers' config.
    """
    config_class, model_class, extra = KINDS[kind]
    words = tokenizer(special)
    settings = {
        "vocab_size": words.get_vocab_size() + unused_rows,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "tie_word_embeddings": tied,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    logging.disable_progress_bar()
    torch.manual_seed(0)
    model = model_class(config_class(**settings | extra | sizes))
    if change:
        change(model.state_dict())
    model.generation_config.eos_token_id = [0, 3]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=special[0],
        eos_token=special[0],
        pad_token=special[1],
        chat_template=CHAT_TEMPLATE,
        additional_special_tokens=list(special[2:]),
    )
    files = _saved(model, fast)
    config = json.loads(files["config.json"])
    if kind == "qwen3_moe":
        config["num_experts"] = config["num_local_experts"]  # the name that all readers know
    files["config.json"] = json.dumps(config).encode()
    return publish("checkpoint", files=files, metrics=METRICS)


def _saved(*parts: Any) -> dict[str, bytes]:
    """The files that a model and its tokenizer save, by name."""
    with TemporaryDirectory() as folder:
        for part in parts:
            part.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
