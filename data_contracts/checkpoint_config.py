"""What the config.json of a checkpoint says, as one typed value under transformers' names.

The file may come from anybody. It is read within bounds, and whatever is wrong with it is one
ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.foreign_text import brief
from data_contracts.json_files import read_json
from data_contracts.model_families import FAMILIES, ModelFamily, names

FILE = "config.json"
MAX_BYTES = 16 << 20
# In the whole model. These lie above any real model, and bound the work that a config.json causes.
MAX_LAYERS = 10_000
MAX_EXPERTS = 100_000
MAX_SIZE = 2**31
MAX_NUMBER = 1e30
MAX_REASON = 200  # characters; a reason may quote a config.json
DEFAULT_ROPE_THETA = 10_000.0


@dataclass(frozen=True)
class CheckpointConfig:
    """The content of a config.json.

    Attributes:
        family: The family that `model_type` names.
        vocab_size: Tokens in the vocabulary (V).
        hidden_size: Width of the residual stream (D).
        intermediate_size: Inner width of a dense feed-forward layer (F).
        num_hidden_layers: Blocks (L).
        num_attention_heads: Query heads (H).
        num_key_value_heads: Key and value heads (K).
        head_dim: Width of a head (N). None: hidden_size / num_attention_heads.
        tie_word_embeddings: Whether the embedding is the output table, too.
        max_position_embeddings: Tokens that the model sees at once (T). None: not given.
        rms_norm_eps: Epsilon of RMSNorm. None: not given.
        rope_theta: Base of the rotary position embedding.
        sliding_window: Keys that a token attends to. None: all.
        num_experts: Experts of a layer (E); 0 for dense families.
        num_experts_per_tok: Experts that each token goes to (k); 0 for dense families.
        moe_intermediate_size: Inner width of an expert; 0 for dense families.
        unsupported: What it asks for that groundup does not have, as phrases.
    """

    family: ModelFamily
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int | None
    tie_word_embeddings: bool
    max_position_embeddings: int | None
    rms_norm_eps: float | None
    rope_theta: float = DEFAULT_ROPE_THETA
    sliding_window: int | None = None
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    unsupported: tuple[str, ...] = ()

    @property
    def head_width(self) -> int:
        """N: `head_dim`, or its default."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def query_width(self) -> int:
        """H N: rows of the query projection."""
        return self.num_attention_heads * self.head_width

    @property
    def key_width(self) -> int:
        """K N: rows of the key projection and of the value projection."""
        return self.num_key_value_heads * self.head_width

    @classmethod
    def read(cls, folder: Path) -> CheckpointConfig:
        """Read the config.json in a folder.

        Raises:
            ValueError: It is not a JSON object, or see `parse`.
            OSError: It cannot be read.
        """
        return cls.parse(read_json(folder / FILE, MAX_BYTES))

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> CheckpointConfig:
        """Return the typed value of a config.json.

        Raises:
            ValueError: The family is not known, or a value is missing, of another type or out of
                range.
        """
        family = _family(values)
        layers = _size(values, "num_hidden_layers", MAX_LAYERS)
        rope = _rope(values)
        experts = {}
        if family.has_experts:
            experts = {
                "num_experts": _size(values, "num_experts", MAX_EXPERTS // layers),
                "num_experts_per_tok": _optional_size(values, "num_experts_per_tok") or 0,
                "moe_intermediate_size": _size(values, "moe_intermediate_size"),
            }
        is_windowed = bool(values.get("use_sliding_window"))
        theta = rope.get("rope_theta") or values.get("rope_theta", DEFAULT_ROPE_THETA)
        return cls(
            family=family,
            vocab_size=_size(values, "vocab_size"),
            hidden_size=_size(values, "hidden_size"),
            intermediate_size=_size(values, "intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=_size(values, "num_attention_heads"),
            num_key_value_heads=_size(values, "num_key_value_heads"),
            head_dim=_optional_size(values, "head_dim"),
            tie_word_embeddings=bool(values.get("tie_word_embeddings")),
            max_position_embeddings=_optional_size(values, "max_position_embeddings"),
            rms_norm_eps=_optional_number(values, "rms_norm_eps"),
            rope_theta=_number("rope_theta", theta),
            sliding_window=_optional_size(values, "sliding_window") if is_windowed else None,
            unsupported=tuple(_unsupported(family, values, rope)),
            **experts,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the config.json that transformers and vLLM load."""
        config: dict[str, Any] = {
            "architectures": [self.family.transformers_class],
            "model_type": self.family.name,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_width,
            "max_position_embeddings": self.max_position_embeddings,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "rope_theta": self.rope_theta,  # transformers < 5, vLLM
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_word_embeddings,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "dtype": "float32",
        }
        if self.family.has_sliding_window:
            config["use_sliding_window"] = self.sliding_window is not None
            config["sliding_window"] = self.sliding_window
        if self.family.has_window_layers:
            config["max_window_layers"] = 0 if self.sliding_window else self.num_hidden_layers
        if self.family.has_experts:
            config["num_experts"] = self.num_experts
            config["num_experts_per_tok"] = self.num_experts_per_tok
            config["moe_intermediate_size"] = self.moe_intermediate_size
        return config | dict(self.family.config_keys)


def _family(values: Mapping[str, Any]) -> ModelFamily:
    name = values.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise ValueError(f"{FILE}: model_type {brief(name)} is none of {names()}")
    return FAMILIES[name]


def _rope(values: Mapping[str, Any]) -> Mapping[str, Any]:
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ValueError(f"{FILE}: rope_parameters is {brief(rope)}, wanted an object")
    return rope


def _unsupported(
    family: ModelFamily, values: Mapping[str, Any], rope: Mapping[str, Any]
) -> list[str]:
    """Return what the file asks for that groundup does not have, as phrases."""
    activation = values.get("hidden_act", "silu")
    rope_type = rope.get("rope_type", "default")
    reasons = []
    if values.get("attention_bias") or values.get("mlp_bias"):
        reasons.append("biases")
    if activation != "silu":
        reasons.append(f"hidden_act {activation!r}")
    if rope_type != "default":
        reasons.append(f"RoPE of type {rope_type!r}")
    if "norm_topk_prob" in family.config_keys and not values.get("norm_topk_prob"):
        reasons.append("router weights that do not sum to 1")
    if values.get("mlp_only_layers") or values.get("decoder_sparse_step", 1) != 1:
        reasons.append("dense layers between sparse ones")
    return [reason[:MAX_REASON] for reason in reasons]


def _size(values: Mapping[str, Any], key: str, maximum: int = MAX_SIZE) -> int:
    value = values.get(key)
    if type(value) is not int or not 0 < value <= maximum:
        raise ValueError(f"{FILE}: {key} is {brief(value)}, wanted 1..{maximum}")
    return value


def _optional_size(values: Mapping[str, Any], key: str) -> int | None:
    return None if values.get(key) is None else _size(values, key)


def _optional_number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    return None if value is None else _number(key, value)


def _number(key: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -MAX_NUMBER <= value <= MAX_NUMBER:  # refuses NaN, too
        raise ValueError(f"{FILE}: {key} is {brief(value)}, wanted a number")
    return value
