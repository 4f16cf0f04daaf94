"""The tensors that the config.json of a checkpoint calls for, with names as in transformers."""

from __future__ import annotations

from typing import Any

# In the whole model. These lie above any real model, and bound the work that a config.json causes.
MAX_LAYERS = 10_000
MAX_EXPERTS = 100_000
_MAX_SIZE = 2**31
_MODEL_TYPES = ("llama", "qwen3", "qwen3_moe")


def checkpoint_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Tensor names and shapes of a Llama, Qwen3 or Qwen3-MoE checkpoint.

    Args:
        config: The content of config.json.

    Raises:
        ValueError: A size is missing or out of range, or the model type is not known.
    """
    width = _size(config, "hidden_size")
    vocabulary = _size(config, "vocab_size")
    _size(config, "intermediate_size")
    _size(config, "num_attention_heads")
    _size(config, "num_key_value_heads")
    kind = config["model_type"]
    if kind not in _MODEL_TYPES:
        raise ValueError(f"model_type {kind!r} is none of {', '.join(_MODEL_TYPES)}")
    shapes = {"model.embed_tokens.weight": [vocabulary, width], "model.norm.weight": [width]}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = [vocabulary, width]
    layers = _size(config, "num_hidden_layers", MAX_LAYERS)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes |= _attention(prefix, config)
        if kind == "qwen3_moe":
            shapes |= _experts(prefix, config, MAX_EXPERTS // layers)
        else:
            shapes |= _mlp(prefix + "mlp.", width, _size(config, "intermediate_size"))
    return shapes


def _attention(prefix: str, config: dict[str, Any]) -> dict[str, list[int]]:
    """The norms and the attention of one layer."""
    width = _size(config, "hidden_size")
    heads = _size(config, "num_attention_heads")
    kv_heads = _size(config, "num_key_value_heads")
    head_width = config.get("head_dim") or width // heads
    shapes = {
        prefix + "input_layernorm.weight": [width],
        prefix + "post_attention_layernorm.weight": [width],
        prefix + "self_attn.q_proj.weight": [heads * head_width, width],
        prefix + "self_attn.k_proj.weight": [kv_heads * head_width, width],
        prefix + "self_attn.v_proj.weight": [kv_heads * head_width, width],
        prefix + "self_attn.o_proj.weight": [width, heads * head_width],
    }
    if config["model_type"] != "llama":
        shapes[prefix + "self_attn.q_norm.weight"] = [head_width]
        shapes[prefix + "self_attn.k_norm.weight"] = [head_width]
    return shapes


def _experts(prefix: str, config: dict[str, Any], max_experts: int) -> dict[str, list[int]]:
    """The router and the experts of one layer."""
    width = _size(config, "hidden_size")
    inner = _size(config, "moe_intermediate_size")
    experts = _size(config, "num_experts", max_experts)
    shapes = {prefix + "mlp.gate.weight": [experts, width]}
    for expert in range(experts):
        shapes |= _mlp(f"{prefix}mlp.experts.{expert}.", width, inner)
    return shapes


def _mlp(prefix: str, width: int, inner: int) -> dict[str, list[int]]:
    return {
        prefix + "gate_proj.weight": [inner, width],
        prefix + "up_proj.weight": [inner, width],
        prefix + "down_proj.weight": [width, inner],
    }


def _size(config: dict[str, Any], key: str, maximum: int = _MAX_SIZE) -> int:
    value = config.get(key)
    if type(value) is not int or not 0 < value <= maximum:
        raise ValueError(f"config.json: {key} is {value!r}, wanted 1..{maximum}")
    return value
