"""Sizes of a model, as settings and as a config.json.

The command line reads this module, so it does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from data_contracts import ArtifactError
from data_contracts.checkpoint_config import CheckpointConfig
from data_contracts.model_families import DEFAULT, FAMILIES, ModelFamily
from stages.config import Settings

if TYPE_CHECKING:
    Architecture = str
else:  # forms and messages offer the rows of the table
    Architecture = Literal[tuple(FAMILIES)]

_ADDITIONS = [f"{family.name} {family.about}" for family in FAMILIES.values() if family.about]


def _families_with(feature: str) -> str:
    """Return the names of the families that have a feature, for a message."""
    return " or ".join(name for name, family in FAMILIES.items() if getattr(family, feature))


class MoeShape(Settings):
    """A mixture of experts instead of the feed-forward layer."""

    experts: int = Field(0, ge=0, le=4096, description="Experts per layer")
    experts_per_token: int = Field(0, ge=0, le=256, description="Experts that each token goes to")
    expert_width: int = Field(0, ge=0, le=262144, description="Inner width of one expert")


class ModelShape(Settings):
    """The sizes of a decoder-only transformer.

    The size of the vocabulary is not among them: it comes from the tokenizer.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "experts": "moe.experts",
        "experts_per_token": "moe.experts_per_token",
        "expert_width": "moe.expert_width",
    }

    architecture: Architecture = Field(
        DEFAULT.name, description="; ".join([DEFAULT.name, *_ADDITIONS])
    )
    width: int = Field(128, ge=8, le=65536, description="Width of the residual stream (D)")
    layers: int = Field(4, ge=1, le=512, description="Transformer blocks (L)")
    heads: int = Field(4, ge=1, le=512, description="Query heads (H)")
    kv_heads: int = Field(
        4,
        ge=1,
        le=512,
        description="Key and value heads (K); fewer than heads is grouped-query attention",
    )
    head_width: int | None = Field(
        None,
        ge=4,
        le=1024,
        multiple_of=2,
        description="Width of one head (N); default width / heads",
    )
    ffn_width: int = Field(
        352, ge=8, le=262144, description="Inner width of the SwiGLU feed-forward layer (F)"
    )
    context: int = Field(
        256, ge=8, le=1 << 20, description="Tokens that the model sees at once (T)"
    )
    rope_theta: float = Field(
        10_000.0, ge=100, le=1e9, description="Base of the rotary position embedding"
    )
    norm_eps: float = Field(1e-5, gt=0, le=1e-2, description="Epsilon of RMSNorm")
    tied_embeddings: bool = Field(True, description="Use the embedding table as output layer too")
    sliding_window: int | None = Field(
        None,
        ge=8,
        le=1 << 20,
        description="Keys that each token attends to "
        f"({_families_with('has_sliding_window')}; transformers and vLLM load it, "
        "llama.cpp does not)",
    )
    moe: MoeShape = Field(
        MoeShape(), description=f"Mixture of experts ({_families_with('has_experts')})"
    )

    @property
    def family(self) -> ModelFamily:
        """The row of the table of families that `architecture` names."""
        return FAMILIES[self.architecture]

    @property
    def head_size(self) -> int:
        """N: `head_width`, or its default."""
        return self.head_width or self.width // self.heads

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.head_width is None and (self.width % self.heads or (self.width // self.heads) % 2):
            raise ValueError(
                f"width {self.width} / heads {self.heads} must be a whole even number, "
                "or give head_width"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.sliding_window and not self.family.has_sliding_window:
            raise ValueError(
                f"sliding_window needs architecture {_families_with('has_sliding_window')}: "
                f"transformers ignores it in a {self.architecture}"
            )
        return self

    @model_validator(mode="after")
    def _experts_fit(self) -> Self:
        moe = self.moe
        if self.family.has_experts:
            if not (1 <= moe.experts_per_token <= moe.experts and moe.expert_width):
                raise ValueError(
                    f"{self.architecture} needs moe.experts, moe.experts_per_token "
                    "(at most experts) and moe.expert_width"
                )
        elif moe != MoeShape():
            raise ValueError(
                f"experts need architecture {_families_with('has_experts')}, "
                f"not {self.architecture}"
            )
        return self


class ModelConfig(ModelShape):
    """All sizes of a model, the vocabulary included."""

    vocab_size: int = Field(ge=1, le=1 << 24, description="Tokens in the vocabulary (V)")

    def parameters(self) -> ParameterCounts:
        """Count the weights."""
        attention = self.width * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        norms = 2 * self.width
        if self.family.has_qk_norm:
            norms += 2 * self.head_size
        if self.family.has_experts:
            expert = 3 * self.width * self.moe.expert_width
            router = self.width * self.moe.experts
            ffn = self.moe.experts * expert + router
            active_ffn = self.moe.experts_per_token * expert + router
        else:
            ffn = active_ffn = 3 * self.width * self.ffn_width
        embedding = self.vocab_size * self.width
        tables = embedding if self.tied_embeddings else 2 * embedding
        body = self.layers * (attention + norms + ffn) + self.width
        active = self.layers * (attention + norms + active_ffn) + self.width
        return ParameterCounts(total=body + tables, active=active + tables, non_embedding=body)

    def flops_per_token(self, tokens: int | None = None) -> int:
        """Return the FLOPs of a training step per token, forward and backward.

        They are 6 for each weight that a token is multiplied with, plus 6 L T H N for causal
        attention (Kaplan et al. 2020, halved for the mask).

        Args:
            tokens: Length of the sequences. Default: the context.
        """
        tokens = min(tokens or self.context, self.sliding_window or self.context)
        matrices = self.parameters().active
        if not self.tied_embeddings:
            matrices -= self.vocab_size * self.width  # a look-up multiplies nothing
        return 6 * matrices + 6 * self.layers * tokens * self.heads * self.head_size

    def to_checkpoint(self) -> CheckpointConfig:
        """Return the config.json of a checkpoint with these sizes."""
        return CheckpointConfig(
            family=self.family,
            vocab_size=self.vocab_size,
            hidden_size=self.width,
            intermediate_size=self.ffn_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_size,
            tie_word_embeddings=self.tied_embeddings,
            max_position_embeddings=self.context,
            rms_norm_eps=self.norm_eps,
            rope_theta=self.rope_theta,
            sliding_window=self.sliding_window,
            num_experts=self.moe.experts,
            num_experts_per_tok=self.moe.experts_per_token,
            moe_intermediate_size=self.moe.expert_width,
        )

    @classmethod
    def from_checkpoint(cls, config: CheckpointConfig) -> ModelConfig:
        """Return the sizes that a config.json asks for.

        Args:
            config: The content of the file.

        Raises:
            ArtifactError: It asks for something that groundup does not support, such as biases or
                scaled RoPE.
            ValueError: A size is missing or out of range.
        """
        if config.unsupported:
            raise ArtifactError(
                "config.json",
                f"asks for {'; '.join(config.unsupported)}, which this model does not have",
                "give a checkpoint of groundup",
            )
        sizes: dict[str, Any] = {
            "architecture": config.family.name,
            "vocab_size": config.vocab_size,
            "width": config.hidden_size,
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_width": config.head_dim,
            "ffn_width": config.intermediate_size,
            "context": config.max_position_embeddings,
            "rope_theta": config.rope_theta,
            "norm_eps": config.rms_norm_eps,
            "tied_embeddings": config.tie_word_embeddings,
            "sliding_window": config.sliding_window,
            "moe": {
                "experts": config.num_experts,
                "experts_per_token": config.num_experts_per_tok,
                "expert_width": config.moe_intermediate_size,
            },
        }
        return cls.model_validate(sizes)


class ParameterCounts(Settings):
    """How many weights a model has.

    Attributes:
        total: All weights.
        active: Those that one token is multiplied with.
        non_embedding: All but the embedding and the output table.
    """

    total: int
    active: int
    non_embedding: int
