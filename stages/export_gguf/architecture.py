"""The names in GGUF of what is in a checkpoint's config.json and of its tensors.

Names and hyperparameters follow https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and the
tensor maps of the gguf package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter

from data_contracts import ArtifactError, ContractError
from data_contracts.json_files import read_json
from stages.lm.checkpoint import AGAIN, load_config
from stages.lm.config import beyond
from stages.tokenizer_files import MAX_SETTINGS_BYTES, UNREADABLE

NAMES = {"llama": "llama", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"}


@dataclass(frozen=True)
class Source:
    """One GGUF tensor and where it comes from.

    Attributes:
        name: Its name in GGUF.
        tensors: Its names in the checkpoint. Several are stacked along a new first axis (experts).
        permute: The number of heads whose rows are reordered; 0 for none.
        table: Whether it is the output table, or the embedding that serves as one. It is quantized
            more carefully.
        full: Whether it always stays in 32 bits (norms, router), being small and sensitive.
    """

    name: str
    tensors: tuple[str, ...]
    permute: int = 0
    table: bool = False
    full: bool = False


def read_sizes(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint, as far as our model uses it, under transformers' names.

    Raises:
        ArtifactError: It cannot be read, or has sizes that no model has.
        ContractError: llama.cpp has no architecture that computes what it asks for.
    """
    try:
        check(read_json(folder / "config.json", MAX_SETTINGS_BYTES))
    except UNREADABLE as error:
        why = f"its config.json cannot be used: {type(error).__name__}: {error}"
        raise ArtifactError(f"checkpoint {folder}", why, AGAIN) from None
    return load_config(folder).to_hf()


def check(config: dict[str, Any]) -> None:
    """Check the content of a config.json.

    Raises:
        ContractError: llama.cpp has no architecture that computes what it asks for.
    """
    unable = beyond(config)
    context = config["max_position_embeddings"]
    window = config.get("sliding_window") or context
    if config.get("use_sliding_window") and window < context:
        unable.append("a sliding window, which llama.cpp does not know for this architecture")
    if unable:
        raise ContractError(
            "config.json of the checkpoint",
            f"asks for {'; '.join(unable)}",
            "train a model without it, then export that",
        )


def sources(config: dict[str, Any]) -> Iterator[Source]:
    """Every tensor of the GGUF file, in file order."""
    tied = bool(config.get("tie_word_embeddings"))
    yield Source("token_embd.weight", ("model.embed_tokens.weight",), table=tied)
    for layer in range(config["num_hidden_layers"]):
        yield from _block(config, f"model.layers.{layer}.", f"blk.{layer}.")
    yield Source("output_norm.weight", ("model.norm.weight",), full=True)
    if not tied:
        yield Source("output.weight", ("lm_head.weight",), table=True)


def _block(config: dict[str, Any], prefix: str, gguf: str) -> Iterator[Source]:
    """The tensors of one layer. prefix, gguf: how their names begin here and there."""
    # llama.cpp rotates neighbouring pairs in a llama and halves in a qwen3; transformers rotates
    # halves in both
    is_llama = config["model_type"] == "llama"
    heads = config["num_attention_heads"] if is_llama else 0
    kv_heads = config["num_key_value_heads"] if is_llama else 0
    attention = prefix + "self_attn."
    yield Source(gguf + "attn_norm.weight", (prefix + "input_layernorm.weight",), full=True)
    yield Source(gguf + "attn_q.weight", (attention + "q_proj.weight",), permute=heads)
    yield Source(gguf + "attn_k.weight", (attention + "k_proj.weight",), permute=kv_heads)
    yield Source(gguf + "attn_v.weight", (attention + "v_proj.weight",))
    yield Source(gguf + "attn_output.weight", (attention + "o_proj.weight",))
    if not is_llama:
        yield Source(gguf + "attn_q_norm.weight", (attention + "q_norm.weight",), full=True)
        yield Source(gguf + "attn_k_norm.weight", (attention + "k_norm.weight",), full=True)
    yield Source(gguf + "ffn_norm.weight", (prefix + "post_attention_layernorm.weight",), full=True)
    yield from _feed_forward(config, prefix + "mlp.", gguf)


def _feed_forward(config: dict[str, Any], prefix: str, gguf: str) -> Iterator[Source]:
    is_sparse = config["model_type"] == "qwen3_moe"
    if is_sparse:
        yield Source(gguf + "ffn_gate_inp.weight", (prefix + "gate.weight",), full=True)
    for part in ("gate", "up", "down"):
        if not is_sparse:
            yield Source(f"{gguf}ffn_{part}.weight", (f"{prefix}{part}_proj.weight",))
            continue
        numbers = range(config["num_experts"])
        experts = [f"{prefix}experts.{number}.{part}_proj.weight" for number in numbers]
        yield Source(f"{gguf}ffn_{part}_exps.weight", tuple(experts))


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a projection within each head.

    Halves (i, i + N/2) become neighbouring pairs (2i, 2i + 1).

    Args:
        weight: [H*N, D]
        heads: H
    """
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write_sizes(writer: GGUFWriter, config: dict[str, Any]) -> None:
    """Write the hyperparameters that llama.cpp needs to build the graph."""
    head_width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_rope_dimension_count(head_width)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta", 10_000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    if config["model_type"] == "qwen3_moe":
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
