"""Settings of a model, of its training, and of how the training runs.

The command line reads this module, so it does not import torch.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from data_contracts import ArtifactError
from stages.config import Settings

Architecture = Literal["llama", "qwen3", "qwen3_moe"]

MAX_REASON = 200  # characters; a reason may quote a config.json
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}


class ModelShape(Settings):
    """The sizes of a decoder-only transformer.

    The size of the vocabulary is not among them: it comes from the tokenizer.
    """

    architecture: Architecture = Field(
        "llama", description="llama; qwen3 adds QK-norm; qwen3_moe adds a mixture of experts"
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
        description="Keys that each token attends to (qwen3 only; transformers and vLLM "
        "load it, llama.cpp does not)",
    )
    experts: int = Field(0, ge=0, le=4096, description="Experts per layer (qwen3_moe)")
    experts_per_token: int = Field(
        0, ge=0, le=256, description="Experts that each token goes to (qwen3_moe)"
    )
    expert_width: int = Field(
        0, ge=0, le=262144, description="Inner width of one expert (qwen3_moe)"
    )

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
        if self.architecture == "qwen3_moe":
            if not (1 <= self.experts_per_token <= self.experts and self.expert_width):
                raise ValueError(
                    "qwen3_moe needs experts, experts_per_token (at most experts) and expert_width"
                )
        elif self.experts or self.experts_per_token or self.expert_width:
            raise ValueError(f"experts need architecture qwen3_moe, not {self.architecture}")
        if self.sliding_window and self.architecture == "llama":
            raise ValueError(
                "sliding_window needs architecture qwen3: transformers ignores it in a llama"
            )
        return self


class ModelConfig(ModelShape):
    """All sizes of a model. `to_hf` and `from_hf` convert to and from a config.json."""

    vocab_size: int = Field(ge=1, le=1 << 24, description="Tokens in the vocabulary (V)")

    def parameters(self) -> ParameterCounts:
        """Count the weights."""
        attention = self.width * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        norms = 2 * self.width
        if self.architecture != "llama":
            norms += 2 * self.head_size
        if self.architecture == "qwen3_moe":
            expert = 3 * self.width * self.expert_width
            router = self.width * self.experts
            ffn = self.experts * expert + router
            active_ffn = self.experts_per_token * expert + router
        else:
            ffn = active_ffn = 3 * self.width * self.ffn_width
        embedding = self.vocab_size * self.width
        tables = embedding if self.tied_embeddings else 2 * embedding
        body = self.layers * (attention + norms + ffn) + self.width
        active = self.layers * (attention + norms + active_ffn) + self.width
        return ParameterCounts(total=body + tables, active=active + tables, non_embedding=body)

    def flops_per_token(self, tokens: int | None = None) -> int:
        """FLOPs of a training step per token, forward and backward.

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

    def to_hf(self) -> dict[str, Any]:
        """The config.json for transformers. `write_checkpoint` adds the special tokens."""
        config: dict[str, Any] = {
            "architectures": [_CLASSES[self.architecture]],
            "model_type": self.architecture,
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "intermediate_size": self.ffn_width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "max_position_embeddings": self.context,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "rope_theta": self.rope_theta,  # transformers < 5, vLLM
            "rms_norm_eps": self.norm_eps,
            "tie_word_embeddings": self.tied_embeddings,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "dtype": "float32",
        }
        if self.architecture == "llama":
            config |= {"mlp_bias": False}
        else:
            config |= {
                "use_sliding_window": self.sliding_window is not None,
                "sliding_window": self.sliding_window,
            }
            if self.architecture == "qwen3":
                config |= {"max_window_layers": 0 if self.sliding_window else self.layers}
        if self.architecture == "qwen3_moe":
            config |= {
                "num_experts": self.experts,
                "num_experts_per_tok": self.experts_per_token,
                "moe_intermediate_size": self.expert_width,
                "norm_topk_prob": True,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
            }
        return config

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> ModelConfig:
        """The sizes of a config.json.

        Raises:
            ArtifactError: The file asks for something that groundup does not support, such as
                another architecture, biases or scaled RoPE.
        """
        unsupported = beyond(config)
        if unsupported:
            raise ArtifactError(
                "config.json",
                f"asks for {'; '.join(unsupported)}, which this model does not have",
                "give a checkpoint of groundup",
            )
        architecture = config["model_type"]
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        is_sparse = architecture == "qwen3_moe"
        is_windowed = config.get("use_sliding_window")
        return cls(
            architecture=architecture,
            vocab_size=config["vocab_size"],
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            head_width=config.get("head_dim"),
            ffn_width=config["intermediate_size"],
            context=config["max_position_embeddings"],
            rope_theta=rope.get("rope_theta") or config.get("rope_theta", 10_000.0),
            norm_eps=config["rms_norm_eps"],
            tied_embeddings=bool(config.get("tie_word_embeddings")),
            sliding_window=config.get("sliding_window") if is_windowed else None,
            experts=config["num_experts"] if is_sparse else 0,
            experts_per_token=config["num_experts_per_tok"] if is_sparse else 0,
            expert_width=config["moe_intermediate_size"] if is_sparse else 0,
        )


