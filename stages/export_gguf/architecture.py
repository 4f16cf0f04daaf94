"""How a checkpoint's config.json and tensors are called in GGUF.

Names and hyperparameters: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and the tensor maps of the gguf package.
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

    tensors:    names in the checkpoint; several are stacked along a new first axis (experts).
    permute:    number of heads whose rows are to be reordered, 0 for none.
    table:      the output table, or the embedding that serves as such: quantized more carefully.
    full:       always kept in 32 bit (norms, router): small, and sensitive.
    """

    name: str
    tensors: tuple[str, ...]
    permute: int = 0
    table: bool = False
    full: bool = False


def read_sizes(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint: what the model here takes of it, in the words of transformers.

    Raises:
        ArtifactError: It cannot be read, or holds sizes that no model has.
        ContractError: llama.cpp has no architecture that computes what it asks for.
    """
    try:
        check(read_json(folder / "config.json", MAX_SETTINGS_BYTES))
    except UNREADABLE as error:
        why = f"its config.json cannot be used: {type(error).__name__}: {error}"
        raise ArtifactError(f"checkpoint {folder}", why, AGAIN) from None
    return load_config(folder).to_hf()


def check(config: dict[str, Any]) -> None:
    """Raises ContractError if llama.cpp has no architecture that computes what config.json asks for."""
    unable, context = beyond(config), config["max_position_embeddings"]
    if config.get("use_sliding_window") and (config.get("sliding_window") or context) < context:
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


def _block(config: dict[str, Any], at: str, to: str) -> Iterator[Source]:
    # llama.cpp rotates neighbouring pairs in a llama and halves in a qwen3; transformers rotates halves in both
    rotated = config["model_type"] == "llama"
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    yield Source(to + "attn_norm.weight", (at + "input_layernorm.weight",), full=True)
    yield Source(
        to + "attn_q.weight", (at + "self_attn.q_proj.weight",), permute=heads if rotated else 0
    )
    yield Source(
        to + "attn_k.weight", (at + "self_attn.k_proj.weight",), permute=kv_heads if rotated else 0
    )
    yield Source(to + "attn_v.weight", (at + "self_attn.v_proj.weight",))
    yield Source(to + "attn_output.weight", (at + "self_attn.o_proj.weight",))
    if config["model_type"] != "llama":
        yield Source(to + "attn_q_norm.weight", (at + "self_attn.q_norm.weight",), full=True)
        yield Source(to + "attn_k_norm.weight", (at + "self_attn.k_norm.weight",), full=True)
    yield Source(to + "ffn_norm.weight", (at + "post_attention_layernorm.weight",), full=True)
    if config["model_type"] == "qwen3_moe":
        yield Source(to + "ffn_gate_inp.weight", (at + "mlp.gate.weight",), full=True)
    for part in ("gate", "up", "down"):
        if config["model_type"] == "qwen3_moe":
            experts = tuple(
                f"{at}mlp.experts.{expert}.{part}_proj.weight"
                for expert in range(config["num_experts"])
            )
            yield Source(f"{to}ffn_{part}_exps.weight", experts)
        else:
            yield Source(f"{to}ffn_{part}.weight", (f"{at}mlp.{part}_proj.weight",))


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows [H*N, D] of a projection from halves (i, i + N/2) to neighbouring pairs (2i, 2i + 1) within each head."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write_sizes(writer: GGUFWriter, config: dict[str, Any]) -> None:
    """The hyperparameters that llama.cpp needs to build the graph."""
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
