"""The config.json of a checkpoint and its tensors, in GGUF.

The names are those of the table of families (data_contracts/model_families.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from data_contracts import ArtifactError, ContractError
from data_contracts.checkpoint_config import CheckpointConfig
from data_contracts.checkpoint_shapes import tensor_names
from data_contracts.model_families import (
    EMBEDDING,
    FINAL_NORM,
    GGUF_LAYER,
    LAYER,
    OUTPUT_TABLE,
    TensorRow,
)
from stages.lm.checkpoint import REBUILD, load_config
from stages.tokenizer_files import UNREADABLE


@dataclass(frozen=True)
class TensorSource:
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


def read_config(folder: Path) -> CheckpointConfig:
    """Return the config.json of a checkpoint, as far as our model uses it.

    Args:
        folder: The checkpoint.

    Raises:
        ArtifactError: It cannot be read, or has sizes that no model has.
        ContractError: llama.cpp has no architecture that computes what it asks for.
    """
    try:
        config = CheckpointConfig.read(folder)
    except UNREADABLE as error:
        why = f"its config.json cannot be used: {type(error).__name__}: {error}"
        raise ArtifactError(f"checkpoint {folder}", why, REBUILD) from None
    check(config)
    return load_config(folder).to_checkpoint()


def check(config: CheckpointConfig) -> None:
    """Check that llama.cpp can compute what a config.json asks for.

    Raises:
        ContractError: It has no architecture for that.
    """
    unable = list(config.unsupported)
    context = config.max_position_embeddings
    window = config.sliding_window
    if window and (context is None or window < context):
        unable.append("a sliding window, which llama.cpp does not know for this architecture")
    if unable:
        raise ContractError(
            "config.json of the checkpoint",
            f"asks for {'; '.join(unable)}",
            "train a model without it, then export that",
        )


def sources(config: CheckpointConfig) -> Iterator[TensorSource]:
    """Yield every tensor of the GGUF file, in file order.

    Args:
        config: The config.json of the checkpoint.
    """
    is_tied = config.tie_word_embeddings
    yield TensorSource(EMBEDDING.gguf, (EMBEDDING.name,), table=is_tied)
    for layer in range(config.num_hidden_layers):
        for row in config.family.layer:
            yield _in_layer(row, layer, config)
    yield TensorSource(FINAL_NORM.gguf, (FINAL_NORM.name,), full=True)
    if not is_tied:
        yield TensorSource(OUTPUT_TABLE.gguf, (OUTPUT_TABLE.name,), table=True)


def _in_layer(row: TensorRow, layer: int, config: CheckpointConfig) -> TensorSource:
    prefix = LAYER.format(layer=layer)
    heads = 0
    if row.heads and config.family.rotates_pairs_in_gguf:
        heads = getattr(config, row.heads)
    return TensorSource(
        GGUF_LAYER.format(layer=layer) + row.gguf,
        tuple(prefix + name for name in tensor_names(row, config)),
        permute=heads,
        full=row.keeps_32_bits,
    )


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a projection within each head.

    Halves (i, i + N/2) become neighbouring pairs (2i, 2i + 1).

    Args:
        weight: [H*N, D]
        heads: H
    """
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write_sizes(writer: GGUFWriter, config: CheckpointConfig) -> None:
    """Write the hyperparameters that llama.cpp needs to build the graph.

    Args:
        writer: The file.
        config: As `read_config` returns it.
    """
    assert config.max_position_embeddings is not None  # load_config has checked both
    assert config.rms_norm_eps is not None
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if config.family.has_experts:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
