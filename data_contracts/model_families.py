"""The families of models that groundup offers: one row each, with all that is particular to it.

The settings, the model, config.json, the checkpoint contract and the GGUF export read this table.
So a family that combines parts listed here is one more row, and no other file names a family.

GGUF names and hyperparameters follow https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and
the tensor maps of the gguf package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LAYER = "model.layers.{layer}."  # begins the names of a layer's tensors in transformers
GGUF_LAYER = "blk.{layer}."  # the same in GGUF
EXPERT = "{expert}"  # stands for the number of an expert in the name of its tensors


@dataclass(frozen=True)
class TensorRow:
    """One tensor of a checkpoint, or one for each layer or expert.

    Attributes:
        name: Its name in transformers. In a layer, it follows `LAYER`. With `EXPERT` in it, there
            is one for each expert, and GGUF stacks them along a new first axis.
        gguf: Its name in GGUF. In a layer, it follows `GGUF_LAYER`.
        shape: Its dimensions, as attributes of `CheckpointConfig`.
        heads: For projections whose heads are rotated: the attribute that counts these heads.
        keeps_32_bits: Whether GGUF files always have it in 32 bits, because it is small and
            sensitive (norms, router).
    """

    name: str
    gguf: str
    shape: tuple[str, ...]
    heads: str = ""
    keeps_32_bits: bool = False


EMBEDDING = TensorRow(
    "model.embed_tokens.weight", "token_embd.weight", ("vocab_size", "hidden_size")
)
FINAL_NORM = TensorRow(
    "model.norm.weight", "output_norm.weight", ("hidden_size",), keeps_32_bits=True
)
OUTPUT_TABLE = TensorRow("lm_head.weight", "output.weight", ("vocab_size", "hidden_size"))

_ATTENTION_NORM = TensorRow(
    "input_layernorm.weight", "attn_norm.weight", ("hidden_size",), keeps_32_bits=True
)
_ATTENTION = (
    TensorRow(
        "self_attn.q_proj.weight",
        "attn_q.weight",
        ("query_width", "hidden_size"),
        heads="num_attention_heads",
    ),
    TensorRow(
        "self_attn.k_proj.weight",
        "attn_k.weight",
        ("key_width", "hidden_size"),
        heads="num_key_value_heads",
    ),
    TensorRow("self_attn.v_proj.weight", "attn_v.weight", ("key_width", "hidden_size")),
    TensorRow("self_attn.o_proj.weight", "attn_output.weight", ("hidden_size", "query_width")),
)
_QK_NORM = (
    TensorRow("self_attn.q_norm.weight", "attn_q_norm.weight", ("head_width",), keeps_32_bits=True),
    TensorRow("self_attn.k_norm.weight", "attn_k_norm.weight", ("head_width",), keeps_32_bits=True),
)
_FEED_FORWARD_NORM = TensorRow(
    "post_attention_layernorm.weight", "ffn_norm.weight", ("hidden_size",), keeps_32_bits=True
)
_DENSE = (
    TensorRow("mlp.gate_proj.weight", "ffn_gate.weight", ("intermediate_size", "hidden_size")),
    TensorRow("mlp.up_proj.weight", "ffn_up.weight", ("intermediate_size", "hidden_size")),
    TensorRow("mlp.down_proj.weight", "ffn_down.weight", ("hidden_size", "intermediate_size")),
)
_EXPERTS = (
    TensorRow(
        "mlp.gate.weight",
        "ffn_gate_inp.weight",
        ("num_experts", "hidden_size"),
        keeps_32_bits=True,
    ),
    TensorRow(
        "mlp.experts.{expert}.gate_proj.weight",
        "ffn_gate_exps.weight",
        ("moe_intermediate_size", "hidden_size"),
    ),
    TensorRow(
        "mlp.experts.{expert}.up_proj.weight",
        "ffn_up_exps.weight",
        ("moe_intermediate_size", "hidden_size"),
    ),
    TensorRow(
        "mlp.experts.{expert}.down_proj.weight",
        "ffn_down_exps.weight",
        ("hidden_size", "moe_intermediate_size"),
    ),
)


@dataclass(frozen=True)
class ModelFamily:
    """One family.

    Attributes:
        name: The setting `model.architecture`, and `model_type` in config.json.
        about: What the family adds, for the help of the setting; "" for the plain one.
        transformers_class: The class in transformers.
        llama_cpp_architecture: `general.architecture` in GGUF.
        has_qk_norm: Whether queries and keys are normalized.
        has_experts: Whether the feed-forward layer is a mixture of experts.
        has_sliding_window: Whether the setting `model.sliding_window` is allowed.
        has_window_layers: Whether config.json says from which layer on the window counts.
        rotates_pairs_in_gguf: Whether llama.cpp rotates neighbouring pairs of a head. transformers
            always rotates its two halves, so the export has to reorder the rows.
        config_keys: Further keys of config.json, with the only values that groundup supports.
    """

    name: str
    about: str
    transformers_class: str
    llama_cpp_architecture: str
    has_qk_norm: bool = False
    has_experts: bool = False
    has_sliding_window: bool = False
    has_window_layers: bool = False
    rotates_pairs_in_gguf: bool = False
    config_keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layer(self) -> tuple[TensorRow, ...]:
        """The tensors of each layer, in the order of the GGUF file."""
        qk_norm = _QK_NORM if self.has_qk_norm else ()
        feed_forward = _EXPERTS if self.has_experts else _DENSE
        return (_ATTENTION_NORM, *_ATTENTION, *qk_norm, _FEED_FORWARD_NORM, *feed_forward)


LLAMA = ModelFamily(
    name="llama",
    about="",
    transformers_class="LlamaForCausalLM",
    llama_cpp_architecture="llama",
    rotates_pairs_in_gguf=True,
    config_keys={"mlp_bias": False},
)
QWEN3 = ModelFamily(
    name="qwen3",
    about="adds QK-norm",
    transformers_class="Qwen3ForCausalLM",
    llama_cpp_architecture="qwen3",
    has_qk_norm=True,
    has_sliding_window=True,
    has_window_layers=True,
)
QWEN3_MOE = ModelFamily(
    name="qwen3_moe",
    about="adds a mixture of experts",
    transformers_class="Qwen3MoeForCausalLM",
    llama_cpp_architecture="qwen3moe",
    has_qk_norm=True,
    has_experts=True,
    has_sliding_window=True,
    config_keys={"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
)

DEFAULT = LLAMA
FAMILIES: dict[str, ModelFamily] = {family.name: family for family in (LLAMA, QWEN3, QWEN3_MOE)}


def names() -> str:
    """Return the names of all families, for a message."""
    return ", ".join(FAMILIES)
