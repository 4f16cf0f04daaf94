"""Settings of a training, and of where and how it runs.

The command line reads this module, so it does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from stages.config import Settings


class LearningRateSchedule(Settings):
    """How the learning rate changes during a training."""

    kind: Literal["wsd", "cosine"] = Field(
        "wsd", description="wsd: warm-up, stable, decay to zero; cosine: warm-up, cosine to zero"
    )
    warmup_share: float = Field(
        0.02, ge=0, le=0.5, description="Share of the steps in which the learning rate rises"
    )
    decay_share: float = Field(
        0.4, ge=0, le=1, description="Share of the steps in which it falls to zero (wsd)"
    )


class Stability(Settings):
    """What keeps a training from diverging."""

    grad_clip: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Largest gradient norm; larger gradients are scaled down to it",
    )
    spike_threshold: float = Field(
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


class Training(Settings):
    """How a model is optimized. Every setting affects the result."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "matrix_learning_rate": "muon_learning_rate",
        "schedule": "lr_schedule.kind",
        "warmup_share": "lr_schedule.warmup_share",
        "decay_share": "lr_schedule.decay_share",
        "clip": "stability.grad_clip",
        "spike": "stability.spike_threshold",
        "z_loss": "stability.z_loss",
        "batch_rows": "batch_size",
    }

    optimizer: Literal["adamw", "muon"] = Field(
        "muon", description="muon: Muon for the matrices of the blocks, AdamW for all others"
    )
    learning_rate: float = Field(2e-2, gt=0, le=1, description="Peak learning rate of AdamW")
    muon_learning_rate: float = Field(
        2e-2, gt=0, le=1, description="Peak learning rate of Muon (unused with adamw)"
    )
    weight_decay: float = Field(0.1, ge=0, le=1, description="Decoupled weight decay on matrices")
    beta2: float = Field(
        0.95, ge=0, lt=1, description="AdamW's decay of the second moment (the first is 0.9)"
    )
    lr_schedule: LearningRateSchedule = Field(
        LearningRateSchedule(), description="How the learning rate changes"
    )
    stability: Stability = Field(Stability(), description="What keeps the training from diverging")
    batch_size: int = Field(
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
        """Return the number of optimizer steps, at least one.

        Args:
            tokens_per_row: Mean number of tokens of a row.
            rows_per_epoch: Rows of an epoch.
        """
        if self.duration_in == "steps":
            return max(1, int(self.duration))
        rows = self.duration * rows_per_epoch
        if self.duration_in == "tokens":
            rows = self.duration / tokens_per_row
        return max(1, int(rows // self.batch_size))


class Compute(Settings):
    """Where and how the training runs. Only the rounding of sums depends on it."""

    RENAMED: ClassVar[Mapping[str, str]] = {"micro_batch_rows": "micro_batch_size"}

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
    micro_batch_size: int = Field(
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