def beyond(config: dict[str, Any]) -> list[str]:
    """What a config.json of transformers asks for that groundup does not support, as phrases."""
    architecture = config.get("model_type")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    activation = config.get("hidden_act", "silu")
    rope_type = rope.get("rope_type", "default")
    reasons = []
    if architecture not in _CLASSES:
        supported = ", ".join(_CLASSES)
        reasons.append(f"model_type {architecture!r}, which is none of {supported}")
    if config.get("attention_bias") or config.get("mlp_bias"):
        reasons.append("biases")
    if activation != "silu":
        reasons.append(f"hidden_act {activation!r}")
    if rope_type != "default":
        reasons.append(f"RoPE of type {rope_type!r}")
    if architecture == "qwen3_moe" and not config.get("norm_topk_prob"):
        reasons.append("router weights that do not sum to 1")
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        reasons.append("dense layers between sparse ones")
    return [reason[:MAX_REASON] for reason in reasons]


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


class Training(Settings):
    """How a model is optimized. Every setting affects the result."""

    optimizer: Literal["adamw", "muon"] = Field(
        "muon", description="muon: Muon for the matrices of the blocks, AdamW for all others"
    )
    learning_rate: float = Field(2e-2, gt=0, le=1, description="Peak learning rate of AdamW")
    matrix_learning_rate: float = Field(
        2e-2, gt=0, le=1, description="Peak learning rate of Muon (unused with adamw)"
    )
    weight_decay: float = Field(0.1, ge=0, le=1, description="Decoupled weight decay on matrices")
    beta2: float = Field(
        0.95, ge=0, lt=1, description="AdamW's decay of the second moment (the first is 0.9)"
    )
    schedule: Literal["wsd", "cosine"] = Field(
        "wsd", description="wsd: warm-up, stable, decay to zero; cosine: warm-up, cosine to zero"
    )
    warmup_share: float = Field(
        0.02, ge=0, le=0.5, description="Share of the steps in which the learning rate rises"
    )
    decay_share: float = Field(
        0.4, ge=0, le=1, description="Share of the steps in which it falls to zero (wsd)"
    )
    clip: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Largest gradient norm; larger gradients are scaled down to it",
    )
    spike: float = Field(
        20.0,
        ge=2,
        le=1e6,
        description="Skip a step whose gradient norm exceeds the recent median this many times",
    )
    z_loss: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Weight of the squared log of the softmax sum (1e-4 stabilizes large models)",
    )
    batch_rows: int = Field(
        16, ge=1, le=1 << 20, description="Sequences per optimizer step, over all devices"
    )
    duration: float = Field(
        900, gt=0, le=1e15, description="How long to train, in the unit of duration_in"
    )
    duration_in: Literal["steps", "tokens", "epochs"] = Field(
        "steps", description="Unit of duration"
    )
    evaluate_every: int = Field(
        200,
        ge=1,
        le=1 << 30,
        description="Steps between held-out evaluations; the last step always has one",
    )
    log_every: int = Field(
        10, ge=1, le=1 << 30, description="Steps between rows of the metrics table"
    )

    def steps(self, tokens_per_row: float, rows_per_epoch: int) -> int:
        """Number of optimizer steps, at least one.

        Args:
            tokens_per_row: Mean number of tokens of a row.
            rows_per_epoch: Rows of an epoch.
        """
        if self.duration_in == "steps":
            return max(1, int(self.duration))
        rows = self.duration * rows_per_epoch
        if self.duration_in == "tokens":
            rows = self.duration / tokens_per_row
        return max(1, int(rows // self.batch_rows))


class Compute(Settings):
    """Where and how the training runs. Only the rounding of sums depends on it."""

    devices: int = Field(
        1,
        ge=1,
        le=65536,
        description="Processes, one per GPU (or CPU socket); above 1 the stage starts torchrun",
    )
    replicas: int = Field(
        1,
        ge=1,
        le=65536,
        description="Copies of the sharded model (HSDP); devices must be a multiple",
    )
    micro_batch_rows: int = Field(
        0,
        ge=0,
        le=1 << 20,
        description="Sequences (in dpo: pairs of them) per forward pass on one device; "
        "0: about 4096 tokens on CPU, 32768 on CUDA",
    )
    threads: int = Field(
        0,
        ge=0,
        le=4096,
        description="CPU threads per process; 0: all cores that the process may use",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 if the machine supports it natively"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Use torch.compile for each block; auto: if the run is long enough"
    )
    checkpoint_every: int = Field(
        500,
        ge=1,
        le=1 << 30,
        description="Steps between resume checkpoints, from which an interrupted run continues",
    )

    @model_validator(mode="after")
    def _replicas_are_equal(self) -> Self:
        if self.devices % self.replicas:
            raise ValueError(
                f"devices {self.devices} must be a multiple of replicas {self.replicas}"
            )
        return self
