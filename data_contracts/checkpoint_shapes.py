"""The tensors that the config.json of a checkpoint calls for, with names as in transformers."""

from __future__ import annotations

from data_contracts.checkpoint_config import CheckpointConfig
from data_contracts.model_families import (
    EMBEDDING,
    EXPERT,
    FINAL_NORM,
    LAYER,
    OUTPUT_TABLE,
    TensorRow,
)


def checkpoint_shapes(config: CheckpointConfig) -> dict[str, list[int]]:
    """Return the names and shapes of all tensors of a checkpoint.

    Args:
        config: The content of its config.json.
    """
    shapes = {
        EMBEDDING.name: _shape(EMBEDDING, config),
        FINAL_NORM.name: _shape(FINAL_NORM, config),
    }
    if not config.tie_word_embeddings:
        shapes[OUTPUT_TABLE.name] = _shape(OUTPUT_TABLE, config)
    rows = [(row, _shape(row, config)) for row in config.family.layer]
    for layer in range(config.num_hidden_layers):
        prefix = LAYER.format(layer=layer)
        for row, shape in rows:
            for name in tensor_names(row, config):
                shapes[prefix + name] = shape
    return shapes


def tensor_names(row: TensorRow, config: CheckpointConfig) -> list[str]:
    """Return the names that a row of the table stands for: one, or one for each expert."""
    if EXPERT not in row.name:
        return [row.name]
    return [row.name.format(expert=expert) for expert in range(config.num_experts)]


def _shape(row: TensorRow, config: CheckpointConfig) -> list[int]:
    return [getattr(config, dimension) for dimension in row.shape]
